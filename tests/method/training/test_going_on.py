"""Trainings that are cut off, stopped or paused, and go on."""

import json
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from small_training import ROOT, SUBJECTS, as_file, losses, stripes, write_base, write_frames

from motion_module.training.config import ConfigError
from motion_module.training.loop import Training


@pytest.mark.parametrize("train", SUBJECTS)
def test_a_training_that_was_cut_off_has_the_losses_of_one_that_was_not(setting, tmp_path, train):
    Training(setting(train, steps=5, output=str(tmp_path / "whole.safetensors"))).run()
    first = setting(train, steps=3, output=str(tmp_path / "cut.safetensors"))
    Training(first).run()
    second = setting(train, steps=5, output=str(tmp_path / "cut.safetensors"))
    Training(second).run()
    whole = losses(setting(train, output=str(tmp_path / "whole.safetensors")))
    assert losses(second) == whole
    assert len(set(whole)) == 5
    files = [load_file(tmp_path / f"{name}.safetensors") for name in ("whole", "cut")]
    assert all(torch.equal(tensor, files[1][key]) for key, tensor in files[0].items())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"learning_rate": 1e-2}, "learning_rate was 0.001, and is 0.01"),
        ({"stride": 2}, "stride was 1, and is 2"),
        ({}, "the base is another one"),
    ],
)
def test_a_state_of_another_training_is_not_gone_on_from(setting, tmp_path, options, said):
    Training(setting(steps=1)).run()
    state = (tmp_path / "out-training" / "state.safetensors").read_bytes()
    if not options:
        options = {"base": str(write_base(tmp_path / "other.safetensors", seed=7))}
    if "stride" in options:
        write_frames(tmp_path / "long" / "a", stripes(9))
        options["data"] = str(tmp_path / "long")
    with pytest.raises(ConfigError, match=said):
        Training(setting(steps=2, **options))
    assert (tmp_path / "out-training" / "state.safetensors").read_bytes() == state


def test_a_damaged_state_is_named(setting, tmp_path):
    Training(setting(steps=1)).run()
    state = tmp_path / "out-training" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(ConfigError, match=r"state\.safetensors is damaged"):
        Training(setting(steps=2))


@pytest.mark.parametrize(("asked", "said"), [("stop", "Stopped"), ("pause", "Paused")])
def test_a_request_to_stop_saves_and_can_be_gone_on_from(setting, asked, said):
    training = Training(setting(steps=50, save_every=1000))
    (training.config.folder / "stop").write_text(asked)
    assert training.run() is False
    assert training.step == 1
    assert not (training.config.folder / "stop").exists()
    assert json.loads((training.config.folder / "status.json").read_text())["doing"] == said
    assert training.config.output.exists()
    assert Training(setting(steps=50)).step == 1


def test_an_interrupt_finishes_the_step_and_saves(setting, tmp_path):
    config = setting(steps=10_000)
    command = [sys.executable, "-m", "motion_module", "train", str(as_file(config, tmp_path / "c.yaml"))]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        give_up = time.monotonic() + 300
        while not (config.folder / "losses.jsonl").exists() or len(losses(config)) < 3:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < give_up
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode == 0
    with safe_open(config.folder / "state.safetensors", framework="pt") as state:
        assert json.loads(state.metadata()["facts"])["step"] == len(losses(config))
