"""Encodes animated WebP and APNG with Pillow."""

from __future__ import annotations

from typing import Any

import piexif
import piexif.helper
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from .clip import Clip, Quality
from .pillow import frame_durations, saved


def encode_webp(clip: Clip, quality: Quality) -> bytes:
    first, *rest = clip.rgb
    options: dict[str, Any] = {"exif": _exif(clip.infotext)} if clip.infotext else {}
    durations = frame_durations(len(clip.frames), clip.fps, 1)
    options |= {"quality": quality.webp_quality, "lossless": quality.webp_lossless, "loop": clip.plays}
    return saved(first, "WEBP", save_all=True, append_images=rest, duration=durations, **options)


def encode_apng(clip: Clip, _quality: Quality) -> bytes:
    """Returns an APNG, which is lossless. Programs that do not know animation show its first frame."""
    first, *rest = clip.rgb
    text = PngInfo()
    if clip.infotext:
        text.add_itxt("parameters", clip.infotext)
    durations = frame_durations(len(clip.frames), clip.fps, 1)
    return saved(first, "PNG", save_all=True, append_images=rest, duration=durations, loop=clip.plays, pnginfo=text)


def webp_problem() -> str:
    """Asks the table of writers, since Pillow 12 no longer knows the feature `webp_anim`, which it always has."""
    Image.init()
    return "" if "WEBP" in Image.SAVE_ALL else "this Pillow cannot write animated WebP"


def _exif(text: str) -> bytes:
    """Returns Exif data with the text as user comment, where the WebUI looks for it."""
    comment = piexif.helper.UserComment.dump(text, encoding="unicode")
    return piexif.dump({"Exif": {piexif.ExifIFD.UserComment: comment}})
