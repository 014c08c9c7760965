"""The trainers on a random image model: what they change, what they leave alone, and how they go on."""

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_training import FRAMES, small, stripes, write_base, write_frames, write_video

from motion_module.__main__ import main
from motion_module.attach import attached, blocks_by_place
from motion_module.checkpoint import describe, load
from motion_module.convert import convert
from motion_module.families import V3
from motion_module.frames import RowLayout
from motion_module.lora import load_lora
from motion_module.motion import Motion
from motion_module.temporary import added_to_unet, merged
from motion_module.training import cache
from motion_module.training.config import ConfigError
from motion_module.training.data import DataError
from motion_module.training.image_model import load_image_model
from motion_module.training.loop import AskedToEnd, Diverged, Training
from motion_module.training.state import NotSaved
from motion_module.training.subjects import new_motion_module

SUBJECTS = ("motion module", "motion lora", "domain adapter")
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def alone():
    """accelerate keeps what it was told for the life of a process."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A base, three clips, and a motion module that does something."""
    folder = tmp_path_factory.mktemp("world")
    write_base(folder / "base.safetensors")
    for index in range(3):
        write_frames(folder / "clips" / f"{index}", stripes(FRAMES, seed=index, speed=3 + index), f"stripes, number {index}")
    Training(small(folder, output="motion.safetensors", steps=2, learning_rate=0.05, ema=0)).run()
    return folder


@pytest.fixture
def setting(world, tmp_path):
    """Options of a training in a folder of its own."""

    def make(train="motion module", **options):
        if train == "motion lora":
            options.setdefault("motion_module", str(world / "motion.safetensors"))
        paths = {
            "base": str(world / "base.safetensors"),
            "data": str(world / "clips"),
            "output": str(tmp_path / "out.safetensors"),
        }
        return small(tmp_path, train=train, **{**paths, **options})

    return make


def losses(config):
    lines = (config.folder / "losses.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def predicted(model, rows, **changes):
    """The noise that a UNet finds in fixed latents, with what is attached to it."""
    draw = torch.Generator().manual_seed(5)
    x = torch.randn(rows, 4, 8, 8, generator=draw)
    context = torch.randn(1, 77, 16, generator=draw).expand(rows, -1, -1)
    with torch.no_grad():
        return model.unet(x, torch.full((rows,), 400), context=context)


# --- what changes ---


def test_a_new_motion_module_changes_nothing(world):
    model = load_image_model(world / "base.safetensors")
    alone = predicted(model, FRAMES)
    module = new_motion_module(model.unet, FRAMES)
    family = describe(world / "motion.safetensors").family
    with attached(model.unet, Motion(module), family, lambda rows: RowLayout(FRAMES, rows)):
        assert torch.equal(predicted(model, FRAMES), alone)
        with torch.no_grad():
            module.layers["up_3_2"].proj_out.weight += 0.1
        assert not torch.equal(predicted(model, FRAMES), alone)


@pytest.mark.parametrize("train", SUBJECTS)
def test_a_new_one_of_any_kind_changes_nothing(setting, train):
    training = Training(setting(train))
    rows = FRAMES
    if train == "motion lora":
        layout_of = lambda rows: RowLayout(rows, rows)  # noqa: E731
        with attached(training.model.unet, Motion(training.animated.motion), training.animated._family, layout_of):
            alone = predicted(training.model, rows)
    else:
        alone = predicted(training.model, rows)
    with training.animated.attached():
        assert torch.equal(predicted(training.model, rows), alone)


@pytest.mark.parametrize("train", SUBJECTS)
def test_training_changes_what_is_trained_and_no_weight_of_the_base(setting, train):
    training = Training(setting(train, steps=3))
    base = {name: tensor.clone() for name, tensor in training.model.state_dict().items()}
    motion = {} if train != "motion lora" else {n: t.clone() for n, t in training.animated.motion.state_dict().items()}
    before = {name: tensor.clone() for name, tensor in training.animated.learning.named_parameters()}
    training.run()
    assert all(torch.equal(tensor, base[name]) for name, tensor in training.model.state_dict().items())
    assert all(torch.equal(tensor, training.animated.motion.state_dict()[name]) for name, tensor in motion.items())
    changed = [not torch.equal(tensor, before[name]) for name, tensor in training.animated.learning.named_parameters()]
    assert all(changed)
    assert not training.model.unet._forward_hooks


def test_the_loss_is_that_of_the_paper(setting, world):
    """Held against a second writing of it: one timestep a clip, noise added by the schedule, mean squared error."""
    training = Training(setting(motion_module=str(world / "motion.safetensors")))
    batch = training.batch(0)
    with training.animated.attached():
        found = training.loss(batch).item()
    betas = np.linspace(0.00085, 0.012, 1000)
    left = np.cumprod(1 - betas)[batch.times.numpy()]
    model = load_image_model(world / "base.safetensors")
    family, module = describe(world / "motion.safetensors").family, load(world / "motion.safetensors")[1]
    errors = []
    with attached(model.unet, Motion(module.float()), family, lambda rows: RowLayout(FRAMES, rows)), torch.no_grad():
        for clip, noise, time, part, text in zip(batch.latents, batch.noise, batch.times, left, batch.context):
            noised = np.sqrt(part) * clip.double() + np.sqrt(1 - part) * noise.double()
            made = model.unet(noised.float(), time.repeat(FRAMES), context=text.expand(FRAMES, -1, -1))
            errors.append(((made - noise) ** 2).mean().item())
    assert found == pytest.approx(np.mean(errors), rel=1e-5)


def test_what_is_learned_is_what_lies_in_the_folder(setting, world):
    training = Training(setting(batch=3, caption_dropout=0.0))
    batch = training.batch(0)
    pictures = {f"stripes, number {i}": stripes(FRAMES, seed=i, speed=3 + i) for i in range(3)}
    captions = [training.examples[index].caption for index in training.order.at(0)]
    assert sorted(captions) == sorted(pictures)
    for latents, text, caption in zip(batch.latents, batch.context, captions):
        frames = torch.from_numpy(pictures[caption]).permute(0, 3, 1, 2) / 127.5 - 1
        with torch.no_grad():
            mean, deviation = training.model.autoencoder.moments(frames).chunk(2, dim=1)
            assert torch.allclose(text, training.model.text_encoder([caption])[0], atol=3e-3)  # they are kept in half
        assert ((latents - mean).abs() < 5 * deviation + 0.01).all()


def test_a_tenth_of_the_captions_is_left_out(setting):
    training = Training(setting(batch=3))
    empty = training.embeddings.of([""])[0]
    batches = [training.batch(index) for index in range(200)]
    left_out = np.mean([torch.equal(text, empty) for batch in batches for text in batch.context])
    assert left_out == pytest.approx(0.1, abs=0.04)
    times = torch.cat([batch.times for batch in batches]).float()
    assert 0 <= times.min() < 20 and 980 < times.max() < 1000
    assert times.mean() == pytest.approx(500, abs=50)


def test_mirrored_clips_are_learned_under_mirrored_captions(world, tmp_path):
    write_frames(tmp_path / "clips" / "a", stripes(FRAMES), "going left")
    config = small(tmp_path, base=str(world / "base.safetensors"), horizontal_flip=True)
    training = Training(config)
    plain, mirrored = training.examples
    assert (plain.caption, mirrored.caption) == ("going left", "going right")
    frames = torch.from_numpy(stripes(FRAMES)[:, :, ::-1].copy()).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        assert torch.allclose(mirrored.moments(), training.model.autoencoder.moments(frames), atol=2e-3)
    assert Training(small(tmp_path, base=str(world / "base.safetensors"))).examples[0].caption == "going left"


# --- that it learns ---


@pytest.mark.parametrize(("train", "bound"), [("motion module", 0.6), ("motion lora", 0.85)])
def test_one_clip_is_learned_by_heart(world, tmp_path, setting, train, bound):
    """The loss on fixed noise, after 60 steps on a single clip, as a part of what it was."""
    write_frames(tmp_path / "one" / "a", stripes(FRAMES))
    training = Training(setting(train, data=str(tmp_path / "one"), steps=60, batch=4, learning_rate=5e-3, rank=16))
    with training.animated.attached(), torch.no_grad():
        before = np.mean([training.loss(training.batch(10_000 + index)).item() for index in range(8)])
    training.run()
    with training.animated.attached(), torch.no_grad():
        after = np.mean([training.loss(training.batch(10_000 + index)).item() for index in range(8)])
    assert after < bound * before


# --- going on ---


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


def as_file(config, path):
    """A configuration as the YAML file that says the same."""
    options = {name: value for name, value in config.described().items() if value != "None"}
    path.write_text(json.dumps(options))
    return path


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


# --- what goes wrong ---


def test_a_full_disk_leaves_the_state_before(setting, tmp_path):
    """The limit on file sizes stands in for the end of the disk: writing fails in the middle of the file."""
    training = Training(setting(steps=1))
    training.run()
    state = tmp_path / "out-training" / "state.safetensors"
    before = state.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(
            NotSaved, match=r"state\.safetensors could not be written .* Is the disk full\? The one before it is still"
        ):
            training.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert state.read_bytes() == before
    assert [file.name for file in state.parent.glob("*.part")] == []
    assert Training(setting(steps=1)).step == 1


def test_a_loss_that_is_no_number_stops_and_keeps_what_was_good(setting, tmp_path):
    training = Training(setting(steps=3, save_every=1))
    whole = training.batch

    def broken(index):
        batch = whole(index)
        return batch if index < 2 else replace(batch, noise=batch.noise * float("nan"))

    training.batch = broken
    with pytest.raises(Diverged, match=r"The loss is not a number at step 3, so training stopped\. The last saved"):
        training.run()
    assert Training(setting(steps=3)).step == 2
    assert all(tensor.isfinite().all() for tensor in load_file(tmp_path / "out.safetensors").values())


def test_videos_that_cannot_be_used_are_left_out_and_told(world, tmp_path, capsys):
    write_frames(tmp_path / "clips" / "good", stripes(FRAMES))
    write_video(tmp_path / "clips" / "short.mp4", stripes(2))
    (tmp_path / "clips" / "bad.mp4").write_bytes(b"no video")
    (tmp_path / "clips" / "bad.txt").write_text("a caption")
    training = Training(small(tmp_path, base=str(world / "base.safetensors")))
    assert len(training.examples) == 1
    told = capsys.readouterr().out
    assert "3 videos make 1 clips of 4 frames: 1 of 64×64." in told
    assert "Left out: bad.mp4: it cannot be read, or has no frames." in told
    assert "Left out: short.mp4: it has 2 frames" in told
    assert (training.config.folder / "data.txt").read_text() in told
    shutil.rmtree(tmp_path / "clips" / "good")
    with pytest.raises(DataError, match=r"None of the 2 videos can be used\. bad\.mp4: it cannot be read"):
        Training(small(tmp_path, base=str(world / "base.safetensors")))


def test_a_file_that_is_there_is_not_overwritten(setting, tmp_path):
    (tmp_path / "out.safetensors").write_bytes(b"precious")
    with pytest.raises(ConfigError, match=r"out\.safetensors is there already, and would be lost"):
        Training(setting())
    assert (tmp_path / "out.safetensors").read_bytes() == b"precious"


def test_a_file_that_cannot_be_replaced_meanwhile_ends_nothing(setting, tmp_path, monkeypatch, capsys):
    """On Windows a file that somebody reads cannot be replaced. The state is another file, and is saved."""
    put = cache._put_in_place

    def held(part, file):
        if file.name == "out.safetensors" and training.step < 3:
            raise PermissionError(13, "held")
        put(part, file)

    monkeypatch.setattr(cache, "_put_in_place", held)
    training = Training(setting(steps=3, save_every=1))
    assert training.run()
    assert capsys.readouterr().out.count("out.safetensors could not be written") == 2
    assert (tmp_path / "out.safetensors").exists()


def test_a_request_to_stop_is_heard_while_videos_are_encoded(setting):
    config = setting()
    config.folder.mkdir()
    (config.folder / "stop").write_text("pause")
    with pytest.raises(AskedToEnd):
        Training(config)
    assert json.loads((config.folder / "status.json").read_text())["doing"] == "Paused"


def test_the_command_tells_the_page_what_went_wrong(setting, tmp_path, monkeypatch):
    def run(_training):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Training, "run", run)
    config = setting()
    assert main(["train", str(as_file(config, tmp_path / "c.yaml"))]) == 1
    status = json.loads((config.folder / "status.json").read_text())
    assert status["doing"] == "Ended with an error"
    assert status["error"].startswith("The GPU has too little memory for this. Set gradient_checkpointing: true")


def test_the_mean_of_the_weights_forgets_where_it_began(setting):
    """With 0.999 kept in each step, nine tenths of it would still be the first weights after a hundred steps."""
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
    assert capsys.readouterr().err == f"none.safetensors is not there. Looked in {tmp_path}.\n"
    (tmp_path / "c.yaml").write_text("train: nothing")
    assert main(["train", str(tmp_path / "c.yaml")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


# --- what comes out ---


def test_a_trained_motion_module_is_one_of_v3_in_the_authors_layout(setting, tmp_path):
    training = Training(setting(steps=3, licence="CC0", stride=1))
    training.run()
    description = describe(tmp_path / "out.safetensors")
    assert (description.family.key, description.layout, description.length) == ("v3", "original", 32)
    _, module = load(tmp_path / "out.safetensors")
    mean = training.averaged.module.state_dict()
    assert all(torch.equal(tensor, mean[name].half()) for name, tensor in module.state_dict().items())
    with safe_open(tmp_path / "out.safetensors", framework="pt") as file:
        facts = json.loads(file.metadata()["animatediff_training"])
    assert (facts["trained"], facts["steps"], facts["data"], facts["licence"]) == ("motion module", 3, "clips", "CC0")
    assert facts["base"]["name"] == "base.safetensors"
    assert facts["noise_schedule"] == {"straight_in": "betas", "first": 0.00085, "last": 0.012, "steps": 1000}


def test_a_file_is_sampled_with_the_schedule_it_was_trained_on(setting, tmp_path):
    Training(setting(steps=1, noise_schedule={"straight_in": "sqrt_betas", "last": 0.02})).run()
    family = describe(tmp_path / "out.safetensors").family
    assert (family.schedule.straight_in, family.schedule.last, family.frames) == ("sqrt_betas", 0.02, FRAMES)
    converted = convert(tmp_path / "out.safetensors", tmp_path / "adapter", "diffusers")
    assert describe(converted).family == family


GOOD = {"noise_schedule": {"straight_in": "sqrt_betas", "first": 0.0008, "last": 0.01, "steps": 1000}, "frames": 4}


@pytest.mark.parametrize(
    ("said", "believed"),
    [
        ({}, True),
        ({"steps": 10**12}, False),
        ({"first": 0.5, "last": 0.1}, False),
        ({"straight_in": "lines"}, False),
        ({"frames": 33}, False),
        ({"frames": float("inf")}, False),
        ({"noise_schedule": 7}, False),
    ],
)
def test_a_header_with_nonsense_is_not_believed(setting, tmp_path, said, believed):
    Training(setting(steps=1)).run()
    facts = {**GOOD, **{name: value for name, value in said.items() if name in GOOD}}
    if isinstance(facts["noise_schedule"], dict):
        facts["noise_schedule"] = {**facts["noise_schedule"], **{n: v for n, v in said.items() if n in facts["noise_schedule"]}}
    facts = json.dumps(facts)
    save_file(load_file(tmp_path / "out.safetensors"), tmp_path / "nonsense.safetensors", {"animatediff_training": facts})
    assert (describe(tmp_path / "nonsense.safetensors").family != V3) == believed


def test_a_trained_motion_lora_does_in_generation_what_it_did_in_training(setting, world, tmp_path):
    training = Training(setting("motion lora", steps=3, learning_rate=0.05, ema=0))
    training.run()
    with training.animated.attached():
        trained = predicted(training.model, FRAMES)
    model = load_image_model(world / "base.safetensors")
    description, module = load(world / "motion.safetensors")
    lora = load_lora(tmp_path / "out.safetensors")
    layout_of = lambda rows: RowLayout(FRAMES, rows)  # noqa: E731
    with attached(model.unet, Motion(module.float()), description.family, layout_of):
        without = predicted(model, FRAMES)
        with merged(module, [(lora, 1.0)]):
            assert torch.allclose(predicted(model, FRAMES), trained, atol=2e-3)
    assert (without - trained).abs().max() > 0.02


def test_a_trained_adapter_does_in_generation_what_it_did_in_training(setting, world, tmp_path):
    training = Training(setting("domain adapter", steps=3, learning_rate=0.05, ema=0))
    training.run()
    with training.animated.attached():
        trained = predicted(training.model, 2)
    model = load_image_model(world / "base.safetensors")
    without = predicted(model, 2)
    with added_to_unet(blocks_by_place(model.unet), [(load_lora(tmp_path / "out.safetensors"), 1.0)]):
        assert torch.allclose(predicted(model, 2), trained, atol=2e-3)
    assert (without - trained).abs().max() > 0.02


def test_a_motion_module_is_trained_beside_an_adapter(setting, tmp_path):
    Training(setting("domain adapter", steps=2, learning_rate=0.05, ema=0, output=str(tmp_path / "a.safetensors"))).run()
    plain = Training(setting(output=str(tmp_path / "plain.safetensors")))
    adapted = Training(setting(domain_adapter=str(tmp_path / "a.safetensors")))
    with plain.animated.attached(), adapted.animated.attached():
        one, other = plain.loss(plain.batch(0)), adapted.loss(adapted.batch(0))
    assert abs(one - other) > 1e-4


def test_validation_clips_come_from_the_mean_of_the_weights(setting):
    config = setting(steps=4, ema=0.5, validation={"prompts": ["stripes"], "every": 2, "steps": 2})
    training = Training(config)
    training.run()
    gifs = sorted((config.folder / "validation").iterdir())
    assert [gif.name for gif in gifs] == ["step-000002-1.gif", "step-000004-1.gif"]
    from PIL import Image

    with Image.open(gifs[1]) as gif:
        assert (gif.n_frames, gif.size) == (FRAMES, (64, 64))
    assert list((config.folder / "tensorboard").iterdir())
    mean, last = training.averaged.module.state_dict(), training.animated.learning.state_dict()
    assert not all(torch.equal(mean[name], last[name]) for name in last)  # it was put back afterwards


# --- how it computes ---


def gradients_of(training):
    return {name: weight.grad for name, weight in training.animated.learning.named_parameters()}


def assert_close(ones, others):
    """To a thousandth of each gradient's norm, and a millionth of that of all, since sums are rounded in another order."""
    total = torch.stack([one.norm() for one in ones.values()]).norm()
    for name, one in ones.items():
        assert (one - others[name]).norm() <= 1e-3 * one.norm() + 1e-6 * total, name


def test_gradients_add_up_over_batches(setting, world, tmp_path):
    options = {"motion_module": str(world / "motion.safetensors"), "caption_dropout": 0.0}
    at_once = Training(setting(batch=4, output=str(tmp_path / "1.safetensors"), **options))
    with at_once.animated.attached():
        at_once.gradients()
    whole = at_once.batch(0)
    halves = iter([type(whole)(*(part[first : first + 2] for part in vars(whole).values())) for first in (0, 2)])
    added = Training(setting(batch=2, accumulate=2, output=str(tmp_path / "2.safetensors"), **options))
    added.batch = lambda _: next(halves)
    with added.animated.attached():
        added.gradients()
    assert_close(gradients_of(at_once), gradients_of(added))


def test_checkpointing_gives_the_same_gradients(setting, world, tmp_path):
    motion = str(world / "motion.safetensors")
    plain = Training(setting(motion_module=motion, steps=1))
    plain.run()
    spared = Training(
        setting(motion_module=motion, steps=1, gradient_checkpointing=True, output=str(tmp_path / "b.safetensors"))
    )
    spared.run()
    ones, others = plain.animated.learning.state_dict(), spared.animated.learning.state_dict()
    assert all(torch.allclose(ones[name], others[name], atol=1e-6) for name in ones)


def test_half_precision_keeps_whole_masters(setting, world):
    motion = str(world / "motion.safetensors")
    training = Training(setting(motion_module=motion, steps=2, precision="bf16", validation={"prompts": ["a"], "steps": 1}))
    convolution = training.model.unet.input_blocks[0][0]
    assert convolution.weight.dtype == torch.bfloat16
    training.run()
    assert all(weight.dtype == torch.float32 for weight in training.animated.learning.parameters())
    assert all(tensor.isfinite().all() for tensor in training.animated.learning.state_dict().values())


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_two_processes_have_the_gradients_of_one_with_twice_the_batch(setting, world, tmp_path):
    motion = str(world / "motion.safetensors")
    training = Training(setting(motion_module=motion, batch=4, output=str(tmp_path / "one.safetensors")))
    with training.animated.attached():
        training.gradients()
    config = as_file(setting(motion_module=motion, batch=2), tmp_path / "two.yaml")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(free_port())]
    command = [*launch, str(ROOT / "tests" / "save_gradients.py"), str(config), str(tmp_path / "two")]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    for rank in (0, 1):
        assert_close(gradients_of(training), load_file(tmp_path / f"two-{rank}.safetensors"))
