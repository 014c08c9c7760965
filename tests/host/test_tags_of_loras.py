"""Tags of LoRAs with a schedule: what is read of them, and what they mean for others."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from animatediff.errors import RequestError
from animatediff.request.params import Params
from motion_module.weight_files import CheckpointError

ROOT = Path(__file__).resolve().parents[2]
FRAMES = 4


@pytest.fixture(autouse=True)
def _a_webui(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "demo" / "host" / "webui"))  # for its `modules`


@pytest.fixture
def taken(tmp_path, monkeypatch):
    """Takes the tag of a LoRA of rank 3, whose arguments are given. Returns what was taken, and what stays in the prompt."""
    part = {"lora_down.weight": torch.ones(3, 8), "lora_up.weight": torch.ones(8, 3)}
    path = tmp_path / "pose.safetensors"
    save_file({f"lora_unet_time_embedding_linear_1.{name}": tensor for name, tensor in part.items()}, path)
    entry = SimpleNamespace(filename=str(path), shorthash="", read_hash=lambda: None)
    known = SimpleNamespace(
        forbidden_network_aliases={},
        available_network_aliases={"pose": entry},
        update_available_networks_by_names=lambda names: None,
    )
    monkeypatch.setitem(sys.modules, "networks", known)

    def take(arguments):
        from modules.extra_networks import parse_prompts

        from animatediff.job.loras import take_from

        parsed = parse_prompts([f"a cat <lora:{arguments}>"])[1]
        return take_from(parsed, FRAMES, closed=False), [kept.items for kept in parsed["lora"]]

    return take


def test_the_strongest_number_is_for_the_text_encoder(taken):
    found, kept = taken("pose:0: 1, 3: -2")
    assert kept == [["pose", "te=-2.0", "unet=0"]] and not found.warnings
    ((lora, strengths),) = found.loras
    assert strengths == (1, 0, -1, -2) and lora.rank is None


def test_te_and_dyn_are_read_beside_a_schedule(taken):
    found, kept = taken("pose:0: 1, 3: 0:te=0.25:dyn=2")
    assert kept == [["pose", "te=0.25", "unet=0", "dyn=2"]] and not found.warnings
    ((lora, _),) = found.loras
    assert [tuple(part.down.shape) for part in lora.parts.values()] == [(2, 8)]


def test_other_arguments_beside_a_schedule_are_named(taken):
    found, _ = taken("pose:0: 1, 3: 0:unet=0.5:lbw=OUTALL")
    (warning,) = found.warnings
    assert "unet, lbw in <lora:pose:0: 1, 3: 0:unet=0.5:lbw=OUTALL> have no effect: LoRAs with a schedule act" in warning
    assert warning.endswith("only te and dyn are read. Leave out the rest.")


@pytest.mark.parametrize(("argument", "said"), [("te=much", "The strength"), ("dyn=0", r"The rank \(dyn\)")])
def test_arguments_that_are_no_numbers_are_refused_beside_a_schedule(taken, argument, said):
    with pytest.raises(CheckpointError, match=f"{said} in <lora:pose:0: 1, 3: 0:{argument}>"):
        taken(f"pose:0: 1, 3: 0:{argument}")


def test_an_error_shows_a_tag_shortened_and_in_whole_characters(taken):
    with pytest.raises(RequestError) as refusal:
        taken("pose:0: 1, \ud800" + "x" * 1000)
    assert "<lora:pose:0: 1, ?xx" in str(refusal.value) and "xx…" in str(refusal.value)
    assert len(str(refusal.value).encode()) < 500


def test_details_count_the_frames_of_the_video_where_a_lora_has_a_schedule(monkeypatch):
    monkeypatch.setitem(sys.modules, "modules.processing", SimpleNamespace())  # generates nothing here
    name = "animatediff.detailer.nested"
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, name)  # the one with the stand-in is forgotten afterwards
    nested = importlib.import_module(name)

    def travels(tag):
        processed = SimpleNamespace(
            all_prompts=[f"a cat {tag}"] * 4, all_negative_prompts=[""] * 4, all_seeds=[1] * 4, all_subseeds=[1] * 4
        )
        return nested.Nested(SimpleNamespace(), SimpleNamespace(params=Params(), frames=FRAMES), processed, 0).travels

    assert travels("<lora:pose:0: 1, 3: 0>") and not travels("<lora:pose:0.5>")
