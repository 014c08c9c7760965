"""Which videos a training has, what clips they make, and what is wrong with them."""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..video_reader import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Frame, UnreadableVideo, Video, resized
from .config import SIZE_STEP, Config

LEAST_MOTION = 0.5
"""A clip in which no frame differs from the first by more, on average of its pixels of 0 to 255, is reported as motionless."""
LEAST_CUT, CUT_FACTOR = 25.0, 5.0
"""A step between frames is reported as a cut if it is this large, and so many times as large as the median step of its clip."""


class DataError(UserError):
    """There is nothing to learn from, or no telling what. The text is for the user."""


@dataclass(frozen=True)
class Clip:
    """A part of a video: where it begins, and its frames `(frames, height, width, 3)`."""

    start: int
    frames: NDArray[np.uint8]

    @property
    def oddity(self) -> str:
        """What is odd about it, in words; mostly nothing."""
        pictures = self.frames.astype(np.float32)
        steps = np.abs(np.diff(pictures, axis=0)).mean(axis=(1, 2, 3))
        if len(steps) == 0:
            return ""
        if np.abs(pictures - pictures[0]).mean(axis=(1, 2, 3)).max() < LEAST_MOTION:
            return "nothing moves"
        largest = int(steps.argmax())
        if steps[largest] > max(LEAST_CUT, CUT_FACTOR * float(np.median(steps))):
            return f"there seems to be a cut after its frame {largest + 1}"
        return ""


@dataclass
class Report:
    """What became of the videos. `odd` and `left_out`: names, and what is the matter."""

    videos: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    odd: list[tuple[str, str]] = field(default_factory=list)

    def lines(self, config: Config, most: int = 10) -> Iterator[str]:
        """For the user, with at most so many names of a kind."""
        shapes = ", ".join(f"{count} of {width}×{height}" for (height, width), count in sorted(self.sizes.items()))
        what = "frames" if config.frames == 1 else f"clips of {config.frames} frames"
        mirrored = ", each also mirrored" if config.horizontal_flip else ""
        yield f"{self.videos} videos make {self.sizes.total()} {what}: {shapes or 'none'}{mirrored}."
        for title, names in (("Left out", self.left_out), ("Worth a look", self.odd)):
            for name, matter in names[:most]:
                yield f"{title}: {name}: {matter}."
            if len(names) > most:
                yield f"{title}: and {len(names) - most} more, which are in data.txt."


def find_videos(config: Config) -> tuple[list[Video], list[tuple[str, str]]]:
    """The videos of a training, and what was left out for having no caption or no file. Raises DataError."""
    if not config.data.exists():
        raise DataError(f"data: {config.data} is not there.")
    is_table = config.data.suffix.lower() == ".csv"
    if not is_table and not config.data.is_dir():
        raise DataError(f"data: {config.data} is neither a folder nor a .csv file.")
    found = _in_csv(config) if is_table else _in_folder(config)
    if not found[0]:
        why = "; ".join(f"{name}: {matter}" for name, matter in found[1][:3])
        raise DataError(f"data: there is no video with a caption in {config.data}. {why}".rstrip())
    return found


def _in_folder(config: Config) -> tuple[list[Video], list[tuple[str, str]]]:
    videos, left_out = [], []
    by_name: dict[Path, list[Path]] = defaultdict(list)
    for path in _sources(config.data, pictures=config.frames == 1):
        by_name[path.with_suffix("") if path.is_file() else path].append(path)
    for name, paths in sorted(by_name.items()):
        if len(paths) > 1:
            names = " and ".join(path.name for path in paths)
            raise DataError(f"{names} have the same name, so {name.name}.txt could belong to each of them. Rename one.")
        caption = _caption(name.with_name(name.name + ".txt"))
        if caption:
            videos.append(Video(paths[0], caption))
        else:
            left_out.append((paths[0].name, f"it has no caption. Write what is to be seen into {name.name}.txt beside it"))
    return videos, left_out


def _sources(folder: Path, *, pictures: bool) -> Iterator[Path]:
    """Video files and folders of frames, at any depth; with `pictures` also files of single pictures, each with its caption."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            kinds = {file.suffix.lower() for file in path.iterdir()}
            holds_frames = bool(kinds & set(IMAGE_SUFFIXES)) and not kinds & set(VIDEO_SUFFIXES)
            one = holds_frames and (not pictures or path.with_name(f"{path.name}.txt").exists())
            yield from [path] if one else _sources(path, pictures=pictures)
        elif path.suffix.lower() in VIDEO_SUFFIXES or (pictures and path.suffix.lower() in IMAGE_SUFFIXES):
            yield path


def _caption(file: Path) -> str:
    try:
        return " ".join(file.read_text(encoding="utf-8-sig").split())
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise DataError(f"{file.name} is not text in UTF-8.") from error


def _in_csv(config: Config) -> tuple[list[Video], list[tuple[str, str]]]:
    """WebVid's table: `videoid`, `name`, and perhaps `page_dir`, a folder inside that of the videos."""
    assert config.videos is not None
    videos: dict[str, Video] = {}
    left_out = []
    with _as_table(config.data) as table:
        if missing := {"videoid", "name"} - set(table.fieldnames or ()):
            raise DataError(f"{config.data.name} has no column {sorted(missing)[0]!r}. It needs videoid and name.")
        for row in table:
            name, caption = row["videoid"], " ".join((row["name"] or "").split())
            path = _file_of_row(config.videos, row)
            if name in videos:
                raise DataError(f"{config.data.name} has the video {name!r} twice. Delete one of the lines.")
            if path is None:
                left_out.append((name, f"there is no {name}.mp4 in {config.videos.name}"))
            elif not caption:
                left_out.append((name, "it has no caption"))
            else:
                videos[name] = Video(path, caption)
    return list(videos.values()), left_out


@contextmanager
def _as_table(file: Path) -> Iterator[csv.DictReader[str]]:
    """The rows of a CSV file. Raises DataError, also while they are read."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            yield csv.DictReader(stream)
    except UnicodeDecodeError as error:
        raise DataError(f"{file.name} is not text in UTF-8. Save it as “CSV UTF-8”.") from error
    except csv.Error as error:
        raise DataError(f"{file.name} is no table in CSV: {error}.") from error


def _file_of_row(folder: Path, row: dict[str, Any]) -> Path | None:
    """The file that a row means; None if it is not there, or not inside the folder."""
    for part in ("", row.get("page_dir") or ""):
        path = (folder / part / f"{row['videoid']}.mp4").resolve()
        if path.is_relative_to(folder.resolve()) and path.is_file():
            return path
    return None


# --- clips ---


def clips_of(video: Video, config: Config) -> Iterator[Clip]:
    """One clip after another, none over another. Raises UnreadableVideo, also where the video is too short for one."""
    start, count = 0, 0
    frames: list[Frame] = []
    apart = config.stride if config.frames == 1 else config.span
    size: tuple[int, int] | None = None
    for index, frame in enumerate(video):
        count = index + 1
        size = size or shape_for(frame, config.size)
        if (index - start) % config.stride == 0 and len(frames) < config.frames:
            frames.append(resized(frame, size))
        if index - start == apart - 1:
            yield Clip(start, np.stack(frames))
            start, frames = index + 1, []
    if len(frames) == config.frames == 1:
        yield Clip(start, np.stack(frames))
    elif count < config.span:
        raise UnreadableVideo(
            f"it has {count} frames, but {config.frames} frames, one of every {config.stride}, need {config.span}. "
            "Use a longer video, or a smaller stride"
        )


def shape_for(picture: Frame, size: int) -> tuple[int, int]:
    """Height and width of the bucket for a picture: of those with about `size`² pixels, the nearest in shape."""
    aspect = np.log(picture.shape[1] / picture.shape[0])
    widths = range(SIZE_STEP, 2 * size + 1, SIZE_STEP)
    buckets = [(max(SIZE_STEP, round(size * size / width / SIZE_STEP) * SIZE_STEP), width) for width in widths]
    return min(buckets, key=lambda bucket: (abs(np.log(bucket[1] / bucket[0]) - aspect), abs(bucket[0] * bucket[1] - size**2)))


_SIDES = {"left": "right", "right": "left"}


def mirrored_caption(caption: str) -> str:
    """The caption of the mirrored clip: left for right, and right for left."""

    def other(match: re.Match[str]) -> str:
        word = _SIDES[match[0].lower()]
        return word.upper() if match[0].isupper() else word.capitalize() if match[0][0].isupper() else word

    return re.sub(r"\b(?:left|right)(?=\b|wards?\b|most\b)", other, caption, flags=re.IGNORECASE)
