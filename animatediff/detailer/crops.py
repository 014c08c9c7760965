"""Cuts a subject out of the frames, at one size for all of them, and pastes it back (imports nothing of the WebUI)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter1d

from .boxes import Box, around
from .tracks import Track

Floats = NDArray[np.float64]
MULTIPLE = 64
"""Pixels: the sides of what is generated are multiples of this."""
LEAST_FEATHER = 0.1
"""The width of the soft edge, as a fraction of a box's side, where there is less padding than this."""
STEADY = 4.0
"""The frames over which the colours at the seam are averaged, as the standard deviation of a normal distribution."""
SMALLEST = 16
"""Pixels: a smaller crop would show nothing."""


@dataclass(frozen=True)
class Crops:
    """The crops of a track: one size, and a place in each of its frames.

    `size`: width and height in pixels of the frame. `corners`: the upper left corner in each frame. Neither is whole: a place
    that is rounded would jump. `made`: width and height at which the crops are generated. `boxes`: the padded boxes, to
    whose edges the detail fades. `presence`: how much of it is visible, from 0 to 1.
    """

    first: int
    size: tuple[float, float]
    corners: list[tuple[float, float]]
    made: tuple[int, int]
    boxes: list[Box]
    padding: float
    presence: list[float]

    def __len__(self) -> int:
        return len(self.corners)

    @property
    def frames(self) -> range:
        """The numbers of the frames."""
        return range(self.first, self.first + len(self))

    def cut(self, frame: Image.Image, index: int) -> Image.Image:
        """Returns what is generated from: the crop of the track's frame `index`, enlarged."""
        (x, y), (width, height) = self.corners[index], self.size
        return frame.convert("RGB").resize(self.made, Image.Resampling.LANCZOS, box=(x, y, x + width, y + height))

    def pasted(self, frames: Sequence[Image.Image], details: Sequence[Image.Image]) -> list[Image.Image]:
        """Returns the frames of the track with their details. Outside of the mask they are equal to the bit."""
        offsets = self._offsets(frames, details)
        return [self._pasted(index, *each) for index, each in enumerate(zip(frames, details, offsets))]

    def _pasted(self, index: int, frame: Image.Image, detail: Image.Image, offset: Floats) -> Image.Image:
        pixels = np.array(frame.convert("RGB"))
        inside = self._inside_of(pixels, index)
        mask = self.presence[index] * self._mask(index)[..., None]
        inside[:] = np.clip(np.round(inside + mask * (self._fitted(detail, index) + offset - inside)), 0, 255).astype(np.uint8)
        result = Image.fromarray(pixels)
        result.info = dict(frame.info)
        return result

    def _offsets(self, frames: Sequence[Image.Image], details: Sequence[Image.Image]) -> Floats:
        """Returns what is added to each detail, `(frames, 3)`, so that at the seam its colours are the frame's.

        It changes slowly along time: otherwise the whole subject would flicker with what crosses the seam.
        """
        offsets = []
        for index, (frame, detail) in enumerate(zip(frames, details)):
            seam = np.abs(self._mask(index) - 0.5) < 0.4
            away = self._inside_of(np.asarray(frame.convert("RGB")), index)[seam] - self._fitted(detail, index)[seam]
            offsets.append(np.median(away, axis=0) if len(away) else np.zeros(3))
        steady: Floats = gaussian_filter1d(np.array(offsets), STEADY, axis=0, mode="nearest")
        return steady

    def _inside_of(self, pixels: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
        """Returns the view of a frame's pixels that lie wholly inside the crop."""
        left, top, right, bottom = self._whole_pixels(index)
        return pixels[top:bottom, left:right]

    def _whole_pixels(self, index: int) -> tuple[int, int, int, int]:
        """Returns the pixels of the frame that lie wholly inside the crop: left, top, right, bottom."""
        (x, y), (width, height) = self.corners[index], self.size
        return int(np.ceil(x - 1e-6)), int(np.ceil(y - 1e-6)), int(x + width + 1e-6), int(y + height + 1e-6)

    def _fitted(self, detail: Image.Image, index: int) -> Floats:
        """Returns the detail at the pixels of the frame."""
        left, top, right, bottom = self._whole_pixels(index)
        (x, y), (width, height) = self.corners[index], self.size
        across, down = detail.width / width, detail.height / height
        box = (left - x) * across, (top - y) * down, (right - x) * across, (bottom - y) * down
        inside = max(box[0], 0), max(box[1], 0), min(box[2], detail.width), min(box[3], detail.height)
        size = right - left, bottom - top
        return np.asarray(detail.convert("RGB").resize(size, Image.Resampling.LANCZOS, box=inside), dtype=np.float64)

    def _mask(self, index: int) -> Floats:
        """Returns the mask at the pixels of the frame: 1 in the box and half of its padding, falling to 0 at the edge of it."""
        left, top, right, bottom = self._whole_pixels(index)
        box = self.boxes[index]
        across = _edge(np.arange(left, right) + 0.5, box.x, box.width, self._feather(box.width))
        down = _edge(np.arange(top, bottom) + 0.5, box.y, box.height, self._feather(box.height))
        return down[:, None] * across

    def _feather(self, side: float) -> float:
        """Returns the width of the soft edge. `side`: of the padded box."""
        return side * max(self.padding / 2, LEAST_FEATHER) / (1 + 2 * self.padding)


def crops_of(track: Track, frame: tuple[int, int], padding: float, side: int) -> Crops:
    """Returns the crops of a track.

    `frame`: width and height of the frames. `padding`: what is added to a box on each side, as a fraction of that side.
    `side`: of the square whose area is generated, in pixels. A crop that is larger in the frame keeps its size.
    """
    largest = max(box.width for box in track.boxes), max(box.height for box in track.boxes)
    wanted = tuple(max(SMALLEST, side * (1 + 2 * padding)) for side in largest)
    boxes = [around(box.centre, *wanted) for box in track.boxes]
    size = min(wanted[0], frame[0]), min(wanted[1], frame[1])
    scale = max(1.0, side / float(np.sqrt(size[0] * size[1])))
    made = _multiple(size[0] * scale), _multiple(size[1] * scale)
    size = min(max(size[0], size[1] * made[0] / made[1]), frame[0]), min(max(size[1], size[0] * made[1] / made[0]), frame[1])
    corners = [tuple(_inside(c - s / 2, s, f) for c, s, f in zip(box.centre, size, frame)) for box in boxes]
    return Crops(track.first, size, corners, made, boxes, padding, track.presence)  # type: ignore[arg-type]


def _multiple(side: float) -> int:
    return max(MULTIPLE, round(side / MULTIPLE) * MULTIPLE)


def _inside(corner: float, side: float, whole: float) -> float:
    """Returns the corner nearest to the wanted one at which the crop is inside the frame."""
    return min(max(corner, 0.0), whole - side)


def _edge(pixels: Floats, start: float, length: float, feather: float) -> Floats:
    """Returns a window from 0 at both ends to 1, with soft edges. `pixels`: the middles of the pixels."""
    inside = np.minimum(pixels - start, start + length - pixels)
    rising: Floats = np.clip(inside / max(feather, 1e-6), 0, 1)
    return rising**2 * (3 - 2 * rising)
