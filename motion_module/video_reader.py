"""Reading videos: files, folders of frames, and single pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from .errors import UserError

VIDEO_SUFFIXES = (".mp4", ".mov", ".webm", ".mkv", ".avi", ".m4v", ".gif")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

Frame = NDArray[np.uint8]
"""`(height, width, 3)`, red first."""


class MissingDependency(RuntimeError):
    """Something that is needed is not installed. The text is for the user."""


class UnreadableVideo(UserError):
    """A video cannot be used. The text is for the user."""


@dataclass(frozen=True)
class Video:
    """A file, or a folder of frames, that is there, and what is to be seen in it."""

    path: Path
    caption: str = ""

    def __iter__(self) -> Iterator[Frame]:
        """Its frames, in order. Raises UnreadableVideo or MissingDependency."""
        frames = _frames_of_pictures(_pictures(self.path)) if self._is_pictures else _frames_of_file(self.path)
        size, count = None, 0
        for count, frame in enumerate(frames, start=1):
            size = size or frame.shape
            if frame.shape != size:
                raise UnreadableVideo(
                    f"its frames have different sizes: frame {count} is {frame.shape[1]}×{frame.shape[0]}, "
                    f"the first is {size[1]}×{size[0]}"
                )
            yield frame
        if count == 0:
            raise UnreadableVideo("it has no frames" if self._is_pictures else "it cannot be read, or has no frames")

    def files(self) -> list[Path]:
        """The files that it is in."""
        return _pictures(self.path)

    def fps(self) -> float:
        """How many frames its file shows in a second, on average; 0 of a folder, and where it cannot be told.

        Raises MissingDependency.
        """
        if self._is_pictures:
            return 0.0
        return _fps_of_gif(self.path) if self.path.suffix.lower() == ".gif" else _fps_of_file(self.path)

    @property
    def _is_pictures(self) -> bool:
        return self.path.is_dir() or self.path.suffix.lower() in IMAGE_SUFFIXES


def _pictures(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted((file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES), key=_by_number)
    return [path]


def _by_number(file: Path) -> list[tuple[int, str]]:
    """So that 2.png comes before 10.png."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", file.name.lower())]


def _frames_of_pictures(files: list[Path]) -> Iterator[Frame]:
    cv2 = opencv()
    for file in files:
        # imread knows no other letters than those of the system's code page
        frame = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_COLOR) if file.stat().st_size else None
        if frame is None:
            raise UnreadableVideo(f"{file.name} is no picture that can be read")
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def _frames_of_file(path: Path) -> Iterator[Frame]:
    cv2 = opencv()
    capture = cv2.VideoCapture(str(path))
    try:
        while True:
            there, frame = capture.read()
            if not there:
                return
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    finally:
        capture.release()


def _fps_of_file(path: Path) -> float:
    cv2 = opencv()
    capture = cv2.VideoCapture(str(path))
    try:
        said = float(capture.get(cv2.CAP_PROP_FPS))
    finally:
        capture.release()
    return said if 0 < said < float("inf") else 0.0


def _fps_of_gif(path: Path) -> float:
    """From the delays themselves: those of a file are of hundredths of a second, and OpenCV looks at the first few."""
    try:
        with Image.open(path) as gif:
            milliseconds = [frame.info.get("duration", 0) for frame in ImageSequence.Iterator(gif)]
    except OSError:
        return 0.0
    return 1000 * len(milliseconds) / sum(milliseconds) if any(milliseconds) else 0.0


def resized(picture: Frame, size: tuple[int, int]) -> Frame:
    """A picture at a height and width: scaled until it covers them, and cut at the middle."""
    height, width = size
    scale = max(height / picture.shape[0], width / picture.shape[1])
    across, down = max(width, round(picture.shape[1] * scale)), max(height, round(picture.shape[0] * scale))
    if (down, across) != picture.shape[:2]:
        cv2 = opencv()
        picture = cv2.resize(picture, (across, down), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    top, left = (down - height) // 2, (across - width) // 2
    return picture[top : top + height, left : left + width]


def opencv() -> Any:
    """The package cv2. Raises MissingDependency."""
    try:
        import cv2
    except ImportError as error:
        raise MissingDependency(
            "Videos are read with OpenCV, which is not installed: `pip install 'opencv-python<4.12'`."
        ) from error
    return cv2
