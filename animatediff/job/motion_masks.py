"""Where motion acts in one job: its masks, fitted to the frames as the picture that they lie over is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from motion_module.families import SIDE_OF_LATENT
from motion_module.motion_mask import MotionMask

from ..errors import RequestError
from ..request.plan import Plan

STRETCHED, CROPPED, FILLED = range(3)
"""How a picture is fitted to the frames, by img2img's numbers. The one that follows stretches latents."""
DONE = {STRETCHED: "it was stretched", CROPPED: "only its middle was used", FILLED: "its edges were extended"}
ROUNDING = 0.01
"""By how much the ratios of a picture and of a smaller copy may differ."""
AREA = Image.Resampling.BOX
"""Averages areas: what is white stays white."""


class MotionMasks:
    """The masks of one job. `masks`: one for all frames, or one for each."""

    def __init__(self, p: Any, masks: list[Image.Image]) -> None:
        self._p = p
        self._masks = masks
        self._by_size: dict[tuple[int, int], MotionMask] = {}

    def of_pass(self) -> MotionMask:
        """Returns the masks for the running pass: that of hires fix has its own size."""
        size = _size_of_pass(self._p)
        if size not in self._by_size:
            over_frames = (_over_frames(mask, self._p) for mask in self._masks)
            fitted = [_fitted(mask, (size[0] * SIDE_OF_LATENT, size[1] * SIDE_OF_LATENT), CROPPED) for mask in over_frames]
            shares = np.stack([np.asarray(mask.resize(size, AREA)) for mask in fitted])
            self._by_size[size] = MotionMask(torch.from_numpy(shares) / 255)
        return self._by_size[size]


def require_matching(plan: Plan) -> None:
    """Raises RequestError unless there is one motion mask, or one for each frame."""
    if (count := len(plan.motion_masks)) not in (0, 1, plan.frames):
        raise RequestError(
            f"There are {count} motion masks (motion_mask_path) for {plan.frames} frames. Give one for all frames, or one for "
            f"each, or set Number of frames (video_length) to {count}."
        )


def warnings(p: Any, plan: Plan) -> list[str]:
    """Returns warnings about masks that do not fit the frames, or do not hold them still."""
    if not plan.motion_masks:
        return []
    mask, found = plan.motion_masks[0], []
    shapes = [(p.width, p.height), *(image.size for image in (plan.images or ())[:1])]
    if not any(_have_one_shape(mask.size, shape) for shape in shapes):
        sizes, done = ["×".join(map(str, size)) for size in (mask.size, shapes[0])], DONE[_fit_of(p)]
        found.append(
            f"The motion mask is {sizes[0]}, a shape that the frames do not have: they are {sizes[1]}, so {done}. Give it the "
            "shape of the frames."
        )
    begins_alike = plan.params.noise_type == "constant" or len(plan.images or ()) > 1
    if not begins_alike and any(each.getextrema()[0] == 0 for each in plan.motion_masks):
        found.append(
            "What is black in a motion mask (motion_mask) holds still only if all frames begin with the same noise. Set Noise "
            "type (noise_type) to “constant”."
        )
    return [f"AnimateDiff: {text}" for text in found]


def _size_of_pass(p: Any) -> tuple[int, int]:
    """Returns the width and height of the running pass in latents. Hires fix may cut off what its own size leaves over."""
    if not getattr(p, "is_hr_pass", False):
        return p.width // SIDE_OF_LATENT, p.height // SIDE_OF_LATENT
    cut = getattr(p, "truncate_x", 0), getattr(p, "truncate_y", 0)
    return p.hr_upscale_to_x // SIDE_OF_LATENT - cut[0], p.hr_upscale_to_y // SIDE_OF_LATENT - cut[1]


def _have_one_shape(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two sizes have the same ratio, but for what rounding changes."""
    return abs(one[0] * other[1] / (one[1] * other[0]) - 1) < ROUNDING


def _fit_of(p: Any) -> int:
    """Returns how a picture is fitted to the frames: in img2img as its own, else cropped."""
    mode = getattr(p, "resize_mode", STRETCHED if hasattr(p, "init_images") else CROPPED)
    return mode if mode in DONE else STRETCHED


def _over_frames(mask: Image.Image, p: Any) -> Image.Image:
    """Returns a mask at the size of the frames, or of those of the first pass."""
    if getattr(p, "paste_to", None) is None:
        return _fitted(mask, (p.width, p.height), _fit_of(p))
    left, top, width, height = p.paste_to  # img2img makes only this part of its picture
    part = _fitted(mask, p.init_images[0].size, STRETCHED).crop((left, top, left + width, top + height))
    return _fitted(part, (p.width, p.height), FILLED)


def _fitted(mask: Image.Image, size: tuple[int, int], how: int) -> Image.Image:
    if how == STRETCHED:
        return mask.resize(size, AREA)
    if how == CROPPED:
        return ImageOps.fit(mask, size, AREA)
    scale = min(size[0] / mask.width, size[1] / mask.height)
    inner = np.asarray(mask.resize((max(1, round(mask.width * scale)), max(1, round(mask.height * scale))), AREA))
    around = [(outer - side) // 2 for outer, side in zip(reversed(size), inner.shape)]
    padding = [(before, outer - side - before) for before, outer, side in zip(around, reversed(size), inner.shape)]
    return Image.fromarray(np.pad(inner, padding, mode="edge"))
