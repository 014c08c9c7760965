"""A window's rows of what Forge and reForge pass to the UNet."""

from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
FRAMES = 8
NEGATIVE, PROMPT = 1, 0


@pytest.fixture
def rows_of(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "demo" / "host" / "webui"))  # for its `modules`
    from animatediff.host.unet_patcher import UNetPatcherHost

    return UNetPatcherHost().arguments_of_rows()


@pytest.fixture
def arguments():
    """A call of three clips: a negative prompt, and the two parts of a prompt."""
    options = {
        "cond_or_uncond": [NEGATIVE, PROMPT, PROMPT],
        "uuids": ["n", "a", "b"],
        "cond_indices": list(range(FRAMES, 3 * FRAMES)),
        "uncond_indices": list(range(FRAMES)),
        "cond_mark": torch.tensor([NEGATIVE, PROMPT, PROMPT]).repeat_interleave(FRAMES).float(),
        "sigmas": torch.full([FRAMES], 3.0),
        "patches": {"attn1": ["left alone"]},
    }
    control = {"middle": [torch.arange(3 * FRAMES)]}
    return {"control": control, "transformer_options": options}


def test_all_clips_of_a_window(rows_of, arguments):
    chosen = torch.tensor([[2, 3, 4], [10, 11, 12], [18, 19, 20]]).flatten()
    found = rows_of(arguments, chosen, 3 * FRAMES, 3)
    options = found["transformer_options"]
    assert options["cond_or_uncond"] == [NEGATIVE, PROMPT, PROMPT] and options["uuids"] == ["n", "a", "b"]
    assert options["uncond_indices"] == [0, 1, 2] and options["cond_indices"] == [3, 4, 5, 6, 7, 8]
    assert options["cond_mark"].tolist() == [1, 1, 1, 0, 0, 0, 0, 0, 0] and len(options["sigmas"]) == 3
    assert options["patches"] == {"attn1": ["left alone"]}
    assert found["control"]["middle"][0].tolist() == chosen.tolist()


def test_two_windows_at_once(rows_of, arguments):
    """The windows of the first clip, then those of the next: as in a plain batch of so many images."""
    chosen = torch.tensor([[0, 1], [4, 5], [8, 9], [12, 13], [16, 17], [20, 21]]).flatten()
    options = rows_of(arguments, chosen, 3 * FRAMES, 4)["transformer_options"]
    assert options["cond_or_uncond"] == [NEGATIVE, PROMPT, PROMPT] and options["uuids"] == ["n", "a", "b"]
    assert options["uncond_indices"] == [0, 1, 2, 3] and options["cond_indices"] == [4, 5, 6, 7, 8, 9, 10, 11]
    assert len(options["sigmas"]) == 4


def test_the_call_itself_is_left_as_it_was(rows_of, arguments):
    before = dict(arguments["transformer_options"])
    rows_of(arguments, torch.arange(2), 3 * FRAMES, 2)
    assert arguments["transformer_options"] == before


def test_a_call_of_several_tiles_of_the_picture(rows_of, arguments):
    """MultiDiffusion calls the UNet with all conditions of a tile, then with those of the next, under the marks of one tile."""
    rows = torch.arange(6 * FRAMES).view(6, FRAMES)
    options = rows_of(arguments, rows[:, :2].flatten(), 6 * FRAMES, 2)["transformer_options"]
    assert options["uncond_indices"] == [0, 1, 6, 7] and options["cond_indices"] == [2, 3, 4, 5, 8, 9, 10, 11]


def test_a_call_of_one_of_the_conditions(rows_of, arguments):
    """Regional Prompter calls the UNet with one condition at a time, under the marks of all."""
    found = rows_of({**arguments, "x": torch.arange(FRAMES)}, torch.tensor([4, 5]), FRAMES, 2)
    assert found["x"].tolist() == [4, 5] and found["transformer_options"]["cond_or_uncond"] == [NEGATIVE, PROMPT, PROMPT]


def test_a_call_without_options(rows_of):
    assert rows_of({"y": torch.arange(4)}, torch.tensor([1, 3]), 4, 2)["y"].tolist() == [1, 3]
