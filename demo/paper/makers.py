"""The compared ways to make a clip from a caption: frame by frame, Text2Video-Zero, and with a motion module.

All sample with DDIM and the same guidance scale, from noise that depends only on the seed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demo.world import render
from demo.world.model import DEVICE
from motion_module.attach import attached, blocks_by_name
from motion_module.checkpoint import load
from motion_module.families import V3
from motion_module.lora import Lora, load_lora
from motion_module.network import MotionModule
from motion_module.noise_schedule import STABLE_DIFFUSION, NoiseSchedule
from motion_module.row_layout import RowLayout
from motion_module.training.image_model import ImageModel
from motion_module.training.sampling import ddim, guided, timesteps
from motion_module.training.text2video_zero import text2video_zero_clip
from motion_module.training.trained_parts import TrainedMotion
from motion_module.training.validation import decoded
from motion_module.weight_patches import added_to_unet, merged

STEPS, SCALE = 20, 5.0
METHODS = "1"
"""Raise it with every change of the judge, the world or a method that changes clips or verdicts of the same weights."""

Clip = NDArray[np.uint8]
Maker = Callable[[ImageModel, str, int], Clip]
"""Makes a clip `(frames, height, width, 3)` from a model, a caption and a seed."""
Noise = Callable[[int, int], Tensor]
"""Makes noise `(rows, 4, height/8, width/8)` from a seed and a number of rows."""


def frame_by_frame(model: ImageModel, caption: str, seed: int) -> Clip:
    """Samples each frame by itself: the baseline, in which no frame knows of another."""
    return _sampled(model, caption, noise_of(seed, render.FRAMES), STABLE_DIFFUSION)


@torch.no_grad()
def zero_shot(model: ImageModel, caption: str, seed: int) -> Clip:
    """Samples with Text2Video-Zero (arXiv 2303.13439)."""
    condition, unconditional = model.text_encoder([caption]), model.text_encoder([""])
    noise = noise_of(seed, render.FRAMES)
    return decoded(
        model, text2video_zero_clip(model.unet, condition, unconditional, noise, frames=render.FRAMES, scale=SCALE, steps=STEPS)
    )


class WithMotion:
    """Samples with a motion module, and with motion LoRAs and domain adapters, each with its strength."""

    def __init__(
        self,
        file: Path,
        motion_loras: dict[Path, float] | None = None,
        adapters: dict[Path, float] | None = None,
        noise: Noise | None = None,
    ) -> None:
        """`noise`: the initial noise; `noise_of` by default."""
        description, module = load(file)
        self.module = module.float().to(DEVICE)
        self.family = description.require_motion_module()
        self._motion_loras, self._adapters = _loaded(motion_loras), _loaded(adapters)
        self._noise = noise or noise_of

    def __call__(self, model: ImageModel, caption: str, seed: int) -> Clip:
        with ExitStack() as stack:
            stack.enter_context(merged(self.module, self._motion_loras))
            stack.enter_context(added_to_unet(blocks_by_name(model.unet), self._adapters))
            return animated(model, self.module, self.family.schedule, caption, self._noise(seed, render.FRAMES))


def animated(model: ImageModel, module: MotionModule, schedule: NoiseSchedule, caption: str, noise: Tensor) -> Clip:
    """Returns a clip `(frames, height, width, 3)`, sampled with a motion module on its own noise schedule."""
    with attached(model.unet, TrainedMotion(module), V3, lambda rows: RowLayout(len(noise), rows)):
        return _sampled(model, caption, noise, schedule)


def noise_of(seed: int, rows: int) -> Tensor:
    """Returns noise `(rows, 4, height/8, width/8)`, different for each row."""
    side = render.SIDE // 8
    return torch.randn(rows, 4, side, side, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def shared_noise_of(seed: int, rows: int) -> Tensor:
    """Returns noise `(rows, 4, height/8, width/8)`, the same for all rows, as in Text2Video-Zero."""
    return noise_of(seed, 1).repeat(rows, 1, 1, 1)


@torch.no_grad()
def _sampled(model: ImageModel, caption: str, noise: Tensor, schedule: NoiseSchedule) -> Clip:
    condition = model.text_encoder([caption]).expand(len(noise), -1, -1)
    predict = guided(model.unet, condition, model.text_encoder([""]), SCALE)
    return decoded(model, ddim(predict, noise, schedule, timesteps(schedule, STEPS)))


def _loaded(files: dict[Path, float] | None) -> list[tuple[Lora, float]]:
    return [(load_lora(file), strength) for file, strength in (files or {}).items()]
