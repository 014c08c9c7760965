"""Reads videos: video files, moving pictures, folders of frames, and single images.

One set of rules holds for all of them. Frames are upright, in the order in which they are shown, at a constant rate, and on a
background where they are transparent. The content of a file decides what it is, not its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from time import monotonic

import numpy as np
from PIL import Image

from .errors import UnreadableVideo
from .file_signatures import kind_of_picture, kind_of_video
from .pictures import WHITE, Frame, MovingPicture, read_picture
from .video_file import UNREADABLE, VideoFile

VIDEO_SUFFIXES = (".mp4", ".mov", ".webm", ".mkv", ".avi", ".m4v", ".gif", ".apng")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
LEFT_BY_SYSTEMS = ("thumbs.db", "desktop.ini", "__macosx")
"""What Windows and macOS leave beside pictures, besides hidden files."""
RULES = 2
"""Grows whenever the same file is read as other frames than before."""


@dataclass(frozen=True)
class Video:
    """A video file, a picture, or a folder of frames, with a caption for training.

    `background`: the colour below transparent pixels, as Pillow understands it.
    """

    path: Path
    caption: str = ""
    background: str = WHITE

    def __iter__(self) -> Iterator[Frame]:
        """Yields all frames in order, like `first`."""
        return self.first(None)

    def first(self, most: int | None) -> Iterator[Frame]:
        """Yields the first frames in order; what comes after them is not read.

        Raises UnreadableVideo, also after the last frame if the file is damaged, MissingDependency or OSError.
        """
        size, count = None, 0
        for count, frame in enumerate(self._frames(most), start=1):
            size = size or frame.shape
            if frame.shape != size:
                raise UnreadableVideo(
                    f"its frames have different sizes: frame {count} is {frame.shape[1]}×{frame.shape[0]}, "
                    f"the first is {size[1]}×{size[0]}. Make them the same size"
                )
            yield frame
        if count == 0:
            raise UnreadableVideo("it has no frames. Choose another folder" if self.path.is_dir() else UNREADABLE)

    def frame(self, index: int) -> Frame | None:
        """Returns one frame, counted from 0, or None if there is none. Raises what `first` does where that ends too early."""
        if not self.path.is_dir() and isinstance(self._file, VideoFile):
            return self._file.frame(self.background, index)
        return next(islice(self.first(index + 1), index, None), None)

    def stated_count(self) -> tuple[int, bool]:
        """Returns how many frames there are, without decoding a long video, and whether that is exact; 0 if it is unknown.

        Raises UnreadableVideo, MissingDependency or OSError.
        """
        return (len(self.files()), True) if self.path.is_dir() else self._file.stated_count()

    def glimpses(self, indexes: Sequence[int], seconds: float) -> Iterator[tuple[int, Frame]]:
        """Yields these frames, or frames near them, with their indexes, in order. Ends early after about that time.

        Frames may differ in size. Raises what `first` does, as far as it is noticed on the way.
        """
        until = monotonic() + seconds
        if not self.path.is_dir() and isinstance(self._file, MovingPicture):
            yield from self._file.glimpses(self.background, indexes, until)
            return
        if not (files := self.files()):
            raise UnreadableVideo("it has no frames. Choose another folder")
        for index in indexes:
            if (left := until - monotonic()) <= 0:
                return
            if self.path.is_dir():
                yield index, read_picture(files[index], self.background)
            elif isinstance(self._file, VideoFile) and (frame := self._file.glimpse(self.background, index, left)) is not None:
                yield index, frame

    @property
    def is_decoded_by_ffmpeg(self) -> bool:
        """Whether it is a video file, of which ffmpeg tells facts without decoding it. Raises OSError."""
        return not self.path.is_dir() and isinstance(self._file, VideoFile)

    def files(self) -> list[Path]:
        """Returns the files of the video; those of a folder are sorted by the numbers in their names."""
        return pictures_in(self.path) if self.path.is_dir() else [self.path]

    def fps(self) -> float:
        """Returns the frames per second of what is read; 0 for single images and folders, which do not say it.

        Raises UnreadableVideo, MissingDependency or OSError.
        """
        return 0.0 if self.path.is_dir() else self._file.fps

    def time_of(self, frame: int) -> float:
        """Returns when a frame, counted from 0, is shown, in seconds from the beginning of a video file and its sound."""
        return self._file.start + frame / self._file.fps if isinstance(self._file, VideoFile) else 0.0

    def _frames(self, most: int | None) -> Iterator[Frame]:
        if self.path.is_dir():
            return (read_picture(file, self.background) for file in self.files()[:most])
        return self._file.frames(self.background, most)

    @cached_property
    def _file(self) -> VideoFile | MovingPicture:
        """The opened file, for which a subprocess runs or its frames are counted."""
        with self.path.open("rb") as stream:
            is_picture = kind_of_picture(stream.read(12))
        return MovingPicture(self.path) if is_picture else VideoFile(self.path)


def is_readable(file: Path) -> bool:
    """Returns whether a file begins like a picture or a video that can be read. Raises OSError."""
    with file.open("rb") as stream:
        begin = stream.read(12)
    return bool(kind_of_picture(begin) or kind_of_video(begin))


def pictures_in(folder: Path) -> list[Path]:
    """Returns the pictures of a folder in natural order: 2.png comes before 10.png. Raises OSError."""
    files = (file for file in entries_of(folder) if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
    return sorted(files, key=by_number)


def pictures_below(folder: Path) -> list[Path]:
    """Returns the pictures of a folder and of all folders in it, in natural order of their paths. Raises OSError."""
    files = pictures_in(folder)
    for entry in entries_of(folder):
        if entry.is_dir() and not folder.resolve().is_relative_to(entry.resolve()):  # a link may lead back
            files += pictures_below(entry)
    return sorted(files, key=lambda file: [by_number(Path(part)) for part in file.relative_to(folder).parts])


def entries_of(folder: Path) -> list[Path]:
    """Returns what a folder contains, without what is hidden or left by systems. Raises OSError."""
    return sorted(path for path in folder.iterdir() if not path.name.lower().startswith((".", *LEFT_BY_SYSTEMS)))


def by_number(file: Path) -> list[tuple[int, str]]:
    """Returns a sort key by which 2.png comes before 10.png."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", file.name.lower())]


def resized(frame: Frame, size: tuple[int, int]) -> Frame:
    """Returns a frame at a height and width: scaled until it covers them, and cropped to the centre."""
    height, width = size
    scale = max(height / frame.shape[0], width / frame.shape[1])
    across, down = max(width, round(frame.shape[1] * scale)), max(height, round(frame.shape[0] * scale))
    if (down, across) != frame.shape[:2]:
        filter_ = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
        frame = np.asarray(Image.fromarray(frame).resize((across, down), filter_))
    top, left = (down - height) // 2, (across - width) // 2
    return frame[top : top + height, left : left + width]
