"""Errors in a training: what is reported, and what is kept."""

import json
import os
import resource
import shutil
import signal
from dataclasses import replace

import pytest
import torch
from filelock import FileLock
from PIL import Image
from safetensors.torch import load_file

from motion_module.__main__ import main
from motion_module.training import latent_cache
from motion_module.training.config import ConfigError
from motion_module.training.data import DataError
from motion_module.training.loop import Diverged, StopRequested, Training
from motion_module.training.state import NotSaved
from support.small_training import FRAMES, as_file, launched, small, stripes, write_frames, write_video


def test_a_full_disk_keeps_the_previous_state(setting, tmp_path):
    """A limit on file sizes simulates a full disk: writing fails in the middle of the file."""
    training = Training(setting(steps=1))
    training.run()
    state = tmp_path / "out-training" / "state.safetensors"
    before = state.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(
            NotSaved,
            match=r"state\.safetensors could not be written .* Check that the disk has free space\. The previous file is kept",
        ):
            training.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert state.read_bytes() == before
    assert [file.name for file in state.parent.glob("*.part")] == []
    assert Training(setting(steps=1)).step == 1


def test_a_loss_that_is_not_a_number_stops_and_keeps_the_last_state(setting, tmp_path):
    training = Training(setting(steps=3, save_every=1))
    whole = training.batch

    def broken(index):
        batch = whole(index)
        return batch if index < 2 else replace(batch, noise=batch.noise * float("nan"))

    training.batch = broken
    with pytest.raises(Diverged, match=r"The loss is not a number at step 3, so the training was stopped\. The last saved"):
        training.run()
    assert Training(setting(steps=3)).step == 2
    assert all(tensor.isfinite().all() for tensor in load_file(tmp_path / "out.safetensors").values())


def test_unusable_videos_are_left_out_and_reported(world, tmp_path, capsys):
    write_frames(tmp_path / "clips" / "good", stripes(FRAMES))
    write_video(tmp_path / "clips" / "short.mp4", stripes(2))
    (tmp_path / "clips" / "bad.mp4").write_bytes(b"no video")
    (tmp_path / "clips" / "bad.txt").write_text("a caption")
    training = Training(small(tmp_path, base=str(world / "base.safetensors")))
    assert len(training.examples) == 1
    told = capsys.readouterr().out
    assert "3 videos make 1 clips of 4 frames: 1 of 64×64." in told
    assert "Left out: bad.mp4: its content is not that of a video. Choose another file." in told
    assert "Left out: short.mp4: it has 2 frames" in told
    assert (training.config.folder / "data.txt").read_text() in told
    shutil.rmtree(tmp_path / "clips" / "good")
    with pytest.raises(DataError, match=r"None of the videos \(2\) can be used\. bad\.mp4: its content is not that"):
        Training(small(tmp_path, base=str(world / "base.safetensors")))


def test_an_existing_file_is_not_overwritten(setting, tmp_path):
    (tmp_path / "out.safetensors").write_bytes(b"precious")
    with pytest.raises(ConfigError, match=r"out\.safetensors already exists"):
        Training(setting())
    assert (tmp_path / "out.safetensors").read_bytes() == b"precious"


def test_a_file_of_another_training_is_not_overwritten_either(setting, tmp_path):
    Training(setting(steps=1, seed=1, output=str(tmp_path / "other.safetensors"))).run()
    Training(setting(steps=1)).run()
    with pytest.raises(ConfigError, match=r"other\.safetensors already exists"):
        Training(replace(setting(steps=2), output=tmp_path / "other.safetensors"))
    assert Training(setting(steps=2)).step == 1


@pytest.mark.parametrize("lost", ["never written", "deleted"])
def test_a_missing_output_is_written_by_the_next_run(setting, tmp_path, monkeypatch, lost):
    output = tmp_path / "out.safetensors"
    if lost == "deleted":
        Training(setting(steps=2)).run()
        output.unlink()
    else:
        put = latent_cache._replace
        with monkeypatch.context() as patch, pytest.raises(NotSaved):
            patch.setattr(latent_cache, "_replace", held_back(output, put))
            Training(setting(steps=2)).run()
    assert not output.exists()
    assert Training(setting(steps=2)).run()
    assert len(load_file(output)) > 0


def held_back(file, put):
    def put_in_place(part, target):
        if target == file:
            raise PermissionError(13, "held")
        put(part, target)

    return put_in_place


def test_a_log_that_cannot_be_written_does_not_end_the_training(setting, monkeypatch, capsys):
    training = Training(setting(steps=2, validation={"prompts": ["stripes"], "steps": 1}))

    def full(*_arguments, **_named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    assert training.run()
    assert "No space left on device" in capsys.readouterr().out
    assert not list((training.config.folder / "validation").iterdir())
    assert training.config.output.exists()


def test_an_output_that_cannot_be_replaced_does_not_end_the_training(setting, tmp_path, monkeypatch, capsys):
    """On Windows a file cannot be replaced while another program reads it. The state is another file, and is saved."""
    put = latent_cache._replace

    def held(part, file):
        if file.name == "out.safetensors" and training.step < 3:
            raise PermissionError(13, "held")
        put(part, file)

    monkeypatch.setattr(latent_cache, "_replace", held)
    training = Training(setting(steps=3, save_every=1))
    assert training.run()
    assert capsys.readouterr().out.count("out.safetensors could not be written") == 2
    assert (tmp_path / "out.safetensors").exists()


def test_a_stop_request_ends_the_encoding_of_videos(setting):
    config = setting()
    config.folder.mkdir()
    (config.folder / "stop").write_text("pause")
    with pytest.raises(StopRequested):
        Training(config)
    assert json.loads((config.folder / "status.json").read_text())["doing"] == "Paused"
    assert not (config.folder / "stop").exists()


def test_a_stop_request_ends_the_encoding_in_all_processes(setting, tmp_path):
    config = setting()
    config.folder.mkdir()
    (config.folder / "stop").write_text("stop")
    module = ["-m", "motion_module", "train", str(as_file(config, tmp_path / "c.yaml"))]
    done = launched(2, module)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("The training was stopped by") == 2
    assert not (config.folder / "stop").exists()


def test_the_command_writes_errors_for_the_page(setting, tmp_path, monkeypatch):
    def run(_training):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Training, "run", run)
    config = setting()
    assert main(["train", str(as_file(config, tmp_path / "c.yaml"))]) == 1
    status = json.loads((config.folder / "status.json").read_text())
    assert status["doing"] == "Ended with an error"
    assert status["error"].startswith("The GPU has too little memory for this training. Set gradient_checkpointing: true")


def test_two_processes_cannot_train_in_one_folder(setting, tmp_path, capsys):
    config = setting(steps=1)
    file = str(as_file(config, tmp_path / "c.yaml"))
    config.folder.mkdir()
    with FileLock(config.folder / "lock"):
        assert main(["train", file]) == 1
    assert capsys.readouterr().err == (
        f"A training is already running in {config.folder}. Stop it first, or choose another output.\n"
    )
    assert [entry.name for entry in config.folder.iterdir()] in ([], ["lock"])  # nothing of the running training was changed
    assert main(["train", file]) == 0
    assert (config.folder / "pid").read_text() == str(os.getpid())


def test_the_average_of_the_weights_forgets_the_initial_ones(setting):
    """With a decay of 0.999 in each step, nine tenths would still be the initial weights after a hundred steps."""
    training = Training(setting(ema=0.999, steps=1))
    weight = training.animated.learning.layers["up_0_0"].proj_out.weight
    with torch.no_grad():
        for _ in range(100):
            training.averaged.update_parameters(training.animated.learning)
            weight += 1
    mean = training.averaged.module.layers["up_0_0"].proj_out.weight.mean().item()
    assert 80 < mean < 99


def test_the_command_says_what_is_wrong_in_one_line(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("train: motion module\nbase: none.safetensors\ndata: clips\noutput: out.safetensors\n")
    assert main(["train", str(tmp_path / "c.yaml")]) == 1
    assert capsys.readouterr().err == f"none.safetensors does not exist in {tmp_path}. Choose another file, or put it there.\n"
    (tmp_path / "c.yaml").write_text("train: nothing")
    assert main(["train", str(tmp_path / "c.yaml")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
