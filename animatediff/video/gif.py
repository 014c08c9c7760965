"""Animated GIF, through Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from itertools import pairwise
from typing import Any

from PIL import Image


def encode_gif(frames: Sequence[Image.Image], fps: int, plays: int = 0, comment: str = "") -> bytes:
    """A GIF of these frames. `plays`: how often it is shown, 0 for ever. `comment` goes into the file as UTF-8.

    The format counts time in hundredths of a second; rounding is carried from frame to frame, so the whole is right.
    """
    first, *rest = (frame.convert("RGB") for frame in frames)
    options: dict[str, Any] = {"comment": comment.encode()} if comment else {}
    if plays != 1:
        options["loop"] = max(plays - 1, 0)  # the file says how often it starts again; 0 is for ever
    buffer = BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=frame_durations(len(frames), fps), **options)
    return buffer.getvalue()


def frame_durations(frames: int, fps: int) -> list[int]:
    """How long each frame is shown, in milliseconds that are whole hundredths of a second."""
    ends = [round(frame * 100 / fps) for frame in range(frames + 1)]
    return [10 * (end - start) for start, end in pairwise(ends)]
