"""The folders of unfinished videos."""

import importlib
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def unfinished(tmp_path, monkeypatch):
    """Imported with the embedded host's `modules`."""
    monkeypatch.syspath_prepend(str(ROOT / "demo" / "host" / "webui"))
    module = importlib.import_module("animatediff.job.resume_store")
    monkeypatch.setattr(module, "data_path", str(tmp_path))
    return module


def begin_at(unfinished, time, tab="txt2img", infotext="a cat\nSteps: 20, Seed: 5"):
    begun = unfinished.begin(tab, infotext, [infotext, 20])
    os.utime(begun.folder / unfinished.DESCRIPTION, (time, time))
    return begun


def test_the_same_video_has_the_same_folder(unfinished):
    first = unfinished.begin("txt2img", "a cat\nCFG scale: 7", ["a cat", 7.0])
    assert unfinished.begin("txt2img", "a cat\nCFG scale: 7.0", ["a cat", 7.0]) == first
    for tab, what in (("img2img", ["a cat", 7.0]), ("txt2img", ["a cat", 6.0]), ("txt2img", ["a dog", 7.0])):
        assert unfinished.begin(tab, "", what) != first


def test_it_says_what_it_is_and_how_far_it_is(unfinished):
    begun = begin_at(unfinished, 100, "img2img")
    facts = {"key": begun.folder.name, "tab": "img2img", "infotext": "a cat\nSteps: 20, Seed: 5"}
    assert unfinished.descriptions() == [{**facts, "done": None, "time": 100.0, "bytes": 0}]
    for number, time in ((1, 300), (2, 200)):
        call = begun.folder / f"{number}.safetensors"
        save_file({"found": torch.zeros(number)}, call, {"where": f"step {number} of 20"})
        os.utime(call, (time, time))
    size = sum(call.stat().st_size for call in begun.folder.glob("*.safetensors"))
    assert unfinished.descriptions() == [{**facts, "done": "step 1 of 20", "time": 300.0, "bytes": size}]
    begun.delete()
    assert unfinished.descriptions() == []


def test_the_newest_three_are_kept(unfinished):
    keys = [begin_at(unfinished, time, infotext=str(time)).folder.name for time in (400, 100, 300, 200)]
    assert {video["key"] for video in unfinished.descriptions()} == {keys[0], keys[2], keys[3]}
    assert [video["infotext"] for video in unfinished.descriptions()] == ["400", "300", "200"]
    begin_at(unfinished, 500, infotext="200")  # gone on with, so none has to go
    assert [video["infotext"] for video in unfinished.descriptions()] == ["200", "400", "300"]


def test_a_description_that_a_kill_has_hit_is_passed_over(unfinished):
    whole, hit = begin_at(unfinished, 100), begin_at(unfinished, 200, infotext="hit")
    (hit.folder / unfinished.DESCRIPTION).write_text('{"tab": "txt2i')
    assert [video["key"] for video in unfinished.descriptions()] == [whole.folder.name]


def test_a_key_leads_to_no_other_folder(unfinished, tmp_path):
    begun = unfinished.begin("txt2img", "a cat", [])
    assert unfinished.keyed(begun.folder.name) == begun
    (tmp_path / "outputs").mkdir()
    for key in ("", ".", "..", "../../outputs", "outputs", begun.folder.name + "\n", begun.folder.name + "/..", "0" * 32):
        assert unfinished.keyed(key) is None


def test_the_encoders_noise_is_the_same_each_time_and_of_others_nothing_is_used_up(unfinished):
    torch.manual_seed(3)
    expected = torch.randn(4)
    torch.manual_seed(3)
    drawn = []
    for seed in (5, 5, 6):
        with unfinished.seeded(seed):
            drawn.append(torch.randn(4))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert torch.equal(torch.randn(4), expected)
