"""Trainings that are interrupted, stopped or paused, and resumed."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from motion_module.checkpoint import published
from motion_module.training.config import ConfigError
from motion_module.training.image_model import load_image_model
from motion_module.training.loop import Training
from motion_module.training.state import Identity
from motion_module.training.trained_parts import new_motion_module
from support.small_training import FRAMES, ROOT, SUBJECTS, as_file, losses, small, stripes, write_base, write_frames


@pytest.mark.parametrize(("train", "accumulate"), [*((subject, 1) for subject in SUBJECTS), ("motion module", 2)])
def test_a_resumed_training_has_the_losses_of_an_uninterrupted_one(setting, tmp_path, train, accumulate):
    options = {"accumulate": accumulate, "warm_up": 4}
    Training(setting(train, steps=5, output=str(tmp_path / "whole.safetensors"), **options)).run()
    first = setting(train, steps=3, output=str(tmp_path / "cut.safetensors"), **options)
    Training(first).run()
    second = setting(train, steps=5, output=str(tmp_path / "cut.safetensors"), **options)
    Training(second).run()
    whole = losses(setting(train, output=str(tmp_path / "whole.safetensors")))
    assert losses(second) == whole
    assert len(set(whole)) == 5
    files = [load_file(tmp_path / f"{name}.safetensors") for name in ("whole", "cut")]
    assert all(torch.equal(tensor, files[1][key]) for key, tensor in files[0].items())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ema": 0.5}, "ema was 0.9 and is now 0.5"),
        ({"batch": 1}, "batch on all devices was 2 and is now 1"),
        ({"domain_adapter": "adapter.safetensors"}, "the domain adapter is a different one"),
        ({"motion_module": "longer.safetensors"}, "what it trains has other weights"),
        ({"stride": 2, "data": "long"}, "stride was 1 and is now 2"),
        ({"data": "others"}, "the data is a different one"),
        ({"base": "other.safetensors"}, "the base is a different one"),
        ({"base": "decoded_otherwise.safetensors"}, "the autoencoder is a different one"),
    ],
)
def test_a_state_of_another_training_is_not_resumed(setting, others, tmp_path, options, said):
    Training(setting(steps=1)).run()
    state = (tmp_path / "out-training" / "state.safetensors").read_bytes()
    paths = {name: str(others / value) for name, value in options.items() if isinstance(value, str)}
    with pytest.raises(ConfigError, match=said):
        Training(setting(steps=2, **{**options, **paths}))
    assert (tmp_path / "out-training" / "state.safetensors").read_bytes() == state


@pytest.fixture(scope="module")
def others(world, tmp_path_factory):
    """A folder of files that could be mistaken for those of the same training."""
    folder = tmp_path_factory.mktemp("others")
    write_base(folder / "other.safetensors", seed=7)
    base = load_file(world / "base.safetensors")
    key = next(key for key in base if key.startswith("first_stage_model.decoder"))
    save_file({**base, key: base[key] + 1}, folder / "decoded_otherwise.safetensors")
    shutil.copy(world / "base.yaml", folder / "decoded_otherwise.yaml")
    write_frames(folder / "long" / "a", stripes(9))
    for index in range(3):  # of the same length and size, with the same captions
        write_frames(folder / "others" / f"{index}", stripes(FRAMES, seed=9 + index), f"stripes, number {index}")
    options = {"base": str(world / "base.safetensors"), "data": str(world / "clips"), "steps": 1}
    Training(small(folder, train="domain adapter", output="adapter.safetensors", **options)).run()
    module = new_motion_module(load_image_model(world / "base.safetensors").unet, 40)
    save_file(published(module, module.state_dict()), folder / "longer.safetensors")
    return folder


def test_rate_and_precision_may_change_and_devices_may_share_a_batch(setting):
    """As advised if a loss is not a number; everything else is the same."""
    Training(setting(steps=1)).run()
    training = Training(setting(steps=2, learning_rate=1e-5, warm_up=4))
    assert training.step == 1 and training.rate() == pytest.approx(1e-5 * 2 / 4)
    before = {name: tensor.clone() for name, tensor in training.animated.learning.state_dict().items()}
    training.run()
    changes = [(tensor - before[name]).abs().max() for name, tensor in training.animated.learning.state_dict().items()]
    assert 0 < max(changes) < 2e-5
    other = Identity.of(setting(batch=1, precision="fp16"), training.identity.parts, devices=2)
    other.require_same(training.identity, training.config.folder)


def test_files_may_have_moved(setting, world, tmp_path):
    Training(setting(steps=1)).run()
    shutil.copytree(world / "clips", tmp_path / "moved")
    assert Training(setting(steps=2, data=str(tmp_path / "moved"))).step == 1


def test_a_damaged_state_is_named(setting, tmp_path):
    Training(setting(steps=1)).run()
    state = tmp_path / "out-training" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(ConfigError, match=r"state\.safetensors is damaged"):
        Training(setting(steps=2))


@pytest.mark.parametrize(("asked", "said"), [("stop", "Stopped"), ("pause", "Paused")])
def test_a_stopped_training_is_saved_and_can_be_resumed(setting, asked, said):
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
