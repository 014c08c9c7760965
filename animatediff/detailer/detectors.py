"""Finds subjects on single frames with the cascades that come with OpenCV (imports nothing of the WebUI)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from motion_module.optical_flow import opencv
from motion_module.pictures import Frame

from ..request.choices import FACES
from .boxes import Box, each_once

Detector = Callable[[Frame], list[Box]]
"""Returns the boxes of the subjects on a frame `(height, width, 3)`, each subject once."""
LONGEST_SIDE = 640
"""Pixels of the reduced frame on which subjects are looked for: the cascades know them by coarse shapes."""
SMALLEST = 1 / 16
"""The smallest side of a subject, as a fraction of the frame's shorter side."""
STEP = 1.1
"""The factor between the sizes that are tried."""
MOST_NEIGHBOURS = 12
"""How many boxes close to each other must agree at a confidence of 1; at 0, one suffices."""


class Cascades(NamedTuple):
    """OpenCV's files for one kind of subject. `sides`: those that know a subject from one side only, and so look twice."""

    files: tuple[str, ...]
    sides: tuple[str, ...] = ()


CASCADES = {
    FACES: Cascades(("haarcascade_frontalface_alt2.xml",), ("haarcascade_profileface.xml",)),
    "upper bodies": Cascades(("haarcascade_upperbody.xml",)),
    "eyes": Cascades(("haarcascade_eye.xml",)),
}


def detector(kind: str, confidence: float) -> Detector:
    """Returns what finds subjects of a kind in CASCADES. `confidence`: from 0 to 1; more finds fewer, and errs less often.

    Raises MissingDependency without OpenCV.
    """
    cv2 = opencv()
    known = CASCADES[kind]
    folder = Path(cv2.data.haarcascades)
    from_ahead = [cv2.CascadeClassifier(str(folder / file)) for file in known.files]
    from_a_side = [cv2.CascadeClassifier(str(folder / file)) for file in known.sides]
    neighbours = 1 + round(confidence * (MOST_NEIGHBOURS - 1))

    def find(frame: Frame) -> list[Box]:
        scale = min(1.0, LONGEST_SIDE / max(frame.shape[:2]))
        grey = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
        if scale < 1:
            grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        grey = cv2.equalizeHist(grey)
        found = [entry for cascade in (*from_ahead, *from_a_side) for entry in _found(cascade, grey, neighbours)]
        mirrored, width = np.ascontiguousarray(grey[:, ::-1]), grey.shape[1]
        for cascade in from_a_side:
            for box, votes in _found(cascade, mirrored, neighbours):
                found.append((box._replace(x=width - box.x - box.width), votes))
        return each_once((box.scaled(1 / scale), votes) for box, votes in found)

    return find


def _found(cascade: Any, grey: NDArray[np.uint8], neighbours: int) -> list[tuple[Box, float]]:
    """Returns the boxes that a cascade finds, each with how many agree on it."""
    smallest = max(8, round(min(grey.shape) * SMALLEST))
    boxes, votes = cascade.detectMultiScale2(grey, scaleFactor=STEP, minNeighbors=neighbours, minSize=(smallest, smallest))
    return [(Box(*map(float, box)), float(count)) for box, count in zip(boxes, np.ravel(votes))]
