"""Trained and converted files act the same in diffusers, if its motion norms are per frame like those of the family."""

import pytest
import torch
from safetensors.torch import load_file

from motion_module.attach import attached, blocks_by_name
from motion_module.checkpoint import load
from motion_module.convert import convert_file
from motion_module.lora import load_lora
from motion_module.motion_layers import Motion
from motion_module.row_layout import RowLayout
from motion_module.training.image_model import load_image_model
from motion_module.training.loop import Training
from motion_module.weight_patches import added_to_unet, merged
from support.small_training import FRAMES, small, stripes, write_base, write_frames

diffusers = pytest.importorskip("diffusers", reason="the WebUI's own environment has no diffusers")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A base, and a trained file of each kind."""
    folder = tmp_path_factory.mktemp("world")
    write_base(folder / "base.safetensors")
    write_frames(folder / "clips" / "a", stripes(FRAMES))
    options = {"steps": 3, "learning_rate": 0.03, "ema": 0}
    Training(small(folder, output="motion.safetensors", **options)).run()
    Training(small(folder, train="motion lora", motion_module="motion.safetensors", output="lora.safetensors", **options)).run()
    Training(small(folder, train="domain adapter", output="adapter.safetensors", **options)).run()
    for name in ("motion", "lora", "adapter"):
        convert_file(folder / f"{name}.safetensors", folder / f"{name}-diffusers", "diffusers")
    return folder


class PerFrame(torch.nn.GroupNorm):
    def forward(self, clips):
        frames = clips.transpose(1, 2)
        return super().forward(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).transpose(1, 2)


def inputs():
    draw = torch.Generator().manual_seed(1)
    return torch.randn(FRAMES, 4, 8, 8, generator=draw), torch.randn(1, 77, 16, generator=draw)


def in_diffusers(world, lora=None):
    """Returns the noise that diffusers' UNet predicts with the motion module, and optionally with a LoRA."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    flat = diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(32, 32, 32, 32), cross_attention_dim=16, attention_head_dim=2
    )
    flat.load_state_dict(convert_ldm_unet_checkpoint(load_file(world / "base.safetensors"), flat.config))
    adapter = diffusers.MotionAdapter.from_pretrained(world / "motion-diffusers")
    unet = diffusers.UNetMotionModel.from_unet2d(flat, adapter).eval()
    for name, module in unet.named_modules():
        if "motion_modules" in name and type(module) is torch.nn.GroupNorm:
            module.__class__ = PerFrame
    if lora:
        unet.load_lora_adapter(load_file(world / lora / "pytorch_lora_weights.safetensors"), prefix="unet")
    x, context = inputs()
    with torch.no_grad():
        noise = unet(x.transpose(0, 1)[None], torch.tensor(400), context.expand(FRAMES, -1, -1)).sample
    return noise[0].transpose(0, 1)


def here(world, lora=None):
    model = load_image_model(world / "base.safetensors")
    description, module = load(world / "motion.safetensors")
    loras = [(load_lora(world / f"{lora}.safetensors"), 1.0)] if lora else []
    x, context = inputs()
    with (
        attached(model.unet, Motion(module.float()), description.family, lambda rows: RowLayout(FRAMES, rows)),
        merged(module, loras),
        added_to_unet(blocks_by_name(model.unet), loras),
        torch.no_grad(),
    ):
        return model.unet(x, torch.full((FRAMES,), 400), context=context.expand(FRAMES, -1, -1))


def test_a_trained_motion_module(world):
    assert torch.allclose(in_diffusers(world), here(world), atol=1e-4)


@pytest.mark.parametrize("kind", ["lora", "adapter"])
def test_a_trained_lora_with_a_motion_module(world, kind):
    pytest.importorskip("peft", reason="diffusers loads LoRAs with peft")
    theirs, ours = in_diffusers(world, f"{kind}-diffusers"), here(world, kind)
    assert torch.allclose(theirs, ours, atol=1e-4)
    assert (ours - here(world)).abs().max() > 0.01


@pytest.mark.parametrize("kind", ["lora", "adapter"])
def test_conversion_of_a_lora_and_back_gives_the_same_bits(world, tmp_path, kind):
    back = load_file(
        convert_file(world / f"{kind}-diffusers" / "pytorch_lora_weights.safetensors", tmp_path / "a.safetensors", "original")
    )
    trained = load_file(world / f"{kind}.safetensors")
    assert back.keys() == trained.keys()
    assert all(torch.equal(tensor, back[key]) for key, tensor in trained.items())
