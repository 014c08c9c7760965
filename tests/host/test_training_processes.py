"""Trainings that the page starts as separate processes, known by the files in their folders."""

import importlib
import sys
import time
from types import SimpleNamespace

import pytest

from support.small_training import FRAMES, ROOT, SIDE, stripes, write_base, write_frames


@pytest.fixture(scope="module")
def trainings():
    """The module, imported with the stand-in WebUI's `modules`."""
    sys.path.insert(0, str(ROOT / "demo" / "host" / "webui"))
    yield importlib.import_module("animatediff.page.training_processes")
    sys.path.remove(str(ROOT / "demo" / "host" / "webui"))


@pytest.fixture
def config(tmp_path):
    for index in range(2):
        write_frames(tmp_path / "clips" / str(index), stripes(FRAMES, seed=index))
    return {
        "train": "domain adapter",
        "base": str(write_base(tmp_path / "base.safetensors")),
        "data": str(tmp_path / "clips"),
        "output": str(tmp_path / "out.safetensors"),
        "size": SIDE,
        "stride": 1,
        "batch": 2,
        "steps": 100_000,
        "validation": {"prompts": [f"stripes {index}" for index in range(11)], "every": 1, "steps": 1},
    }


@pytest.fixture
def training(trainings, tmp_path):
    training = trainings.Training(tmp_path / "trainings" / "stripes")
    yield training
    if process := training.process():
        process.kill()


def until(true, training):
    give_up = time.monotonic() + 300  # a busy machine is slow
    while not true():
        assert time.monotonic() < give_up, training.status()
        time.sleep(0.1)


def test_a_training_is_started_paused_resumed_and_stopped(trainings, training, config):
    assert training.status() == {"doing": "Ended with an error", "error": ""} and training.data() == [""]
    training.start(config)
    for act in (training.resume, lambda: training.start(config)):
        with pytest.raises(trainings.TrainingError, match="'stripes' is already running"):
            act()
    until(training.losses, training)
    assert training.data()[0] == f"2 videos make {2 * FRAMES} frames: {2 * FRAMES} of {SIDE}×{SIDE}."
    training.request("pause")
    until(lambda: training.status()["doing"] == "Paused" and not training.process(), training)
    paused = training.status()["step"]
    assert [step for step, _ in training.losses()] == list(range(1, paused + 1))
    assert [clip.name for clip in training.clips()] == [f"step-{paused:06d}-{index:03d}.gif" for index in range(1, 12)]
    with pytest.raises(trainings.TrainingError, match="The training 'stripes' is not running"):
        training.request("stop")
    with pytest.raises(trainings.TrainingError, match="There is already a training 'stripes'"):
        training.start(config)
    training.resume()
    until(lambda: len(training.losses()) > paused, training)
    training.request("stop")
    until(lambda: training.status()["doing"] == "Stopped" and not training.process(), training)


def test_only_one_training_runs_at_a_time(trainings, training, monkeypatch):
    """Whoever sees the page can start one, and each takes gigabytes."""
    other = trainings.Training(training.folder.parent / "dots")
    for each in (training, other):
        each.folder.mkdir(parents=True)
        (each.folder / "config.yaml").write_text("")
    begun, running = [], SimpleNamespace(kill=lambda: None)
    monkeypatch.setattr(trainings.Training, "process", lambda self: running if self == other else None)
    monkeypatch.setattr(trainings.Training, "_run", lambda self: begun.append(self))
    for act in (training.resume, lambda: training.start({"train": "motion lora"})):
        with pytest.raises(trainings.TrainingError, match=r"'dots' is running, and only one can run at a time\. Pause"):
            act()
    assert begun == [] and (training.folder / "config.yaml").read_text() == ""
    monkeypatch.setattr(trainings.Training, "process", lambda _: None)
    training.resume()
    assert begun == [training]


def test_resume_waits_for_the_process_that_has_paused(trainings, training, monkeypatch):
    """It writes "Paused" before it ends, which takes seconds on a busy machine."""
    training.folder.mkdir(parents=True, exist_ok=True)
    (training.folder / "config.yaml").write_text("")
    (training.folder / "status.json").write_text('{"doing": "Paused"}')
    waited, begun = [], []
    process = SimpleNamespace(wait=waited.append, kill=lambda: None)
    monkeypatch.setattr(trainings.Training, "process", lambda _: None if waited else process)
    monkeypatch.setattr(trainings.Training, "_run", lambda self: begun.append(self))
    training.resume()
    assert len(waited) == 1 and begun == [training]


def test_the_losses_of_a_long_training_are_sampled(trainings, training):
    training.folder.mkdir(parents=True)
    lines = [f'{{"step": {step}, "loss": {step / 2}}}\n' for step in range(1, 3 * trainings.MOST_LOSSES + 1)]
    (training.folder / "losses.jsonl").write_text("".join(lines) + '{"step": 1', encoding="utf-8")
    losses = training.losses()
    assert losses[:2] == [(1, 0.5), (4, 2.0)] and len(losses) == trainings.MOST_LOSSES


def test_the_error_that_ends_a_training_is_shown(training, config):
    training.start({**config, "data": "/nowhere"})
    until(lambda: not training.process(), training)
    assert training.status() == {
        "doing": "Ended with an error",
        "error": "data: /nowhere does not exist. Set it to a folder, or to a CSV file.",
    }
    until(lambda: not training.folder.exists(), training)  # nothing is left of it but the error
    assert training.status()["error"].startswith("data: /nowhere does not exist.") and training.losses() == []


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".a", "a\\b"])
def test_a_name_that_is_not_allowed_is_refused(trainings, name):
    with pytest.raises(trainings.TrainingError, match="cannot be the name of a training"):
        trainings.named(name)
