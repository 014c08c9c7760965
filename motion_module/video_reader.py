"""Reads videos: video files, folders of frames, and single images."""

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
"""An RGB image, `(height, width, 3)`."""


class MissingDependency(RuntimeError):
    """A package or file that is needed is not installed. The text is for the user."""


class UnreadableVideo(UserError):
    """A video cannot be used. The text is for the user; it follows the name of the video and a colon."""


@dataclass(frozen=True)
class Video:
    """A video file, a single image, or a folder of frames, with a caption for training."""

    path: Path
    caption: str = ""

    def __iter__(self) -> Iterator[Frame]:
        """Yields the frames in order. Raises UnreadableVideo or MissingDependency."""
        frames = _frames_of_images(self.files()) if self._is_images else _frames_of_file(self.path)
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
            raise UnreadableVideo("it has no frames" if self._is_images else "it cannot be read, or has no frames")

    def files(self) -> list[Path]:
        """Returns the files of the video; those of a folder are sorted by the numbers in their names."""
        if self.path.is_dir():
            return sorted((file for file in self.path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES), key=_by_number)
        return [self.path]

    def fps(self) -> float:
        """Returns the average frames per second of the file; 0 for images, and if the file does not say it.

        Raises MissingDependency.
        """
        if self._is_images:
            return 0.0
        return _fps_of_gif(self.path) if self.path.suffix.lower() == ".gif" else _fps_of_file(self.path)

    @property
    def _is_images(self) -> bool:
        return self.path.is_dir() or self.path.suffix.lower() in IMAGE_SUFFIXES


def _by_number(file: Path) -> list[tuple[int, str]]:
    """Returns a sort key by which 2.png comes before 10.png."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", file.name.lower())]


def _frames_of_images(files: list[Path]) -> Iterator[Frame]:
    cv2 = opencv()
    for file in files:
        # imread cannot open paths with characters outside of the system's code page
        frame = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_COLOR) if file.stat().st_size else None
        if frame is None:
            raise UnreadableVideo(f"{file.name} is not an image that can be read")
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def _frames_of_file(path: Path) -> Iterator[Frame]:
    cv2 = opencv()
    capture = cv2.VideoCapture(str(path))
    try:
        while True:
            success, frame = capture.read()
            if not success:
                return
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    finally:
        capture.release()


def _fps_of_file(path: Path) -> float:
    cv2 = opencv()
    capture = cv2.VideoCapture(str(path))
    try:
        fps = float(capture.get(cv2.CAP_PROP_FPS))
    finally:
        capture.release()
    return fps if 0 < fps < float("inf") else 0.0


def _fps_of_gif(path: Path) -> float:
    """Returns the frames per second from the delays of all frames, since OpenCV reads only the first few."""
    try:
        with Image.open(path) as gif:
            milliseconds = [frame.info.get("duration", 0) for frame in ImageSequence.Iterator(gif)]
    except OSError:
        return 0.0
    return 1000 * len(milliseconds) / sum(milliseconds) if any(milliseconds) else 0.0


def resized(frame: Frame, size: tuple[int, int]) -> Frame:
    """Returns a frame at a height and width: scaled until it covers them, and cropped to the centre."""
    height, width = size
    scale = max(height / frame.shape[0], width / frame.shape[1])
    across, down = max(width, round(frame.shape[1] * scale)), max(height, round(frame.shape[0] * scale))
    if (down, across) != frame.shape[:2]:
        cv2 = opencv()
        frame = cv2.resize(frame, (across, down), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    top, left = (down - height) // 2, (across - width) // 2
    return frame[top : top + height, left : left + width]


def opencv() -> Any:
    """Returns the package cv2. Raises MissingDependency."""
    try:
        import cv2
    except ImportError as error:
        raise MissingDependency(
            "Reading videos needs OpenCV, which is not installed. Run `pip install 'opencv-python<4.12'`."
        ) from error
    return cv2
