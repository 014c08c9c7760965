"""Helpers for the formats that Pillow writes."""

from __future__ import annotations

from io import BytesIO
from itertools import pairwise
from typing import Any

from PIL import Image


def frame_durations(frames: int, fps: float, unit: int) -> list[int]:
    """Returns the duration of each frame in milliseconds, in multiples of `unit`. The total is right to half a unit."""
    ends = [round(frame * 1000 / fps / unit) for frame in range(frames + 1)]
    return [unit * (end - start) for start, end in pairwise(ends)]


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()
