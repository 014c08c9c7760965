"""MP4 and WebM in the WebUI's tab PNG Info, which accepts only images."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from ..video import ffmpeg
from .events import in_sentences
from .upload_controls import Upload

log = logging.getLogger("AnimateDiff")
FILE_TYPES = [".mp4", ".webm"]


def add_to_page(component: Any, **facts: Any) -> None:
    """`on_after_component`: adds an upload of videos after the tab's upload of images.

    A video is replaced by its first frame with the video's infotext, which the tab handles like any image.
    """
    if facts.get("elem_id") == "pnginfo_image":
        video = Upload(label="Or a video: MP4, WebM", file_types=FILE_TYPES, elem_id="pnginfo-ad-video")
        video.upload(in_sentences(_as_picture), [video], [component], show_progress=False)


def _as_picture(upload: str) -> Image.Image:
    path = Path(upload)
    try:
        picture, infotext = ffmpeg.read_frame(path, 0), ffmpeg.read_infotext(path)
    except OSError as error:
        log.error("PNG Info: %s: %s", path, error)
        raise gr.Error(f"{path.name} is not an MP4 or WebM video that can be read. Choose another file.") from error
    if infotext:
        picture.info["parameters"] = infotext
    return picture
