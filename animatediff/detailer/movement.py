"""How a subject moves and grows from one frame to the next, by optical flow (imports nothing of the WebUI)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from motion_module.optical_flow import opencv
from motion_module.pictures import Frame

from .boxes import Box, around

INNER = 0.8
"""The part of a box's sides that the subject surely fills. The corners of a box show what is behind it."""
SIDE = 160
"""Pixels to which the shorter side of a large box is reduced: the flow is as exact there, and takes less time."""
MOST_POINTS, FEWEST_POINTS = 200, 8
MOST_GROWTH = 0.1
"""The most that a subject is taken to grow in one frame: more is an error of the flow."""
THERE_AND_BACK = 1.0
"""The pixels by which a point may miss its start when it is followed to the next frame and back."""


class Move(NamedTuple):
    """Pixels to the right and down, and the logarithm of the factor by which the sides grow."""

    right: float
    down: float
    growth: float

    def of(self, box: Box) -> Box:
        """Returns where a box is after the move."""
        factor = float(np.exp(self.growth))
        x, y = box.centre
        return around((x + self.right, y + self.down), box.width * factor, box.height * factor)


STILL = Move(0.0, 0.0, 0.0)


def movement(before: Frame, after: Frame, box: Box) -> Move | None:
    """Returns the move of what is inside a box, from one frame `(height, width, 3)` to the next; None where it cannot be seen.

    Corners inside the box are followed by the method of Lucas and Kanade, and a similarity that most of them agree on is
    fitted. Raises MissingDependency without OpenCV.
    """
    cv2 = opencv()
    scale = min(1.0, SIDE / max(1.0, min(box.width, box.height)))
    grey = [_grey(frame, scale) for frame in (before, after)]
    small = box.scaled(scale)
    points = _points(grey[0], small)
    if points is None:
        return None
    there, found, _ = cv2.calcOpticalFlowPyrLK(*grey, points, None)
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(grey[1], grey[0], there, None)
    holds = (found[:, 0] == 1) & (found_back[:, 0] == 1) & (np.abs(back - points).max(axis=(1, 2)) < THERE_AND_BACK)
    if holds.sum() < FEWEST_POINTS:
        return None
    transform, _ = cv2.estimateAffinePartial2D(points[holds], there[holds], ransacReprojThreshold=THERE_AND_BACK)
    if transform is None:
        return None
    middle = np.array(small.centre)
    shift = (transform[:, :2] @ middle + transform[:, 2] - middle) / scale
    growth = np.clip(np.log(max(float(np.hypot(transform[0, 0], transform[1, 0])), 1e-3)), -MOST_GROWTH, MOST_GROWTH)
    return Move(float(shift[0]), float(shift[1]), float(growth))


def _points(grey: NDArray[np.uint8], box: Box) -> Any:
    """Returns corners inside a box, `(points, 1, 2)`; None where there are too few."""
    inside = np.zeros_like(grey)
    (x, y), axes = box.centre, (INNER * box.width / 2, INNER * box.height / 2)
    cv2 = opencv()
    cv2.ellipse(inside, ((x, y), (2 * axes[0], 2 * axes[1]), 0), 255, -1)
    points = cv2.goodFeaturesToTrack(grey, MOST_POINTS, 0.01, 2, mask=inside)
    return points if points is not None and len(points) >= FEWEST_POINTS else None


def _grey(frame: Frame, scale: float) -> Any:
    cv2 = opencv()
    grey = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
    return grey if scale == 1 else cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
