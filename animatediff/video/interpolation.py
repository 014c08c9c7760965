"""Frames between frames, along the optical flow from one to the next, or by RIFE."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from PIL import Image

from motion_module.optical_flow import Flow, flow_between, warped
from motion_module.video_reader import Frame

from .rife import Rife

CUT_LEVELS, CUT_PART = 20.0, 0.6
"""Two frames are of different shots where their flow leaves so many levels unexplained, and such a part of all change."""


def interpolated(
    frames: Sequence[Image.Image], times: int, *, closed: bool = False, rife: Rife | None = None
) -> list[Image.Image]:
    """The frames, and `times - 1` new ones from each to the next; where the clip is `closed`, also from the last to the first.

    Across a cut there are none: the frame before it stays, and then the one behind it. Raises MissingDependency without OpenCV.
    """
    made = [frames[0]]
    for before, after in pairwise([*frames, frames[0]] if closed else frames):
        between = _between(np.asarray(before.convert("RGB")), np.asarray(after.convert("RGB")), times, rife)
        made += [*map(Image.fromarray, between), after]
    return made[:-1] if closed else made


def _between(before: Frame, after: Frame, times: int, rife: Rife | None) -> list[Frame]:
    there = flow_between(before, after)
    shares = [number / times for number in range(1, times)]
    if _is_cut(before, after, there):
        return [before if share < 0.5 else after for share in shares]
    if rife is not None:
        return rife.between(before, after, shares)
    back = flow_between(after, before)
    return [_at(share, before, after, there, back) for share in shares]


def _at(share: float, before: Frame, after: Frame, there: Flow, back: Flow) -> Frame:
    """The frame at a part of the way. The flows from it to both are those of Super SloMo (arXiv 1712.00080, equation 4)."""
    to_before = -(1 - share) * share * there + share**2 * back
    to_after = (1 - share) ** 2 * there - share * (1 - share) * back
    mixed = (1 - share) * warped(before, to_before) + share * warped(after, to_after)
    return mixed.round().clip(0, 255).astype(np.uint8)


def _is_cut(before: Frame, after: Frame, there: Flow) -> bool:
    unexplained = float(np.abs(warped(after, there) - before).mean())
    change = float(np.abs(after.astype(np.float32) - before).mean())
    return unexplained > CUT_LEVELS and unexplained > CUT_PART * change
