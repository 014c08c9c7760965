"""A small UNet of LDM's with random weights, and what it is called with."""

from __future__ import annotations

import torch
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor


def make_unet(channel_mult: tuple[int, ...] = (1, 2, 4, 4)) -> UNetModel:
    """Returns a UNet whose levels have these multiples of 32 channels, none of its weights zero."""
    torch.manual_seed(0)
    unet = UNetModel(
        image_size=8, in_channels=4, out_channels=4, model_channels=32, attention_resolutions=[4, 2, 1], num_res_blocks=2,
        channel_mult=list(channel_mult), num_heads=8, use_spatial_transformer=True, transformer_depth=1, context_dim=24,
        use_checkpoint=False, legacy=False,
    )  # fmt: skip
    for weight in unet.parameters():  # LDM starts some layers at zero, which would hide what comes before them
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.1)
    return unet.eval().requires_grad_(False)


def inputs(rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Returns latents and text embeddings of this many rows."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 4, 8, 8, generator=generator), torch.randn(rows, 7, 24, generator=generator)
