"""The button that draws a motion mask over the first frame. `javascript/animatediff_mask.js` shows the drawing."""

from __future__ import annotations

from typing import Any

import gradio as gr
from PIL import Image

from ..request.base64_pictures import decoded
from .events import in_sentences
from .gradio_versions import javascript


def add_beside(mask: Any, drawing: str) -> None:
    """Adds the button, and hidden controls for its script: the drawing in base64, and a button that takes it as the mask.

    `drawing`: the beginning of their element ids.
    """
    button = gr.Button("Draw", elem_id=drawing, scale=0, min_width=80)
    button.click(None, [], [], **javascript(f"() => window.animateDiffMask?.draw('{drawing}')"))
    drawn = gr.Textbox(visible=False, elem_id=f"{drawing}-drawn")
    use = gr.Button("", visible=False, elem_id=f"{drawing}-use")
    use.click(in_sentences(_picture), [drawn], [mask], show_progress=False)


def _picture(drawn: str) -> Image.Image:
    return decoded("The drawing", drawn)
