"""The formats of videos, and which of them this machine can write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import ffmpeg, gif, webp_apng
from .clip import Clip, Quality


@dataclass(frozen=True)
class VideoFormat:
    """How one format is encoded and shown."""

    suffix: str
    is_picture: bool
    """Whether Pillow opens it and a browser shows it as an image; the others are played as videos."""
    encode: Callable[[Clip, Quality], bytes]
    problem: Callable[[], str] = lambda: ""
    """Returns why this machine cannot write it; empty if it can."""


VIDEO_FORMATS = {
    "GIF": VideoFormat(".gif", True, gif.encode_gif),
    "WEBP": VideoFormat(".webp", True, webp_apng.encode_webp, webp_apng.webp_problem),
    "APNG": VideoFormat(".png", True, webp_apng.encode_apng),
    "MP4": VideoFormat(".mp4", False, ffmpeg.encode_mp4, ffmpeg.problem),
    "WEBM": VideoFormat(".webm", False, ffmpeg.encode_webm, ffmpeg.problem),
}
"""By the names that requests use. Videos are shown and returned in this order: images first."""


def is_picture(name: str) -> bool:
    """Returns whether a value of the request's `format` is anything but a video that only a player shows."""
    return name not in VIDEO_FORMATS or VIDEO_FORMATS[name].is_picture


def format_problems() -> dict[str, str]:
    """Returns the formats that this machine cannot write, each with the reason."""
    return {name: problem for name, video_format in VIDEO_FORMATS.items() if (problem := video_format.problem())}
