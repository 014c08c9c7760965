"""The player of MP4 and WebM below the gallery. `javascript/animatediff_player.js` draws it; here are its server functions."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import gradio as gr
from modules import shared, ui_tempdir, util
from modules.infotext_utils import ParamBinding, register_paste_params_button
from PIL import Image

from ..video import ffmpeg
from .events import in_sentences
from .gradio_versions import javascript
from .upload_controls import Picture

log = logging.getLogger("AnimateDiff")
TABS = ("txt2img", "img2img")
DESTINATIONS = ("img2img", "inpaint")


def add_to_page(component: Any, **facts: Any) -> None:
    """`on_after_component`: adds the player after each gallery, and passes it every answer of the WebUI."""
    for tab in TABS:
        if facts.get("elem_id") == f"{tab}_gallery_container":
            _build(tab)
        elif facts.get("elem_id") == f"generation_info_{tab}":
            component.change(None, [component], [], **javascript(f"answer => animateDiffPlayer.show('{tab}', answer)"))


def _build(tab: str) -> None:
    """Adds an element for the player, and hidden controls for its script: a request as JSON, and a button for each action."""
    gr.HTML(elem_id=f"{tab}-ad-player")
    request = gr.Textbox(visible=False, elem_id=f"{tab}-ad-player-request")
    frame = Picture(visible=False, type="pil", elem_id=f"{tab}-ad-player-frame")
    folder = gr.Button("", visible=False, elem_id=f"{tab}-ad-player-folder")
    folder.click(in_sentences(_open_folder), [request], [], show_progress=False)
    for destination in DESTINATIONS:
        fetch = gr.Button("", visible=False, elem_id=f"{tab}-ad-player-to-{destination}")
        send = gr.Button("", visible=False, elem_id=f"{tab}-ad-player-send-{destination}")
        fetch.click(in_sentences(_frame), [request], [frame], show_progress=False).success(
            None, [], [], **javascript(f"() => animateDiffPlayer.press('{tab}', 'send-{destination}')")
        )
        source = "txt2img" if tab == "txt2img" else None  # like the buttons of the gallery, which send the prompt too
        register_paste_params_button(
            ParamBinding(send, tabname=destination, source_tabname=source, source_image_component=frame)
        )


def _frame(request: str) -> Image.Image:
    """Returns the frame that a request names: its saved file, or else the frame of the video."""
    file, index = _parsed(request)
    saved = file.with_suffix("") / f"{index:05}.png"
    try:
        return Image.open(saved) if saved.is_file() else ffmpeg.read_frame(file, index)
    except OSError as error:
        log.error("Frame %d of %s: %s", index + 1, file, error)
        raise gr.Error(f"Frame {index + 1} of {file.name} cannot be read. Generate the video again.") from error


def _open_folder(request: str) -> None:
    if not shared.cmd_opts.hide_ui_dir_config:
        util.open_folder(str(_parsed(request)[0].parent))


def _parsed(request: str) -> tuple[Path, int]:
    """Returns the video and the frame number of a request. Only files that the page was given are allowed."""
    fields = json.loads(request)
    if not ui_tempdir.check_tmp_file(shared.demo, fields["file"]):
        raise gr.Error("This video was not made since the WebUI started. Generate it again.")
    return Path(fields["file"]), int(fields["frame"])
