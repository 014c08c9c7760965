"""The condition of each clip of a UNet call: prompts and negative prompts, as the WebUIs give them to the UNet."""

import importlib
from pathlib import Path

import pytest
import torch

from motion_module.step_reuse import NEGATIVE

ROOT = Path(__file__).resolve().parents[2]
FRAMES = 8


@pytest.fixture
def hosts(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "demo" / "host" / "webui"))  # for its `modules`
    ldm, patcher = (importlib.import_module(f"animatediff.host.{name}") for name in ("ldm", "unet_patcher"))
    return {"AUTOMATIC1111": ldm.Ldm(), "Forge": patcher.UNetPatcherHost()}


@pytest.mark.parametrize(
    ("clips", "parts", "had", "expected"),
    [
        (2, 1, [], [0, NEGATIVE]),
        (1, 1, [], [0]),
        (1, 1, [0], [NEGATIVE]),
        (3, 2, [], [0, 1, NEGATIVE]),
        (2, 2, [], [0, 1]),
        (1, 2, [0, 1], [NEGATIVE]),
        (1, 1, [0, NEGATIVE], None),
        (3, 1, [], None),
    ],
)
def test_automatic1111_has_all_parts_of_the_prompt_first(hosts, clips, parts, had, expected):
    assert hosts["AUTOMATIC1111"].conditions_of_call(clips * FRAMES, FRAMES, parts, {}, had) == expected


@pytest.mark.parametrize(
    ("clips", "marks", "parts", "had", "expected"),
    [
        (2, [1, 0], 1, [], [NEGATIVE, 0]),
        (3, [1, 0, 0], 2, [], [NEGATIVE, 0, 1]),
        (1, [0], 2, [NEGATIVE, 0], [1]),
        (1, [0], 1, [NEGATIVE, 0], None),
        (1, [1], 1, [], [NEGATIVE]),
        (4, [1, 0], 1, [], None),
        (2, None, 1, [], None),
    ],
)
def test_forge_says_which_are_of_prompts(hosts, clips, marks, parts, had, expected):
    named = {} if marks is None else {"transformer_options": {"cond_or_uncond": marks}}
    assert hosts["Forge"].conditions_of_call(clips * FRAMES, FRAMES, parts, named, had) == expected


def test_half_a_clip_is_of_no_condition(hosts):
    assert hosts["AUTOMATIC1111"].conditions_of_call(FRAMES // 2, FRAMES, 1, {}, []) is None


def test_the_marks_of_forge_are_those_of_the_rows_that_are_left(hosts):
    sigmas = torch.full([FRAMES], 3.0)
    options = {"cond_or_uncond": [1, 0], "sigmas": sigmas, "cond_mark": torch.tensor([1, 0]).repeat_interleave(FRAMES)}
    chosen = torch.arange(FRAMES, 2 * FRAMES)
    found = hosts["Forge"].arguments_of_rows()({"transformer_options": options}, chosen, 2 * FRAMES, FRAMES)
    assert found["transformer_options"]["cond_or_uncond"] == [0]
    assert found["transformer_options"]["cond_indices"] == list(range(FRAMES))
    assert found["transformer_options"]["uncond_indices"] == [] and len(found["transformer_options"]["sigmas"]) == FRAMES
