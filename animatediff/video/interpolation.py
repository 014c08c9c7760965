"""Interpolates frames, along the optical flow or with RIFE."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from PIL import Image

from motion_module.optical_flow import Flow, flow_between, warped
from motion_module.pictures import Frame

from .rife import Rife

CUT_LEVELS, CUT_PART = 20.0, 0.6
"""Two frames belong to different shots if the flow leaves this much of their difference unexplained: in levels of 255, and as
a fraction of it."""


def interpolated(
    frames: Sequence[Image.Image], factor: int, *, closed: bool = False, rife: Rife | None = None
) -> list[Image.Image]:
    """Returns the frames with `factor - 1` new ones between each two; in a `closed` clip, also after the last.

    Nothing is mixed across a cut: the frame before it is repeated, then the frame after it. Raises MissingDependency without
    OpenCV.
    """
    made = [frames[0]]
    for before, after in pairwise([*frames, frames[0]] if closed else frames):
        between = _between(np.asarray(before.convert("RGB")), np.asarray(after.convert("RGB")), factor, rife)
        made += [*map(Image.fromarray, between), after]
    return made[:-1] if closed else made


def _between(before: Frame, after: Frame, factor: int, rife: Rife | None) -> list[Frame]:
    forward = flow_between(before, after)
    fractions = [number / factor for number in range(1, factor)]
    if _is_cut(before, after, forward):
        return [before if fraction < 0.5 else after for fraction in fractions]
    if rife is not None:
        return rife.between(before, after, fractions)
    backward = flow_between(after, before)
    return [_at(fraction, before, after, forward, backward) for fraction in fractions]


def _at(t: float, before: Frame, after: Frame, forward: Flow, backward: Flow) -> Frame:
    """Returns the frame at the fraction `t` of the way, by the flows of Super SloMo (arXiv 1712.00080, equation 4)."""
    to_before = -(1 - t) * t * forward + t**2 * backward
    to_after = (1 - t) ** 2 * forward - t * (1 - t) * backward
    mixed = (1 - t) * warped(before, to_before) + t * warped(after, to_after)
    return mixed.round().clip(0, 255).astype(np.uint8)


def _is_cut(before: Frame, after: Frame, forward: Flow) -> bool:
    unexplained = float(np.abs(warped(after, forward) - before).mean())
    change = float(np.abs(after.astype(np.float32) - before).mean())
    return unexplained > CUT_LEVELS and unexplained > CUT_PART * change
