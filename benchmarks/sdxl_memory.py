"""Computes the GPU memory and the FLOP of clips with SDXL from the shapes of tensors, without running the model.

    PYTHONPATH=.:tests .venv/bin/python benchmarks/sdxl_memory.py

The result is the peak of all tensors without the weights, and the FLOP, of one UNet call in half precision with the motion
layers of AnimateDiff-XL beta (HotShot-XL's have the same size). Attention is fused, without a matrix of scores. The
fragmentation of the allocator, the workspace of convolutions and CUDA's own memory are not included.
"""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from motion_module import network
from motion_module.attach import attached, channels_by_block
from motion_module.families import XL_BETA
from motion_module.motion_layers import Motion
from motion_module.network import MotionModule
from motion_module.row_layout import layout_of_call
from support.tensor_memory import GIB, Alive, fused

with redirect_stdout(io.StringIO()):  # LDM prints as it is imported
    from ldm.modules.attention import CrossAttention
    from ldm.modules.diffusionmodules import openaimodel

UNET_WEIGHTS = 2_567_463_684
"""The number of weights of SDXL's UNet."""
OTHER_WEIGHTS = 123_060_480 + 694_659_841 + 83_653_863
"""The number of weights of its two text encoders and its VAE."""
DEPTHS = (0, 2, 10)
"""Consecutive transformers at each level; the middle block has as many as the last level."""
LABEL, TEXT = 2816, 2048
"""The widths of the vector that is embedded in addition to the timestep, and of the text."""
FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
"""The fused attention of fake tensors on the CPU; torch's FLOP counter knows only those of GPUs."""


def sdxl_unet() -> nn.Module:
    """Returns LDM's UNet with the layers of SDXL's, except the two of the label embedding."""
    deepest = max(DEPTHS)
    unet: Any = openaimodel.UNetModel(
        image_size=32, in_channels=4, out_channels=4, model_channels=320, attention_resolutions=[4, 2], num_res_blocks=2,
        channel_mult=[1, 2, 4], num_head_channels=64, use_spatial_transformer=True, use_linear_in_transformer=True,
        transformer_depth=deepest, context_dim=[TEXT] * deepest, legacy=False, use_checkpoint=False,
    )  # fmt: skip
    for layer in unet.modules():
        if isinstance(layer, nn.GroupNorm):  # LDM computes these in single precision
            for name, weight in list(layer.named_parameters()):
                setattr(layer, name, nn.Parameter(weight.float()))
        if hasattr(layer, "transformer_blocks"):
            layer.transformer_blocks = layer.transformer_blocks[: DEPTHS[(layer.in_channels // 320).bit_length() - 1]]
    embedding = 4 * 320
    label_embedding = (LABEL + 1) * embedding + (embedding + 1) * embedding
    count = sum(weight.numel() for weight in unet.parameters()) + label_embedding
    assert count == UNET_WEIGHTS, f"{count} weights, not those of SDXL"
    return unet


def flop_of_fused(query: Any, key: Any, value: Any, *_others: Any, **_named: Any) -> int:
    """Returns the FLOP of an attention with these shapes."""
    return sdpa_flop_count(query, key, value)


def one_call(unet: nn.Module, module: MotionModule | None, frames: int, side: int, conditions: int) -> tuple[float, float]:
    """Returns the peak GiB without the weights, and the TFLOP, of one UNet call."""
    rows = conditions * frames
    latents = torch.zeros(rows, 4, side // 8, side // 8, dtype=torch.float16)
    times, text = torch.zeros(rows), [torch.zeros(rows, 77, TEXT, dtype=torch.float16)] * max(DEPTHS)
    on_cuda = network.pixels_per_pass
    passes_of_cuda = mock.patch.object(
        network, "pixels_per_pass", lambda _device, *others: on_cuda(torch.device("cuda"), *others)
    )
    embedding = openaimodel.timestep_embedding
    halved = mock.patch.object(openaimodel, "timestep_embedding", lambda *others, **named: embedding(*others, **named).half())
    counter = FlopCounterMode(display=False, custom_mapping={FUSED: flop_of_fused})
    with (
        torch.no_grad(),
        mock.patch.object(CrossAttention, "forward", fused),
        passes_of_cuda,
        halved,
        counter,
        Alive() as alive,
    ):
        if module is None:
            unet(latents, times, text)
        else:
            with attached(unet, Motion(module), XL_BETA, lambda count: layout_of_call(count, frames)):
                unet(latents, times, text)
    assert FUSED in counter.get_flop_counts()["Global"], "attention was not counted"
    return alive.most["cpu"] / GIB, counter.get_total_flops() / 1e12


def main() -> None:
    torch.set_default_dtype(torch.float16)
    with FakeTensorMode(allow_non_fake_inputs=True):
        unet: Any = sdxl_unet()
        unet.dtype = torch.float16
        channels = {block: count for block, count in channels_by_block(unet).items() if block != "mid_0"}
        module = MotionModule(channels, XL_BETA.positions, norms=XL_BETA.motion_norms)
        motion_weights = sum(weight.numel() for weight in module.parameters())
        print("| weights in half precision | millions | GiB |\n|---|---|---|")
        for name, count in (
            ("UNet", UNET_WEIGHTS),
            ("text encoders and VAE", OTHER_WEIGHTS),
            ("motion module", motion_weights),
        ):
            print(f"| {name} | {count / 1e6:,.0f} | {2 * count / GIB:.2f} |")
        print("\n| frames | size | GiB, both conditions in a call | GiB, one | TFLOP per step | without motion module |")
        print("|---|---|---|---|---|---|")
        for frames in (8, 16):
            for side in (512, 768, 1024):
                (both, work), (one, _) = (one_call(unet, module, frames, side, conditions) for conditions in (2, 1))
                still = one_call(unet, None, frames, side, 2)[1]
                print(f"| {frames} | {side}×{side} | {both:.2f} | {one:.2f} | {work:.1f} | {still:.1f} |")


if __name__ == "__main__":
    main()
