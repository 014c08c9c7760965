"""Optical flow between two frames, and frames warped along it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import MissingDependency
from .pictures import Frame

Flow = NDArray[np.float32]
"""From each pixel of a frame to the same point in another frame, in pixels to the right and down: `(height, width, 2)`."""


def flow_between(one: Frame, other: Frame) -> Flow:
    """Returns the optical flow from one frame to the other by dense inverse search (arXiv 1603.03590).

    Raises MissingDependency.
    """
    cv2 = opencv()
    grey = [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in (one, other)]
    flow: Flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*grey, None)
    return flow


def warped(frame: NDArray[Any], flow: Flow) -> NDArray[np.float32]:
    """Returns the colours `(height, width, 3)` that a frame has where the flow points to; outside of it, those of its edge.

    Raises MissingDependency.
    """
    cv2 = opencv()
    rows, columns = np.mgrid[: frame.shape[0], : frame.shape[1]].astype(np.float32)
    points = columns + flow[..., 0].astype(np.float32), rows + flow[..., 1].astype(np.float32)
    colours: NDArray[np.float32] = cv2.remap(
        frame.astype(np.float32), *points, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return colours


def opencv() -> Any:
    """Returns the package cv2. Raises MissingDependency."""
    try:
        import cv2
    except ImportError as error:
        raise MissingDependency(
            "Optical flow needs OpenCV, which is not installed. Run `pip install 'opencv-python<4.12'`."
        ) from error
    return cv2
