"""Trainings that the page starts as separate processes, known by the files in their folders."""

import importlib
import sys
import threading
import time
from pathlib import Path
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


TRAINER = f"""#!{sys.executable}
import json, sys, time
from pathlib import Path
folder = Path(sys.argv[4]).parent
is_refused = "refused" in (folder / "config.yaml").read_text()
status = {{"doing": "Ended with an error", "error": "No."}} if is_refused else {{"doing": "Training"}}
(folder / "part").write_text(json.dumps(status))
(folder / "part").replace(folder / "status.json")
time.sleep(0.5 if is_refused else 60)
sys.exit(1)
"""


@pytest.fixture
def trainer(tmp_path, monkeypatch):
    """A stand-in for the training itself. It says at once that it is refused, but takes half a second to end."""
    (tmp_path / "python").write_text(TRAINER)
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))


def refused(training):
    """Starts a training that is refused. Returns the thread that waits for its process."""
    before = threading.enumerate()
    training.start({"train": "refused"})
    (waiting,) = set(threading.enumerate()) - set(before)
    until(lambda: training.status() == {"doing": "Ended with an error", "error": "No."}, training)
    return waiting


@pytest.mark.usefixtures("trainer")
def test_a_training_survives_the_end_of_the_refused_one_before_it(training):
    waiting = refused(training)
    training.start({"train": "all"})
    waiting.join()
    assert (training.folder / "config.yaml").exists()
    until(lambda: training.status() == {"doing": "Training"}, training)
    assert training.process()


@pytest.mark.usefixtures("trainer")
def test_a_refused_training_is_deleted_while_the_start_of_another_waits_for_it(trainings, training, monkeypatch):
    """Whoever else waits for the process might take its exit status."""
    monkeypatch.setattr(trainings.psutil.Process, "wait", lambda *_: pytest.fail("psutil waits for a child"))
    waiting = refused(training)
    other = trainings.Training(training.folder.parent / "dots")
    other.start({"train": "all"})
    waiting.join()
    assert not training.folder.exists() and training.status() == {"doing": "Ended with an error", "error": "No."}
    other.process().kill()


@pytest.mark.usefixtures("trainer")
def test_a_training_runs_from_the_moment_of_its_start(trainings, training, monkeypatch):
    """Until a new process has its command line, which takes long on a busy machine, the system shows an empty one."""
    monkeypatch.setattr(trainings.psutil.Process, "cmdline", lambda _: [])
    training.start({"train": "all"})
    assert training.process()
    training.process().kill()


@pytest.mark.parametrize("file", ["status.json", "output.txt"])
def test_the_error_is_shown_while_the_folder_is_deleted(trainings, training, monkeypatch, file):
    """The thread that deletes the folder may run between any two steps of the one that reads it."""
    training.folder.mkdir(parents=True)
    read = Path.read_text

    def deleted_meanwhile(path, **options):
        if path == training.folder / file:
            monkeypatch.setitem(trainings.REFUSED, training.folder, "No.")
            raise FileNotFoundError
        return read(path, **options)

    monkeypatch.setattr(Path, "read_text", deleted_meanwhile)
    assert training.status() == {"doing": "Ended with an error", "error": "No."}


def test_a_training_that_ends_while_its_status_is_read_has_not_failed(trainings, training, monkeypatch):
    training.folder.mkdir(parents=True)
    (training.folder / "status.json").write_text('{"doing": "Training"}')

    def ends(_):
        monkeypatch.setattr(trainings.Training, "process", lambda _: None)
        (training.folder / "status.json").write_text('{"doing": "Done"}')
        return SimpleNamespace(kill=lambda: None)

    monkeypatch.setattr(trainings.Training, "process", ends)
    assert training.status() == {"doing": "Done"}


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
