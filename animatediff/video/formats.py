"""The formats that videos are written in, and which of them this machine can write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import ffmpeg, gif, webp_apng
from .clip import Clip, Quality


@dataclass(frozen=True)
class VideoFormat:
    """`is_picture`: whether Pillow opens it and a browser shows it as a picture."""

    suffix: str
    is_picture: bool
    encode: Callable[[Clip, Quality], bytes]
    problem: Callable[[], str] = lambda: ""
    """Why it cannot be written here; empty where it can."""


VIDEO_FORMATS = {
    "GIF": VideoFormat(".gif", True, gif.encode_gif),
    "WEBP": VideoFormat(".webp", True, webp_apng.encode_webp, webp_apng.webp_problem),
    "APNG": VideoFormat(".png", True, webp_apng.encode_apng),
    "MP4": VideoFormat(".mp4", False, ffmpeg.encode_mp4, ffmpeg.problem),
    "WEBM": VideoFormat(".webm", False, ffmpeg.encode_webm, ffmpeg.problem),
}
"""By the names under which requests ask for them, pictures first: in this order they are shown and answered."""


def is_picture(name: str) -> bool:
    """Whether what a request asks for by this name can be opened as a picture, or is only written to disk."""
    return name not in VIDEO_FORMATS or VIDEO_FORMATS[name].is_picture


def format_problems() -> dict[str, str]:
    """The formats that cannot be written on this machine, and why."""
    return {name: problem for name, video_format in VIDEO_FORMATS.items() if (problem := video_format.problem())}
