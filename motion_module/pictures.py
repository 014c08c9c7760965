"""Reads pictures with Pillow, also those that move (GIF, WebP, APNG): upright, and without transparency."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from .errors import UnreadableVideo

Frame = NDArray[np.uint8]
"""An RGB image, `(height, width, 3)`."""
WHITE = "#ffffff"
MOST_PIXELS = 1 << 26
"""The most pixels of a frame: 8192×8192."""
MOVING = ("GIF", "WEBP", "PNG")
CLOCK = {"GIF": 10}
"""The unit, in milliseconds, to which a format rounds the durations of its frames; 1 in the others."""
FASTEST, INSTEAD = 10, 100
"""In milliseconds. Browsers show a frame that is to last `FASTEST` or less for `INSTEAD`."""
FAULTS = (OSError, SyntaxError, ValueError, EOFError, LookupError, struct.error, Image.DecompressionBombError)
"""What Pillow raises for a damaged file."""


def kind_of_picture(begin: bytes) -> str:
    """Returns Pillow's name of the format of a file that begins like this; empty if it is none of those that are read."""
    if begin.startswith(b"RIFF") and begin[8:12] == b"WEBP":
        return "WEBP"
    begins = {b"\x89PNG": "PNG", b"GIF8": "GIF", b"\xff\xd8": "JPEG", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
    return next((kind for first, kind in begins.items() if begin.startswith(first)), "")


def read_picture(file: Path, background: str = WHITE) -> Frame:
    """Returns a picture, or the first frame of one that moves. Raises UnreadableVideo, or OSError if there is no such file."""
    with _opened(file) as image:
        try:
            return _as_frame(image, background)
        except FAULTS:
            raise UnreadableVideo(f"{file.name} is damaged. Save it again, or leave it out") from None


def flattened(image: Any, background: str) -> Any:
    """Returns an RGB picture: what is transparent shows the background, as where the WebUI flattens a picture."""
    if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion cuts off what is above 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode == "RGBA":
        shown = Image.new("RGBA", image.size, background)
        shown.paste(image, mask=image)
        image = shown
    return image.convert("RGB")


class MovingPicture:
    """The frames of a GIF, WebP or APNG at a constant rate, or the one frame of a still picture."""

    def __init__(self, file: Path) -> None:
        """Reads how long each frame lasts. Raises UnreadableVideo, or OSError if there is no such file."""
        self._file = file
        self._milliseconds: list[float] = []
        self._is_whole = True
        with _opened(file) as image:
            self._format = image.format
            try:
                for _ in _each(image):
                    image.load()
                    lasts = image.info.get("duration", 0)
                    self._milliseconds.append(lasts if lasts > FASTEST else INSTEAD)
            except FAULTS:
                self._is_whole = False
        if self._format == "GIF":
            self._is_whole &= _last_bytes(file).rstrip(b"\0\r\n").endswith(b";")

    @property
    def fps(self) -> float:
        """The average rate if all frames last as long as the format's clock can tell, else that of the shortest; 0 if still."""
        lasts = self._milliseconds
        if len(lasts) < 2:
            return 0.0
        return 1000 * len(lasts) / sum(lasts) if self._is_constant else 1000 / min(lasts)

    @property
    def _is_constant(self) -> bool:
        return max(self._milliseconds) - min(self._milliseconds) <= CLOCK.get(self._format, 1)

    def frames(self, background: str, most: int | None = None) -> Iterator[Frame]:
        """Yields the frames, or the first of them. One that lasts longer than the others comes several times.

        Raises UnreadableVideo after the last if the file is cut off.
        """
        yield from islice(self._all(background), most)

    def _all(self, background: str) -> Iterator[Frame]:
        shown, until = 0, 0.0
        with _opened(self._file) as image:
            for lasts, _ in zip(self._milliseconds, _each(image)):
                frame = _as_frame(image, background)
                until += lasts * self.fps / 1000
                times = 1 if self.fps == 0 or self._is_constant else max(1, math.floor(until + 0.5) - shown)
                shown += times
                for _ in range(times):
                    yield frame
        if shown == 0:
            raise UnreadableVideo("it is a picture that cannot be read. Save it again")
        if not self._is_whole:
            raise UnreadableVideo(cut_off(shown))


def _last_bytes(file: Path) -> bytes:
    with file.open("rb") as stream:
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - 64))
        return stream.read()


def _each(image: Any) -> Iterator[int]:
    """Goes through the frames of a picture, without the one that an APNG has for programs that cannot show it move."""
    count = image.n_frames if image.format in MOVING else 1
    for index in range(int(count > 1 and getattr(image, "default_image", False)), count):
        image.seek(index)
        yield index
        if getattr(image, "disposal_method", 0) == 2 and image.mode == "RGBA" and image.dispose is not None:
            # as browsers do; Pillow clears to the GIF's background colour where the frame itself has no transparent pixel
            left, top, right, bottom = image.dispose_extent
            image.dispose = Image.core.fill("RGBA", (right - left, bottom - top), (0, 0, 0, 0))


def cut_off(frames: int) -> str:
    """Returns the text on a file whose end is missing."""
    return f"it is cut off or damaged after its first {frames} frames. Download or export it again, or use only these frames"


def too_large(width: int, height: int) -> str:
    return f"its frames are {width}×{height}, but may have at most {MOST_PIXELS:,} pixels. Make it smaller"


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    with file.open("rb") as stream:
        kind = kind_of_picture(stream.read(12))
        stream.seek(0)
        try:
            image = Image.open(stream, formats=[kind] if kind else [])
        except FAULTS:
            raise UnreadableVideo(f"{file.name} is not an image that can be read. Save it again, or leave it out") from None
        if image.width * image.height > MOST_PIXELS:
            raise UnreadableVideo(too_large(image.width, image.height))
        yield image


def _as_frame(image: Any, background: str) -> Frame:
    with suppress(*FAULTS):  # a damaged EXIF tells nothing; a damaged picture fails below
        image = ImageOps.exif_transpose(image)
    frame: Frame = np.asarray(flattened(image, background))
    return frame
