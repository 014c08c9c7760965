"""The masks of a clip, of what img2img paints and of where motion acts: one for all frames, or one for each."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from pathlib import Path

import numpy as np
from modules import shared
from PIL import Image, ImageChops

from motion_module.errors import MissingDependency, UnreadableVideo
from motion_module.pictures import Frame, flattened
from motion_module.video_reader import Video

from ..errors import RequestError, reason
from ..interrupt import is_stopping
from . import source_video
from .params import MOST_FRAMES

PAINTED = "The folder or video of masks (mask_path)"
MOVING = "The folder or video of motion masks (motion_mask_path)"
BLACK, WHITE = "#000000", "#ffffff"
OPAQUE = 128
"""The WebUI takes pixels as masked whose alpha is above this."""
RESIDUE = 16
"""Levels by which compression makes black and white of a video impure. The crop would go around all of it."""


def read(name: str, what: str = PAINTED) -> list[Image.Image]:
    """Returns the masks of a folder, a picture or a video, in levels of grey: white is what will be painted, or moves.

    `what`: they, in an error's words. Raises RequestError where they cannot be read, or when interrupted.
    """
    path = source_video.find(name, what)
    shared.state.textinfo = "AnimateDiff: reading the masks"
    try:
        return [Image.fromarray(mask) for mask in source_video.read_all(_masks(path, what), what)]
    except (UnreadableVideo, MissingDependency, OSError) as error:
        raise RequestError(f"{what}, {path.name}, cannot be used: {reason(error)}.") from None


def of_picture(picture: Image.Image) -> Image.Image:
    """Returns a picture as a mask, by the same rules."""
    see_through = _see_through(*(np.asarray(flattened(picture, colour)) for colour in (BLACK, WHITE)))
    return Image.fromarray(_opaque(see_through)) if see_through.any() else flattened(picture, BLACK).convert("L")


def union(masks: list[Image.Image], *, inverted: bool) -> Image.Image:
    """Returns the mask of all pixels that one of these masks at least paints. `inverted`: whether they paint what is black."""
    return reduce(ImageChops.darker if inverted else ImageChops.lighter, masks)


def _masks(path: Path, what: str) -> Iterator[Frame]:
    """Yields the masks, `(height, width)`: alpha where the first is transparent somewhere, as the WebUI takes it."""
    on_black, on_white = Video(path, background=BLACK), Video(path, background=WHITE)
    is_compressed = on_black.is_decoded_by_ffmpeg
    by_alpha: bool | None = None
    most = MOST_FRAMES + 1
    for number, (dark, light) in enumerate(zip(on_black.first(most), on_white.first(most)), start=1):
        if is_stopping():
            raise RequestError(f"Reading the masks was interrupted at mask {number}, so there is no video. Generate again.")
        see_through = _see_through(dark, light)
        if by_alpha is None:
            by_alpha = bool(see_through.any())
        elif not by_alpha and see_through.any():
            raise RequestError(
                f"{what}, {path.name}, cannot be used: mask {number} is transparent somewhere, but the masks before it are "
                "not. Use masks of one kind."
            )
        if by_alpha:
            yield _opaque(see_through)
        else:
            mask = Image.fromarray(dark).convert("L")
            yield np.asarray(mask.point(_purer) if is_compressed else mask)


def _see_through(on_black: Frame, on_white: Frame) -> Frame:
    """Returns how much shows of the white below a picture, `(height, width)`."""
    return (on_white - on_black).max(axis=-1)


def _opaque(see_through: Frame) -> Frame:
    """Returns the mask of what is opaque."""
    return np.where(255 - see_through > OPAQUE, 255, 0).astype(np.uint8)


def _purer(level: int) -> int:
    """Returns a level of a compressed video with the same distance between black and white, both without residue."""
    return round(min(max((level - RESIDUE) / (255 - 2 * RESIDUE), 0), 1) * 255)
