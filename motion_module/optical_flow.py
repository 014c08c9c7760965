"""Optical flow between two frames, and frames moved along it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .video_reader import Frame, opencv

Flow = NDArray[np.float32]
"""From each pixel to where it is in another frame, in pixels: `(height, width, 2)`, right and down."""


def flow_between(one: Frame, other: Frame) -> Flow:
    """Where each pixel of one frame is in the other: dense inverse search (arXiv 1603.03590). Raises MissingDependency."""
    cv2 = opencv()
    grey = [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in (one, other)]
    flow: Flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*grey, None)
    return flow


def moved(picture: NDArray[Any], flow: Flow) -> NDArray[np.float32]:
    """What a picture `(height, width, 3)` has where the flow leads; outside of it, what is at its edge."""
    cv2 = opencv()
    rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]].astype(np.float32)
    places = columns + flow[..., 0].astype(np.float32), rows + flow[..., 1].astype(np.float32)
    there: NDArray[np.float32] = cv2.remap(
        picture.astype(np.float32), *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return there
