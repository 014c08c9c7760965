"""What the page shows where the panel cannot be built: the WebUI and its API work all the same."""

from __future__ import annotations

import gradio as gr

from ..errors import failure
from .controls import ElemId


def show(error: Exception, elem_id: ElemId) -> list[gr.components.Component]:
    """Shows why there is no panel. Returns one control, in whose place the API still takes a request."""
    text = failure(error, "AnimateDiff could not build its panel for this WebUI")
    with gr.Accordion("AnimateDiff is off", open=True):
        gr.HTML(f"<p>{text}</p>", elem_id=elem_id("no-panel"))
    return [gr.Checkbox(False, visible=False, elem_id=elem_id("no-panel-request"))]
