"""Frames between frames, along the optical flow from one to the next."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from motion_module.videos import opencv

Picture = NDArray[np.uint8]
Flow = NDArray[np.float32]
"""From each pixel to where it is in another frame, in pixels: `(height, width, 2)`, right and down."""
CUT_LEVELS, CUT_PART = 20.0, 0.6
"""Two frames are of different shots where their flow leaves so many levels unexplained, and such a part of all change."""


def interpolated(frames: Sequence[Image.Image], times: int, *, closed: bool = False) -> list[Image.Image]:
    """The frames, and `times - 1` new ones from each to the next; where the clip is `closed`, also from the last to the first.

    Across a cut there are none: the frame before it stays, and then the one behind it. Raises MissingPart without OpenCV.
    """
    made = [frames[0]]
    for before, after in pairwise([*frames, frames[0]] if closed else frames):
        between = _between(np.asarray(before.convert("RGB")), np.asarray(after.convert("RGB")), times)
        made += [*map(Image.fromarray, between), after]
    return made[:-1] if closed else made


def _between(before: Picture, after: Picture, times: int) -> list[Picture]:
    there, back = _flow(before, after), _flow(after, before)
    shares = [number / times for number in range(1, times)]
    if _is_cut(before, after, there):
        return [before if share < 0.5 else after for share in shares]
    return [_at(share, before, after, there, back) for share in shares]


def _at(share: float, before: Picture, after: Picture, there: Flow, back: Flow) -> Picture:
    """The frame at a part of the way. The flows from it to both are those of Super SloMo (arXiv 1712.00080, equation 4)."""
    to_before = -(1 - share) * share * there + share**2 * back
    to_after = (1 - share) ** 2 * there - share * (1 - share) * back
    mixed = (1 - share) * _moved(before, to_before) + share * _moved(after, to_after)
    return mixed.round().clip(0, 255).astype(np.uint8)


def _flow(one: Picture, other: Picture) -> Flow:
    """Dense inverse search (arXiv 1603.03590)."""
    cv2 = opencv()
    grey = [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in (one, other)]
    flow: Flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*grey, None)
    return flow


def _moved(picture: Picture, flow: Flow) -> Flow:
    """What a picture has where the flow leads."""
    cv2 = opencv()
    rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]].astype(np.float32)
    places = columns + flow[..., 0].astype(np.float32), rows + flow[..., 1].astype(np.float32)
    moved: Flow = cv2.remap(picture.astype(np.float32), *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return moved


def _is_cut(before: Picture, after: Picture, there: Flow) -> bool:
    unexplained = float(np.abs(_moved(after, there) - before).mean())
    change = float(np.abs(after.astype(np.float32) - before).mean())
    return unexplained > CUT_LEVELS and unexplained > CUT_PART * change
