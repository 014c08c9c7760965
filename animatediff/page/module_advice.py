"""The line below the motion module: its family, the recommended settings, and which of the present ones differ."""

from __future__ import annotations

import html
from typing import Any

import gradio as gr

from motion_module.checkpoint import Description
from motion_module.families import Family
from motion_module.weight_files import CheckpointError

from ..errors import RequestError
from ..job.advice import spoken
from ..request import module_files
from .chosen_module import described
from .events import in_sentences
from .webui_controls import Page

CONTROLS = ["sampling", "scheduler", "steps", "cfg_scale", "width", "height", "denoising_strength"]


def add_to_panel(page: Page, controls: dict[str, Any], shown: gr.HTML, button: gr.Button) -> None:
    """Keeps `shown` up to date, and lets `button` set the WebUI's own controls as recommended."""

    def settings(model: str, family: str, width: int, height: int) -> list[Any]:
        try:
            advice = described(model, family)[1].advice
        except (RequestError, CheckpointError) as error:
            raise gr.Error(str(error)) from error
        size = [advice.side] * 2 if advice.is_far_from(width, height) else [gr.update()] * 2
        denoising = gr.update() if advice.denoising is None else advice.denoising
        return [advice.sampler, advice.schedule_type, advice.steps, advice.cfg, *size, denoising, advice.motion_scale]

    def connect(webuis: list[Any]) -> None:
        module = [controls["model"], controls["family"]]
        shown.value = _text(*(control.value for control in (*module, *webuis)))
        for control in (*module, *webuis):
            control.change(in_sentences(_text), [*module, *webuis], [shown], show_progress=False, queue=False)
        size = [webuis[CONTROLS.index(name)] for name in ("width", "height")]
        outputs = [*webuis, controls["motion_scale"]]
        button.click(in_sentences(settings), [*module, *size], outputs, show_progress=False, queue=False)

    page.when_made("advice", CONTROLS, connect)


def _text(model: str | None, family: str, *settings: Any) -> str:
    """Returns HTML for the values of the motion module's and the WebUI's controls."""
    if not model:
        return "<strong><span>Choose a motion module.</span></strong>" if module_files.names() else ""
    try:
        description, chosen = described(model, family)
    except (RequestError, CheckpointError) as error:
        return f"<strong>{html.escape(str(error))}</strong>"
    *of_sampling, _denoising = settings
    return as_html(description, chosen, chosen.advice.contradictions(*of_sampling))


def as_html(description: Description, family: Family, contradictions: list[str]) -> str:
    """Returns the line as HTML. Labels are elements of their own, because the WebUI translates whole texts."""
    parts = [f"<strong>{html.escape(family.title)}</strong>"]
    if family is description.family and description.assumed:
        parts.append("<span>a guess; if it is wrong, choose the family under “Advanced”</span>")
    parts.append(f"<span>recommended:</span> <code>{html.escape(spoken(family.advice))}</code>")
    parts.append(f"<span>for checkpoints of type</span> <code>{html.escape(family.base)}</code>")
    if family.lora:
        parts.append(f"<span>needs in the prompt:</span> <code>&lt;lora:{family.lora}:0.8&gt;</code>")
    text = " · ".join(parts)
    if contradictions:
        text += f"<br><strong><span>Your settings differ:</span> {html.escape('; '.join(contradictions))}.</strong>"
    return text
