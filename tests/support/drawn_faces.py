"""Clips with drawn faces that move, and where the faces are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from animatediff.detailer.boxes import Box

Path = Callable[[float], Box]
"""The box of a face by how far the clip is, from 0 to 1."""
SKINS = (230, 180, 150), (200, 150, 110)
FINER = 4
"""Frames are drawn at a multiple of their size and reduced, so that faces move by fractions of pixels."""


def on_an_arc(part: float) -> Box:
    return Box(40 + 130 * part, 40 + 60 * np.sin(3 * part), 80 + 20 * part, 100 + 25 * part)


def across(part: float) -> Box:
    return Box(400 - 150 * part, 230 - 100 * part, 70, 84)


def clip(paths: Sequence[Path], frames: int = 32, size: tuple[int, int] = (512, 384), seed: int = 0) -> np.ndarray:
    """Returns frames `(frames, height, width, 3)` with a face on each path, on a still background."""
    colours = np.random.default_rng(seed).integers(60, 190, (12, 16, 3), dtype=np.uint8)
    background = Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC)
    return np.stack([_frame(background, [path(number / max(1, frames - 1)) for path in paths]) for number in range(frames)])


def truth(path: Path, frames: int = 32) -> list[Box]:
    """Returns the box of a face in each frame."""
    return [path(number / max(1, frames - 1)) for number in range(frames)]


def detections(
    paths: Sequence[Path], frames: int = 32, *, jitter: float = 6, missing: float = 0.2, seed: int = 0
) -> list[list[Box]]:
    """Returns the boxes that a poor detector finds on each frame, in any order.

    `jitter`: pixels by which place and size of a box are off at most. `missing`: the fraction of boxes that are not found.
    """
    draw = np.random.default_rng(seed)
    found = []
    for number in range(frames):
        boxes = [path(number / max(1, frames - 1)) for path in paths]
        seen = [Box(*(box + draw.uniform(-jitter, jitter, 4))) for box in boxes if draw.random() >= missing]
        draw.shuffle(order := list(range(len(seen))))
        found.append([seen[index] for index in order])
    return found


def _frame(background: Image.Image, boxes: Sequence[Box]) -> np.ndarray:
    fine = background.resize((background.width * FINER, background.height * FINER))
    pen = ImageDraw.Draw(fine)
    for box, skin in zip(boxes, SKINS):
        _face(pen, box.scaled(FINER), skin)
    return np.asarray(fine.resize(background.size, Image.Resampling.BOX))


def _face(pen: ImageDraw.ImageDraw, box: Box, skin: tuple[int, int, int]) -> None:
    x, y, width, height = box
    pen.ellipse((x, y, x + width, y + height), fill=skin)
    for eye in (0.3, 0.7):
        middle = x + width * eye
        pen.ellipse((middle - width * 0.08, y + height * 0.33, middle + width * 0.08, y + height * 0.45), fill=(20, 20, 40))
    lips = (x + width * 0.25, y + height * 0.5, x + width * 0.75, y + height * 0.85)
    pen.arc(lips, 20, 160, fill=(140, 20, 20), width=round(width * 0.05))
