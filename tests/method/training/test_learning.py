"""What trainings change, what they do not change, and that they learn."""

import numpy as np
import pytest
import torch

from motion_module.attach import attached
from motion_module.checkpoint import describe, load
from motion_module.motion_layers import Motion
from motion_module.row_layout import RowLayout
from motion_module.training.config import FOR_A_MODULE
from motion_module.training.image_model import load_image_model
from motion_module.training.loop import Training
from motion_module.training.trained_parts import new_motion_module
from support.small_training import FRAMES, SUBJECTS, predicted, small, stripes, write_frames


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
    if train in FOR_A_MODULE:
        layout_of = lambda rows: RowLayout(rows, rows)  # noqa: E731
        with attached(training.model.unet, Motion(training.animated.motion), training.animated._family, layout_of):
            alone = predicted(training.model, rows)
    else:
        alone = predicted(training.model, rows)
    with training.animated.attached(), training.animated.showing(training.animated.shown_for("", training.examples)):
        assert torch.equal(predicted(training.model, rows), alone)


@pytest.mark.parametrize("train", SUBJECTS)
def test_training_changes_what_is_trained_and_no_weight_of_the_base(setting, train):
    training = Training(setting(train, steps=3))
    base = {name: tensor.clone() for name, tensor in training.model.state_dict().items()}
    motion = {} if train not in FOR_A_MODULE else {n: t.clone() for n, t in training.animated.motion.state_dict().items()}
    learning = {name: tensor for name, tensor in training.animated.learning.named_parameters() if tensor.requires_grad}
    before = {name: tensor.clone() for name, tensor in learning.items()}
    training.run()
    assert all(torch.equal(tensor, base[name]) for name, tensor in training.model.state_dict().items())
    assert all(torch.equal(tensor, training.animated.motion.state_dict()[name]) for name, tensor in motion.items())
    changed = [not torch.equal(tensor, before[name]) for name, tensor in learning.items()]
    assert all(changed)
    assert not training.model.unet._forward_hooks


def test_the_loss_is_that_of_the_paper(setting, world):
    """Compares it with another implementation: one timestep per clip, noise by the schedule, mean squared error."""
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


def test_batches_have_the_clips_and_captions_of_the_folder(setting, world):
    training = Training(setting(batch=3, caption_dropout=0.0))
    batch = training.batch(0)
    pictures = {f"stripes, number {i}": stripes(FRAMES, seed=i, speed=3 + i) for i in range(3)}
    captions = [training.examples[index].caption for index in training.order.at(0)]
    assert sorted(captions) == sorted(pictures)
    for latents, text, caption in zip(batch.latents, batch.context, captions):
        frames = torch.from_numpy(pictures[caption]).permute(0, 3, 1, 2) / 127.5 - 1
        with torch.no_grad():
            mean, deviation = training.model.autoencoder.moments(frames).chunk(2, dim=1)
            assert torch.allclose(text, training.model.text_encoder([caption])[0], atol=3e-3)  # the cache has half precision
        assert ((latents - mean).abs() < 5 * deviation + 0.01).all()


def test_a_tenth_of_the_captions_is_dropped(setting):
    training = Training(setting(batch=3))
    empty = training.embeddings.of([""])[0]
    batches = [training.batch(index) for index in range(200)]
    left_out = np.mean([torch.equal(text, empty) for batch in batches for text in batch.context])
    assert left_out == pytest.approx(0.1, abs=0.04)
    times = torch.cat([batch.times for batch in batches]).float()
    assert 0 <= times.min() < 20 and 980 < times.max() < 1000
    assert times.mean() == pytest.approx(500, abs=50)


def test_mirrored_clips_have_mirrored_captions(world, tmp_path):
    write_frames(tmp_path / "clips" / "a", stripes(FRAMES), "going left")
    config = small(tmp_path, base=str(world / "base.safetensors"), horizontal_flip=True)
    training = Training(config)
    plain, mirrored = training.examples
    assert (plain.caption, mirrored.caption) == ("going left", "going right")
    frames = torch.from_numpy(stripes(FRAMES)[:, :, ::-1].copy()).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        assert torch.allclose(mirrored.moments(), training.model.autoencoder.moments(frames), atol=2e-3)
    assert Training(small(tmp_path, base=str(world / "base.safetensors"))).examples[0].caption == "going left"


@pytest.mark.parametrize(("train", "bound"), [("motion module", 0.6), ("motion lora", 0.85)])
def test_a_single_clip_can_be_memorised(world, tmp_path, setting, train, bound):
    """The loss for fixed noise falls below a fraction of its initial value in 60 steps on a single clip."""
    write_frames(tmp_path / "one" / "a", stripes(FRAMES))
    training = Training(setting(train, data=str(tmp_path / "one"), steps=60, batch=4, learning_rate=5e-3, rank=16))
    with training.animated.attached(), torch.no_grad():
        before = np.mean([training.loss(training.batch(10_000 + index)).item() for index in range(8)])
    training.run()
    with training.animated.attached(), torch.no_grad():
        after = np.mean([training.loss(training.batch(10_000 + index)).item() for index in range(8)])
    assert after < bound * before
