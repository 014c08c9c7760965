"""Encodes GIF with Pillow: one palette for the whole clip, and dithering."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .clip import DIFFUSION, PATTERN, Clip, Quality
from .pillow import frame_durations, saved

PALETTE_PIXELS = 512 * 512
"""How many pixels, taken evenly from all frames, determine the palette of a GIF."""
DITHER_LEVELS = 16
"""The range of the pattern, in levels of 255. About half the distance between neighbouring colours of a palette."""


def encode_gif(clip: Clip, quality: Quality) -> bytes:
    """Returns a GIF with one palette for all frames, so that still areas do not shimmer.

    The format counts time in hundredths of a second. Rounding is carried from frame to frame, so the total is right.
    """
    frames = clip.rgb
    palette = shared_palette(frames)
    method = Image.Dither.FLOYDSTEINBERG if quality.gif_dithering == DIFFUSION else Image.Dither.NONE
    patterned = map(dithered, frames) if quality.gif_dithering == PATTERN else frames
    first, *rest = (frame.quantize(palette=palette, dither=method) for frame in patterned)
    options: dict[str, Any] = {"comment": clip.infotext.encode()} if clip.infotext else {}
    if clip.plays != 1:
        options["loop"] = max(clip.plays - 1, 0)  # the file counts repetitions; 0 is an endless loop
    durations = frame_durations(len(frames), clip.fps, 10)
    return saved(first, "GIF", save_all=True, append_images=rest, duration=durations, **options)


def shared_palette(frames: Sequence[Image.Image]) -> Image.Image:
    """Returns 256 colours for all frames: median cut over one sheet of them, scaled down to about PALETTE_PIXELS."""
    width, height = frames[0].size
    scale = min(1.0, math.sqrt(PALETTE_PIXELS / (width * height * len(frames))))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    sheet = Image.new("RGB", (size[0], size[1] * len(frames)))
    for index, frame in enumerate(frames):
        sheet.paste(frame.resize(size, Image.Resampling.NEAREST), (0, size[1] * index))
    return sheet.quantize(256, method=Image.Quantize.MEDIANCUT)


def dithered(frame: Image.Image) -> Image.Image:
    """Returns the frame with an ordered dither added, the same pattern in every frame (Bayer, 1973).

    A small palette turns a gradient into bands, and the pattern breaks them up. Error diffusion does so too, but there
    anything that moves changes the dots all over the frame.
    """
    pixels = np.asarray(frame, dtype=np.float32)
    height, width = pixels.shape[:2]
    times = math.ceil(height / len(BAYER)), math.ceil(width / len(BAYER))
    pattern = np.tile(BAYER, times)[:height, :width, None]
    return Image.fromarray(np.clip(pixels + DITHER_LEVELS * pattern, 0, 255).round().astype(np.uint8))


def _bayer_matrix(doublings: int) -> NDArray[np.float32]:
    """Returns thresholds between -1/2 and 1/2, `(2**doublings, 2**doublings)`."""
    matrix = np.zeros((1, 1))
    for _ in range(doublings):
        matrix = np.block([[4 * matrix, 4 * matrix + 2], [4 * matrix + 3, 4 * matrix + 1]])
    return ((matrix + 0.5) / matrix.size - 0.5).astype(np.float32)


BAYER = _bayer_matrix(3)
