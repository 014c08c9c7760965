"""Reads pictures with Pillow, also those that move (GIF, WebP, APNG): upright, and without transparency."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from itertools import islice, repeat
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from .errors import UnreadableVideo
from .file_signatures import kind_of_picture

Frame = NDArray[np.uint8]
"""An RGB image, `(height, width, 3)`."""
WHITE = "#ffffff"
MOST_PIXELS = 1 << 26
"""The most pixels of a frame: 8192×8192."""
MOST_COUNTED = 1 << 28
"""The most pixels of all frames of a moving picture that are decoded to count them: 1,024 frames of 512×512."""
MOVING = ("GIF", "WEBP", "PNG")
CLOCK = {"GIF": 10}
"""The unit, in milliseconds, to which a format rounds the durations of its frames; 1 in the others."""
FASTEST, INSTEAD = 10, 100
"""In milliseconds. Browsers show a frame that is to last `FASTEST` or less for `INSTEAD`."""
FAULTS = (OSError, SyntaxError, ValueError, EOFError, LookupError, struct.error, Image.DecompressionBombError)
"""What Pillow raises for a damaged file."""


def read_picture(file: Path, background: str = WHITE) -> Frame:
    """Returns a picture, or the first frame of one that moves. Raises UnreadableVideo, or OSError if there is no such file."""
    return np.asarray(flattened(read_with_alpha(file), background))


def read_with_alpha(file: Path) -> Any:
    """Returns what `read_picture` does as an image: in RGBA if it may be transparent, else in RGB. Raises the same."""
    with _opened(file) as image:
        try:
            return _with_alpha(_upright(image))
        except FAULTS:
            raise UnreadableVideo(f"{file.name} is damaged. Save it again, or leave it out") from None


def flattened(image: Any, background: str) -> Any:
    """Returns an RGB picture: what is transparent shows the background, as where the WebUI flattens a picture."""
    image = _with_alpha(image)
    if image.mode == "RGBA":
        shown = Image.new("RGBA", image.size, background)
        shown.paste(image, mask=image)
        image = shown
    return image.convert("RGB")


def _with_alpha(image: Any) -> Any:
    if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion cuts off what is above 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    may_be_transparent = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    return image.convert("RGBA" if may_be_transparent else "RGB")


class MovingPicture:
    """The frames of a GIF, WebP or APNG at a constant rate, or the one frame of a still picture."""

    def __init__(self, file: Path) -> None:
        """Raises UnreadableVideo, or OSError if there is no such file."""
        self._file = file
        with _opened(file) as image:
            self._format = image.format

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

    @cached_property
    def _milliseconds(self) -> list[float]:
        """How long each frame lasts that can be decoded. Pillow tells it of a frame that it has decoded, not before."""
        milliseconds: list[float] = []
        with _opened(self._file) as image, suppress(*FAULTS):
            if _count(image) == 1:
                return [0]
            for _ in _each(image):
                image.load()
                lasts = image.info.get("duration", 0)
                milliseconds.append(lasts if lasts > FASTEST else INSTEAD)
        return milliseconds

    def frames(self, background: str, most: int | None = None) -> Iterator[Frame]:
        """Yields the frames, or the first of them. One that lasts longer than the others comes several times.

        Raises UnreadableVideo after the last if the file is cut off.
        """
        repeats = self._repeats() if most != 1 else repeat(1)  # the first frame is read without a look at the others
        yield from islice(self._all(background, repeats), most)

    def stated_count(self) -> tuple[int, bool]:
        """Returns how many frames there are, and whether that is exact. It is not for a long one, which is not decoded."""
        with _opened(self._file) as image:
            count = _count(image)
            is_long = count * image.width * image.height > MOST_COUNTED
        return (count, False) if is_long else (sum(self._repeats()), True)

    def glimpses(self, background: str, indexes: Sequence[int], until: float) -> Iterator[tuple[int, Frame]]:
        """Yields these frames with their indexes. Ends early at that time of `monotonic`, and where `frames` raises."""
        _, is_exact = self.stated_count()
        for index, frame in enumerate(self._all(background, self._repeats() if is_exact else repeat(1))):
            if index in indexes:
                yield index, frame
            if index >= max(indexes) or monotonic() > until:
                return

    def _all(self, background: str, repeats: Iterator[int]) -> Iterator[Frame]:
        shown, is_whole = 0, self._format != "GIF" or _last_bytes(self._file).rstrip(b"\0\r\n").endswith(b";")
        with _opened(self._file) as image:
            try:
                for _ in _each(image):
                    frame = _as_frame(image, background)
                    times = next(repeats, 1)
                    shown += times
                    yield from repeat(frame, times)
            except FAULTS:
                is_whole = False
        if shown == 0:
            raise UnreadableVideo("it is a picture that cannot be read. Save it again")
        if not is_whole:
            raise UnreadableVideo(cut_off(shown))

    def _repeats(self) -> Iterator[int]:
        """Yields how many times each frame is shown."""
        shown, until = 0, 0.0
        for lasts in self._milliseconds:
            until += lasts * self.fps / 1000
            times = 1 if self.fps == 0 or self._is_constant else max(1, math.floor(until + 0.5) - shown)
            shown += times
            yield times


def _last_bytes(file: Path) -> bytes:
    with file.open("rb") as stream:
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - 64))
        return stream.read()


def _each(image: Any) -> Iterator[int]:
    """Goes through the frames of a picture, without the one that an APNG has for programs that cannot show it move."""
    count = _count(image)
    for index in range(int(count > 1 and getattr(image, "default_image", False)), count):
        image.seek(index)
        yield index
        if getattr(image, "disposal_method", 0) == 2 and image.mode == "RGBA" and image.dispose is not None:
            # as browsers do; Pillow clears to the GIF's background colour where the frame itself has no transparent pixel
            left, top, right, bottom = image.dispose_extent
            image.dispose = Image.core.fill("RGBA", (right - left, bottom - top), (0, 0, 0, 0))


def _count(image: Any) -> int:
    return int(image.n_frames) if image.format in MOVING else 1


def cut_off(frames: int) -> str:
    """Returns the text on a file whose end is missing."""
    before = f"{frames} frames" if frames > 1 else "frame"
    return f"it is cut off or damaged after its first {before}. Download or export it again, or use only what comes before"


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
    return np.asarray(flattened(_upright(image), background))


def _upright(image: Any) -> Any:
    with suppress(*FAULTS):  # a damaged EXIF tells nothing; a damaged picture fails when it is converted
        return ImageOps.exif_transpose(image)
    return image
