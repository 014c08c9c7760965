"""The button that puts the settings of an unfinished video back into the page, so that Generate resumes it."""

from __future__ import annotations

from typing import Any

import gradio as gr
from modules.infotext_utils import ParamBinding, register_paste_params_button

from ..job import resume_store
from .controls import ElemId
from .events import in_sentences
from .gradio_versions import javascript

REFRESH = {"fn": None, **javascript("() => window.animateDiffUnfinished?.refresh()"), "show_progress": False}


def add_to_panel(tab: str, elem_id: ElemId) -> None:
    """Adds the button, which is visible while this tab has an unfinished video."""
    button = gr.Button("Resume the unfinished video", visible=False, elem_id=elem_id("resume"), size="sm")
    infotext = gr.Textbox(visible=False, elem_id=elem_id("resume-infotext"))
    refresh = gr.Button("", visible=False, elem_id=elem_id("resume-refresh"))  # pressed by the page's script

    def newest() -> tuple[Any, str]:
        texts = [video["infotext"] for video in resume_store.descriptions() if video["tab"] == tab]
        return gr.update(visible=bool(texts)), next(iter(texts), "")

    refresh.click(in_sentences(newest), [], [button, infotext], show_progress=False, queue=False)
    register_paste_params_button(ParamBinding(button, tabname=tab, source_text_component=infotext))


def add_to_page(component: Any, **facts: Any) -> None:
    """`on_after_component`: updates the button after every answer of the WebUI."""
    if facts.get("elem_id") in ("generation_info_txt2img", "generation_info_img2img"):
        component.change(**REFRESH)
