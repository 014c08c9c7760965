"""Pictures for single frames of a clip, as a request gives them (imports nothing of the WebUI)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ..errors import RequestError, shown
from .base64_pictures import decoded

KEYS = ("frame", "image", "path")
_SEPARATORS = re.compile(r"[\s,;]+")
_FRAME = re.compile(r"[+-]?\d{1,9}")


@dataclass(frozen=True)
class FramePicture:
    """A picture, or the path of its file on the server. `frame`: counted from the end if negative; None if not said here."""

    image: Image.Image | None = None
    path: str = ""
    frame: int | None = None


@dataclass(frozen=True)
class SparseAsked:
    """What a request asks of one SparseCtrl model. `frames`: as text, those of pictures that do not say theirs."""

    model: str
    pictures: tuple[FramePicture, ...] = ()
    frames: str = ""
    init_image: bool = False
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0


def read_pictures(name: str, value: Any) -> tuple[FramePicture, ...]:
    """Reads a list of pictures in base64 and of objects with a picture and its frame, or one of them alone.

    `name`: as errors call it. Raises RequestError.
    """
    if value in ("", [], ()):
        return ()
    given = value if isinstance(value, (list, tuple)) else [value]
    return tuple(_read_picture(f"{name}, picture {number},", one) for number, one in enumerate(given, start=1))


def _read_picture(name: str, value: Any) -> FramePicture:
    if isinstance(value, FramePicture):
        return value
    if isinstance(value, Image.Image):
        return FramePicture(value)
    if isinstance(value, str):
        return FramePicture(decoded(name, value))
    if not isinstance(value, Mapping) or set(value) - {*KEYS} or ("image" in value) == ("path" in value):
        raise RequestError(
            f"{name} is {shown(value)}, but must be a picture in base64, or an object with “image” (base64) or “path” and, if "
            "wanted, “frame”."
        )
    frame = value.get("frame")
    if frame is not None and (type(frame) is not int or not _FRAME.fullmatch(str(frame))):
        raise RequestError(f"{name} has the frame {shown(frame)}, but must have a whole number, such as 0 or -1 for the last.")
    if not isinstance(given := value.get("image", value.get("path")), str) or not given:
        raise RequestError(f"{name} is {shown(given)}, but must be text: base64 in “image”, or a path in “path”.")
    if "path" in value:
        return FramePicture(path=given, frame=frame)
    return FramePicture(decoded(name, given), frame=frame)


def read_frames(name: str, text: str) -> list[int]:
    """Reads numbers of frames, such as "0, 8, -1". Raises RequestError."""
    words = [word for word in _SEPARATORS.split(text) if word]
    for word in words:
        if not _FRAME.fullmatch(word):
            raise RequestError(
                f"{name} has {shown(word)}, which is no number of a frame. Write whole numbers such as 0, 8, -1: frames count "
                "from 0, and -1 is the last one."
            )
    return [int(word) for word in words]


def placed(said: Sequence[int | None], listed: Sequence[int], frames: int, name: str) -> list[int]:
    """Returns the frame of each picture in a clip of `frames` frames, from 0.

    `said`: what the pictures say themselves. The others have those that are `listed`, in turn; if none are, all of them are
    spread evenly from the first frame to the last. `name`: of the list, as errors call it. Raises RequestError.
    """
    silent = said.count(None)
    if listed and silent != len(listed):
        raise RequestError(
            f"{name} has {len(listed)} numbers, but {silent} {'picture needs' if silent == 1 else 'pictures need'} one. Write "
            "a number for each picture, or leave it empty to spread them evenly."
        )
    if not listed and silent:
        steps = max(len(said) - 1, 1)
        numbers = [round(index * (frames - 1) / steps) if frame is None else frame for index, frame in enumerate(said)]
    else:
        waiting = iter(listed)
        numbers = [next(waiting) if frame is None else frame for frame in said]
    found: list[int] = []
    for number in numbers:
        frame = number + frames if number < 0 else number
        if not 0 <= frame < frames:
            raise RequestError(
                f"A picture for SparseCtrl is for frame {number}, but the {frames} frames of the video have the numbers from "
                "0. Name another frame, or set a larger Number of frames (video_length)."
            )
        if frame in found:
            raise RequestError(f"Two pictures for SparseCtrl are for frame {frame}. Give each frame one picture at most.")
        found.append(frame)
    return found
