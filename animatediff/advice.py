"""What a motion module is, how its authors sample it, and what of the settings contradicts that: said, never overridden."""

from __future__ import annotations

import html
import re
from typing import Any

import gradio as gr

from motion_module.checkpoint import Description
from motion_module.families import FAMILIES, Advice, Family
from motion_module.files import CheckpointError

from . import library, samplers
from .page import Page
from .params import AS_FOUND, RequestError
from .plan import Plan

CONTROLS = ["sampling", "scheduler", "steps", "cfg_scale", "denoising_strength"]


def warnings(p: Any, plan: Plan) -> list[str]:
    """For the answer: contradictions between a request and the family of its motion module."""
    family, found = plan.family, []
    settings = p.sampler_name or "", samplers.label(p.scheduler), p.steps, p.cfg_scale
    if contradictions := family.advice.contradictions(*settings):
        found.append(f"{family.title} is made for {spoken(family.advice)}, but {'; '.join(contradictions)}.")
    if family.lora and not re.search(r"<(lora|lyco):[^:>]*lcm", p.prompt, re.IGNORECASE):
        found.append(f"{family.title} needs its LoRA beside it: write <lora:{family.lora}:0.8> in the prompt.")
    if plan.second and plan.second.description.require_motion_module().schedule != family.schedule:
        found.append("The two motion modules were trained on different noise schedules; that of the first is used.")
    return [f"AnimateDiff: {text}" for text in found]


def spoken(advice: Advice) -> str:
    parts = [advice.sampler]
    if advice.schedule_type != "Automatic":
        parts.append(advice.schedule_type)
    parts += [f"{advice.steps} step{'s' * (advice.steps > 1)}", f"CFG {advice.cfg:g}"]
    if advice.motion_scale != 1:
        parts.append(f"motion scale {advice.motion_scale:g}")
    if advice.denoising is not None:
        parts.append(f"denoising strength {advice.denoising:g}")
    return ", ".join(parts)


def first_html(model: str) -> str:
    """What is said before the settings of the page are known."""
    try:
        return as_html(*_chosen(model, AS_FOUND), [])
    except (RequestError, CheckpointError):
        return ""


def connect(page: Page, controls: dict[str, Any], shown: gr.HTML, button: gr.Button) -> None:
    """Keeps `shown` up to date, and lets `button` set the WebUI's own controls as the authors do."""

    def text(model: str, family: str, sampler: str, schedule_type: str, steps: float, cfg: float, _denoising: float) -> str:
        try:
            description, chosen = _chosen(model, family)
        except (RequestError, CheckpointError):
            return ""  # the notice above, or Generate, says what is wrong
        return as_html(description, chosen, chosen.advice.contradictions(sampler, schedule_type, steps, cfg))

    def settings(model: str, family: str) -> list[Any]:
        try:
            advice = _chosen(model, family)[1].advice
        except (RequestError, CheckpointError) as error:
            raise gr.Error(str(error)) from error
        denoising = gr.update() if advice.denoising is None else advice.denoising
        return [advice.sampler, advice.schedule_type, advice.steps, advice.cfg, denoising, advice.motion_scale]

    def join(webuis: list[Any]) -> None:
        module = [controls["model"], controls["family"]]
        for control in (*module, *webuis):
            control.change(text, [*module, *webuis], [shown], show_progress=False, queue=False)
        button.click(settings, module, [*webuis, controls["motion_scale"]], show_progress=False, queue=False)

    page.when_there("advice", CONTROLS, join)


def as_html(description: Description, family: Family, contradictions: list[str]) -> str:
    """Labels stand alone, so that they can be translated."""
    parts = [f"<strong>{html.escape(family.title)}</strong>"]
    if family is description.family and description.assumed:
        parts.append("<span>assumed from its name; if that is wrong, choose the family under “Motion”</span>")
    parts.append(f"<span>made for</span> <code>{html.escape(spoken(family.advice))}</code>")
    if family.lora:
        parts.append(f"<span>needs in the prompt</span> <code>&lt;lora:{family.lora}:0.8&gt;</code>")
    text = " · ".join(parts)
    if contradictions:
        text += f"<br><strong><span>Your settings contradict that:</span> {html.escape('; '.join(contradictions))}.</strong>"
    return text


def _chosen(model: str, family: str) -> tuple[Description, Family]:
    description = library.what_it_is(library.find(model or ""))
    found = description.require_motion_module()
    return description, found if family in ("", AS_FOUND) else FAMILIES[family]
