"""A SparseCtrl network in training: what it starts from, what it is shown, and that its file acts as it did."""

import pytest
import torch

from motion_module.attach import attached
from motion_module.checkpoint import load
from motion_module.motion_layers import Motion
from motion_module.row_layout import RowLayout
from motion_module.sparse_control import SparseControl, controlled
from motion_module.sparse_ctrl import describe_sparse_ctrl, load_sparse_ctrl
from motion_module.training.config import ConfigError
from motion_module.training.image_model import load_image_model
from motion_module.training.loop import Training
from motion_module.training.trained_sparse_ctrl import new_sparse_ctrl, with_mask
from support.small_training import FRAMES, predicted, stripes, write_frames


def test_a_new_network_sees_latents_as_the_encoder_of_the_unet_does(world):
    unet = load_image_model(world / "base.safetensors").unet
    network = new_sparse_ctrl(unet)
    pictures = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    time = network.time_embedding(torch.full((4,), 30), torch.float32)
    embedded = network.embedded(pictures)
    assert torch.allclose(embedded[1:], unet.input_blocks[0](pictures, None), atol=1e-6)
    theirs = unet.input_blocks[1][0](embedded, time)  # a ResBlock, and the embedding of the time
    assert torch.allclose(network.down_blocks[0].resnets[0](embedded, time), theirs, atol=1e-5)


def test_it_is_shown_the_latents_of_some_frames_and_zeros_for_others(setting):
    training = Training(setting("sparsectrl", frames=FRAMES))
    pictures, counts, first = [], [], []
    for index in range(40):
        batch = training.batch(index)
        shown = batch.pictures[:, :, 4]
        assert shown.unique().tolist() in ([0, 1], [1])
        assert torch.equal(shown.amin(dim=(2, 3)), shown.amax(dim=(2, 3)))
        mask = shown[:, :, :1, :1].unsqueeze(2)
        clean = torch.stack([training.examples[number].moments()[:, :4] for number in training.order.at(index)])
        assert torch.equal(batch.pictures[:, :, :4], clean * mask)
        pictures.append(batch.pictures)
        counts += shown[:, :, 0, 0].sum(dim=1).tolist()
        first += shown[:, 0, 0, 0].tolist()
    assert set(counts) == set(range(1, FRAMES + 1))
    assert 0.6 < sum(first) / len(first) < 0.95
    assert torch.equal(training.batch(3).pictures, pictures[3])


def test_other_trainings_are_shown_nothing(setting):
    assert not Training(setting()).batch(0).pictures.any()


def test_a_trained_network_acts_the_same_in_training_and_generation(setting, world, tmp_path):
    training = Training(setting("sparsectrl", steps=5, learning_rate=0.02, ema=0))
    training.run()
    frames = (0, 2)
    latents = torch.randn(1, FRAMES, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    shown = torch.tensor([[frame in frames for frame in range(FRAMES)]])
    with training.animated.attached():
        with training.animated.showing(with_mask(latents, shown)):
            trained = predicted(training.model, FRAMES)
        with training.animated.showing(with_mask(latents, ~shown)):
            otherwise = predicted(training.model, FRAMES)
    path = tmp_path / "out.safetensors"
    assert describe_sparse_ctrl(path).kind == "RGB"
    network = load_sparse_ctrl(path).float()
    mean = training.averaged.module.state_dict()
    assert all(
        torch.equal(tensor, mean[name].half().float()) for name, tensor in network.state_dict().items() if "posit" not in name
    )
    model = load_image_model(world / "base.safetensors")
    description, module = load(world / "motion.safetensors")
    layout_of = lambda rows: RowLayout(FRAMES, rows)  # noqa: E731
    control = SparseControl(network, frames, lambda height, width: latents[0, list(frames)])
    with (
        attached(model.unet, Motion(module.float()), description.family, layout_of),
        controlled(model.unet, [control], layout_of),
    ):
        assert torch.allclose(predicted(model, FRAMES), trained, atol=2e-3)
    assert (trained - otherwise).abs().max() > 0.02


def test_blocks_that_are_computed_twice_give_the_same_gradients(setting, tmp_path):
    """As in the tab Train by default. The first step moves what is zero at first, so that gradients reach all layers."""
    ones, others = (
        Training(
            setting("sparsectrl", steps=3, ema=0, gradient_checkpointing=twice, output=str(tmp_path / f"{twice}.safetensors"))
        )
        for twice in (False, True)
    )
    for training in (ones, others):
        training.run()
    trained, again = (training.animated.learning.state_dict() for training in (ones, others))
    assert all(torch.allclose(trained[name], again[name], atol=1e-6) for name in trained)


def test_a_validation_clip_is_shown_the_first_frame_of_the_clip_with_its_caption(setting):
    training = Training(setting("sparsectrl"))
    second = training.examples[1]
    assert second.caption != training.examples[0].caption
    for prompt, example in ((second.caption, second), ("other words", training.examples[0])):
        pictures = training.animated.shown_for(prompt, training.examples)
        assert torch.equal(pictures[0, 0, :4], example.moments()[0, :4])
        assert pictures[0, :, 4, 0, 0].tolist() == [1, *[0] * (FRAMES - 1)]


def test_it_needs_a_motion_module_and_no_more_frames_than_it_has_positions(setting, tmp_path):
    with pytest.raises(ConfigError, match="motion_module: this option is required for a SparseCtrl model"):
        setting("sparsectrl", motion_module=None)
    for index in range(2):
        write_frames(tmp_path / "long" / f"{index}", stripes(40, seed=index))
    with pytest.raises(ConfigError, match=r"frames: 40 is more than SparseCtrl takes at once\. Set it to 32 or less"):
        Training(setting("sparsectrl", frames=40, data=str(tmp_path / "long")))
