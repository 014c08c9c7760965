"""Other extensions that are refused where they are switched on."""

from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEMOFUSION = [True, "DemoFusion"]
TILED = [True, "MultiDiffusion", False, True, 1024, 1024, 16, 16, 4, 4, "None", 2, False, 10, 1, 1, 64, False, False, False]


@pytest.fixture
def unsuitable(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "demo" / "host" / "webui"))  # for its `modules`
    from animatediff.job import unsuitable_extensions

    return unsuitable_extensions


def plan(*, needed=False, in_attention=False, images=None, controls=()):
    windows = SimpleNamespace(needed=needed, length=16)
    inputs = SimpleNamespace(controls=controls)
    return SimpleNamespace(frames=40, windows=windows, windows_in_attention=in_attention, images=images, inputs=inputs)


def request(title, values=(), **state):
    script = SimpleNamespace(title=lambda: title, args_from=1, args_to=1 + len(values), **state)
    return SimpleNamespace(scripts=SimpleNamespace(alwayson_scripts=[script]), script_args=(0, *values))


def with_(values, changes):
    return [changes.get(number, value) for number, value in enumerate(values)]


REGIONS = {"active": True, "mode": "Prompt-Ex"}
REFUSED = [
    (request("Regional Prompter", **REGIONS), plan(needed=True), "mode Prompt needs all 40 frames"),
    (request("demofusion", DEMOFUSION), plan(), "DemoFusion samples in a way of its own"),
    (request("Tiled Diffusion", with_(TILED, {12: True})), plan(images=["a"]), "noise inversion"),
    (request("Tiled Diffusion", with_(TILED, {10: "Lanczos"})), plan(images=["a", "b"]), "upscaler would put the first frame"),
    (request("Tiled Diffusion", TILED), plan(controls=["a unit"]), "one picture of ControlNet to all frames"),
]
TAKEN = [
    (request("Regional Prompter", **REGIONS), plan()),
    (request("Regional Prompter", **REGIONS), plan(needed=True, in_attention=True)),
    (request("Regional Prompter", active=False, mode="Prompt"), plan(needed=True)),
    (request("Regional Prompter", active=True, mode="Vertical"), plan(needed=True)),
    (request("demofusion", with_(DEMOFUSION, {0: False})), plan()),
    (request("Tiled Diffusion", TILED), plan(images=["a", "b"])),
    (request("Tiled Diffusion", with_(TILED, {12: True})), plan()),
    (request("Tiled Diffusion", with_(TILED, {0: False, 12: True})), plan(images=["a"])),
    (request("Tiled Diffusion", [True]), plan(images=["a", "b"])),
    (request("Some other", [True]), plan(needed=True)),
]


@pytest.mark.parametrize(("p", "plan", "said"), REFUSED)
def test_what_would_be_wrong_is_refused_by_name(unsuitable, p, plan, said):
    with pytest.raises(unsuitable.AnimateDiffError, match=said):
        unsuitable.require_suitable(p, plan)


@pytest.mark.parametrize(("p", "plan"), TAKEN)
def test_what_is_off_or_right_is_taken(unsuitable, p, plan):
    unsuitable.require_suitable(p, plan)


@pytest.mark.parametrize(
    "p",
    [request("Regional Prompter", active=True, mode="Vertical"), request("Tiled Diffusion", with_(TILED, {18: True}))],
)
def test_regions_are_refused_with_keyframes(unsuitable, p):
    with pytest.raises(unsuitable.AnimateDiffError, match="with all keyframes as one text"):
        unsuitable.require_no_keyframes(p, plan())


@pytest.mark.parametrize("p", [request("Regional Prompter", active=False), request("Tiled Diffusion", TILED)])
def test_other_prompts_may_have_keyframes(unsuitable, p):
    unsuitable.require_no_keyframes(p, plan())
