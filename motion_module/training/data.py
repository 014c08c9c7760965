"""The videos of a training, the clips that are cut from them, and a report on those that cannot be used."""

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

from ..errors import UnreadableVideo, UserError
from ..pictures import Frame
from ..video_reader import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Video, entries_of, pictures_in, resized
from .config import SIZE_STEP, Config

LEAST_MOTION = 0.5
"""A clip is reported as motionless if no frame differs from the first one by more than this mean pixel value (of 0 to 255)."""
LEAST_CUT, CUT_FACTOR = 25.0, 5.0
"""A change between frames is reported as a cut if it is above this mean pixel value and this multiple of the clip's median."""


class DataError(UserError):
    """The training data cannot be used. The text is for the user."""


@dataclass(frozen=True)
class Clip:
    """A clip from a video. `start`: its first frame in the video. `frames`: `(frames, height, width, 3)`."""

    start: int
    frames: NDArray[np.uint8]

    @property
    def suspicion(self) -> str:
        """Why the clip may be unsuitable, in words; empty if nothing is suspicious."""
        frames = self.frames.astype(np.float32)
        steps = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
        if len(steps) == 0:
            return ""
        if np.abs(frames - frames[0]).mean(axis=(1, 2, 3)).max() < LEAST_MOTION:
            return "nothing moves"
        largest = int(steps.argmax())
        if steps[largest] > max(LEAST_CUT, CUT_FACTOR * float(np.median(steps))):
            return f"there seems to be a cut after its frame {largest + 1}"
        return ""


@dataclass
class Report:
    """A report on the videos of a training. `suspicious`, `left_out`: names of videos or clips, and the reason."""

    videos: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    suspicious: list[tuple[str, str]] = field(default_factory=list)

    def lines(self, config: Config, most: int = 10) -> Iterator[str]:
        """Yields the report line by line for the user, with at most `most` names of a kind."""
        shapes = ", ".join(f"{count} of {width}×{height}" for (height, width), count in sorted(self.sizes.items()))
        what = "frames" if config.frames == 1 else f"clips of {config.frames} frames"
        mirrored = ", each also mirrored" if config.horizontal_flip else ""
        yield f"{self.videos} videos make {self.sizes.total()} {what}: {shapes or 'none'}{mirrored}."
        for title, names in (("Left out", self.left_out), ("Check this clip", self.suspicious)):
            for name, reason in names[:most]:
                yield f"{title}: {name}: {reason}."
            if len(names) > most:
                yield f"{title}: {len(names) - most} more, listed in data.txt."


def find_videos(config: Config) -> tuple[list[Video], list[tuple[str, str]]]:
    """Returns the videos of a training, and names and reasons of those that are left out. Raises DataError."""
    if not config.data.exists():
        raise DataError(f"data: {config.data} does not exist. Set it to a folder, or to a CSV file.")
    is_table = config.data.suffix.lower() == ".csv"
    if not is_table and not config.data.is_dir():
        raise DataError(f"data: {config.data} is neither a folder nor a .csv file. Set it to one of them.")
    found = _in_csv(config) if is_table else _in_folder(config)
    if not found[0]:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in found[1][:3])
        raise DataError(f"data: there is no video with a caption in {config.data}. {reasons}".rstrip())
    return found


def _in_folder(config: Config) -> tuple[list[Video], list[tuple[str, str]]]:
    videos, left_out = [], []
    by_name: dict[Path, list[Path]] = defaultdict(list)
    for path in _sources(config.data, images=config.frames == 1):
        by_name[path.with_suffix("") if path.is_file() else path].append(path)
    for name, paths in sorted(by_name.items()):
        if len(paths) > 1:
            names = " and ".join(path.name for path in paths)
            raise DataError(f"{names} have the same name, so {name.name}.txt could belong to each of them. Rename one of them.")
        caption = _caption(name.with_name(name.name + ".txt"))
        if caption:
            videos.append(Video(paths[0], caption))
        else:
            left_out.append((paths[0].name, f"it has no caption. Describe the video in {name.name}.txt in the same folder"))
    return videos, left_out


def _sources(folder: Path, *, images: bool) -> Iterator[Path]:
    """Yields video files and folders of frames at any depth; with `images` also single images, each with its caption."""
    for path in entries_of(folder):
        if path.is_dir():
            has_videos = any(file.suffix.lower() in VIDEO_SUFFIXES and file.is_file() for file in entries_of(path))
            holds_frames = bool(pictures_in(path)) and not has_videos
            is_video = holds_frames and (not images or path.with_name(f"{path.name}.txt").exists())
            yield from [path] if is_video else _sources(path, images=images)
        elif path.suffix.lower() in VIDEO_SUFFIXES or (images and path.suffix.lower() in IMAGE_SUFFIXES):
            yield path


def _caption(file: Path) -> str:
    try:
        return " ".join(file.read_text(encoding="utf-8-sig").split())
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise DataError(f"{file.name} is not text in UTF-8. Save it with this encoding.") from error


def _in_csv(config: Config) -> tuple[list[Video], list[tuple[str, str]]]:
    """Reads WebVid's table: `videoid`, `name`, and optionally `page_dir`, a folder inside that of the videos."""
    assert config.videos is not None
    videos: dict[str, Video] = {}
    left_out = []
    with _as_table(config.data) as table:
        if missing := {"videoid", "name"} - set(table.fieldnames or ()):
            raise DataError(f"{config.data.name} has no column {sorted(missing)[0]!r}. Add it: videoid and name are required.")
        for row in table:
            name, caption = row["videoid"], " ".join((row["name"] or "").split())
            path = _file_of_row(config.videos, row)
            if name in videos:
                raise DataError(f"{config.data.name} has the video {name!r} twice. Delete one of the rows.")
            if path is None:
                left_out.append((name, f"there is no {name}.mp4 in {config.videos.name}"))
            elif not caption:
                left_out.append((name, "it has no caption"))
            else:
                videos[name] = Video(path, caption)
    return list(videos.values()), left_out


@contextmanager
def _as_table(file: Path) -> Iterator[csv.DictReader[str]]:
    """Yields the rows of a CSV file. Raises DataError, also while they are read."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            yield csv.DictReader(stream)
    except UnicodeDecodeError as error:
        raise DataError(f"{file.name} is not text in UTF-8. Save it as “CSV UTF-8”.") from error
    except csv.Error as error:
        raise DataError(f"{file.name} is not a CSV file: {error}. Correct it, or save it as CSV again.") from error


def _file_of_row(folder: Path, row: dict[str, Any]) -> Path | None:
    """Returns the file of a row; None if it does not exist or is outside of the folder."""
    for part in ("", row.get("page_dir") or ""):
        path = (folder / part / f"{row['videoid']}.mp4").resolve()
        if path.is_relative_to(folder.resolve()) and path.is_file():
            return path
    return None


# --- clips ---


def clips_of(video: Video, config: Config) -> Iterator[Clip]:
    """Yields consecutive clips that do not overlap. Raises UnreadableVideo, also if the video is too short for one clip."""
    start, count = 0, 0
    frames: list[Frame] = []
    advance = config.stride if config.frames == 1 else config.span
    size: tuple[int, int] | None = None
    for index, frame in enumerate(video):
        count = index + 1
        size = size or shape_for(frame, config.size)
        if (index - start) % config.stride == 0 and len(frames) < config.frames:
            frames.append(resized(frame, size))
        if index - start == advance - 1:
            yield Clip(start, np.stack(frames))
            start, frames = index + 1, []
    if len(frames) == config.frames == 1:
        yield Clip(start, np.stack(frames))
    elif count < config.span:
        raise UnreadableVideo(
            f"it has {count} frame{'s' * (count > 1)}, but a clip of {config.frames} frames with stride {config.stride} needs "
            f"{config.span}. Use a longer video, or a smaller stride"
        )


def shape_for(frame: Frame, size: int) -> tuple[int, int]:
    """Returns height and width of the bucket for a frame: the nearest in aspect ratio with about `size`² pixels."""
    aspect = np.log(frame.shape[1] / frame.shape[0])
    widths = range(SIZE_STEP, 2 * size + 1, SIZE_STEP)
    buckets = [(max(SIZE_STEP, round(size * size / width / SIZE_STEP) * SIZE_STEP), width) for width in widths]
    return min(buckets, key=lambda bucket: (abs(np.log(bucket[1] / bucket[0]) - aspect), abs(bucket[0] * bucket[1] - size**2)))


_SIDES = {"left": "right", "right": "left"}


def mirrored_caption(caption: str) -> str:
    """Returns the caption of a mirrored clip, in which left and right are exchanged."""

    def other(match: re.Match[str]) -> str:
        word = _SIDES[match[0].lower()]
        return word.upper() if match[0].isupper() else word.capitalize() if match[0][0].isupper() else word

    return re.sub(r"\b(?:left|right)(?=\b|wards?\b|most\b)", other, caption, flags=re.IGNORECASE)
