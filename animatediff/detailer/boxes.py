"""Boxes around subjects (imports nothing of the WebUI)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

from ..errors import RequestError, shown

SAME = 0.4
"""The overlap from which on two boxes on one frame are around the same subject."""


class Box(NamedTuple):
    """A box in pixels from the upper left corner of a frame."""

    x: float
    y: float
    width: float
    height: float

    @property
    def centre(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y + self.height / 2

    @property
    def area(self) -> float:
        return self.width * self.height

    def overlap(self, other: Box) -> float:
        """Returns the area that both boxes cover as a fraction of the area that one of them covers at least."""
        width = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        height = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        if width <= 0 or height <= 0:
            return 0.0
        return width * height / (self.area + other.area - width * height)

    def within(self, width: float, height: float) -> Box:
        """Returns the part of the box that is inside a frame; its sides are 0 or less if there is none."""
        left, top = max(self.x, 0.0), max(self.y, 0.0)
        return Box(left, top, min(self.x + self.width, width) - left, min(self.y + self.height, height) - top)

    def scaled(self, factor: float) -> Box:
        """Returns the box of a frame whose sides are `factor` times as long."""
        return Box(self.x * factor, self.y * factor, self.width * factor, self.height * factor)


def around(centre: tuple[float, float], width: float, height: float) -> Box:
    return Box(centre[0] - width / 2, centre[1] - height / 2, width, height)


def each_once(boxes: Iterable[tuple[Box, float]]) -> list[Box]:
    """Returns one box for each subject: of those around the same one, that which the detector is surest of.

    `boxes`: each with how sure it is.
    """
    kept: list[Box] = []
    for box, _ in sorted(boxes, key=lambda entry: -entry[1]):
        if all(box.overlap(other) < SAME for other in kept):
            kept.append(box)
    return kept


def read_box(text: str) -> Box:
    """Returns the box of `detail_box`, such as “120, 80, 96, 128”. Raises RequestError."""
    try:
        box = Box(*map(float, re.split(r"[\s,;]+", text.strip())))
    except (TypeError, ValueError):
        box = Box(0, 0, 0, 0)
    if not all(map(math.isfinite, box)) or box.width <= 0 or box.height <= 0:
        raise RequestError(
            f"Box on the first frame (detail_box) is {shown(text)}, but must be x, y, width and height in pixels, such as "
            "120, 80, 96, 128. Correct it, or let a detector find the subject (detail)."
        )
    return box
