"""What of a request contradicts what its models are made for."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def advice(monkeypatch):
    """Imported with the embedded host's `modules`."""
    monkeypatch.syspath_prepend(str(ROOT / "demo" / "host" / "webui"))
    return importlib.import_module("animatediff.job.advice")


@pytest.mark.parametrize(
    ("checkpoint", "steps", "cfg", "said"),
    [
        ("sdxl_lightning_4step.safetensors", 25, 1.5, "25 and 1.5"),
        ("dreamshaperXL_v2TurboDpmppSDE.safetensors", 8, 7.0, "8 and 7"),
        ("dreamshaperXL_v2TurboDpmppSDE.safetensors", 8, 2.0, ""),
        ("somebodysLCM_v1.safetensors", 8, 7.0, "8 and 7"),
        ("sd_xl_base_1.0.safetensors", 25, 7.0, ""),
        ("SDXL Lightning/hyperrealism_v3.safetensors", 25, 7.0, ""),
        ("realcmix.safetensors", 25, 7.0, ""),
    ],
)
def test_a_checkpoint_that_is_distilled_by_its_name_wants_few_steps_and_little_guidance(advice, checkpoint, steps, cfg, said):
    warnings = advice.distilled(SimpleNamespace(steps=steps, cfg_scale=cfg), checkpoint)
    assert len(warnings) == bool(said)
    if said:
        assert checkpoint in warnings[0] and said in warnings[0] and "Lower them" in warnings[0]


@pytest.mark.parametrize(
    ("speed", "active", "calc", "said"),
    [("Fast", True, "Latent", 1), ("Exact", True, "Latent", 0), ("Fast", False, "Latent", 0), ("Fast", True, "Attention", 0)],
)
def test_light_steps_that_regional_prompter_makes_full_are_said(advice, speed, active, calc, said):
    script = SimpleNamespace(title=lambda: "Regional Prompter", active=active, calc=calc)
    p = SimpleNamespace(scripts=SimpleNamespace(alwayson_scripts=[script]))
    warnings = advice.speed_without_light_calls(p, SimpleNamespace(params=SimpleNamespace(speed=speed)))
    assert len(warnings) == said and all("has no effect with Regional Prompter's mode Latent" in one for one in warnings)


def test_the_size_that_a_family_is_bound_to_is_said(advice):
    families = importlib.import_module("motion_module.families")
    assert "Euler a, 30 steps, CFG 5, about 512×512" in advice.spoken(families.HOTSHOT.advice)
    assert "Euler, DDIM, 100 steps, CFG 8.5, about 1024×1024" in advice.spoken(families.XL_BETA.advice)
    assert "×" not in advice.spoken(families.V3.advice)


@pytest.mark.parametrize(("width", "height", "said"), [(1024, 1024, []), (1344, 768, []), (512, 512, ["the size is 512×512"])])
def test_a_size_that_is_far_from_the_authors_contradicts(width, height, said):
    families = importlib.import_module("motion_module.families")
    found = families.XL_BETA.advice.contradictions("Euler", "DDIM", 100, 8.5, width, height)
    assert [sentence.partition(",")[0] for sentence in found] == said
    assert families.V3.advice.contradictions("DDIM", "Automatic", 25, 7.5, width, height) == []


FACE, NONE = {"ad_model": "face_yolov8n.pt"}, {"ad_model": "None"}


@pytest.mark.parametrize(
    ("values", "is_on"),
    [
        ([True, False, NONE, FACE], True),
        ([FACE], True),
        ([False, False, FACE], False),
        ([True, False, NONE], False),
        ([True, False, {**FACE, "ad_tab_enable": False}], False),
        ([True, False, {}], False),
        ([], False),
    ],
)
def test_adetailer_is_warned_of_where_it_is_switched_on(advice, values, is_on):
    script = SimpleNamespace(title=lambda: "ADetailer", args_from=1, args_to=1 + len(values))
    p = SimpleNamespace(scripts=SimpleNamespace(alwayson_scripts=[script]), script_args=[0, *values])
    assert [("ADetailer" in text and "may flicker" in text) for text in advice.other_detailer(p)] == [True] * is_on
    script.title = lambda: "Another"
    assert advice.other_detailer(p) == []
