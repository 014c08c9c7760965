"""What a motion module is, how its authors sample it, and what of the settings contradicts that: said, never overridden."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import gradio as gr

from motion_module.checkpoint import Description
from motion_module.families import Advice, Family
from motion_module.weight_files import CheckpointError

from ..errors import RequestError
from ..page.webui_controls import Page
from ..request import module_files
from ..request.params import AS_FOUND
from ..request.plan import Plan, chosen_family
from . import samplers

DISTILLED = re.compile(r"(?i:lightning|turbo|hyper[-_ ]?sd)|(?<![A-Za-z])(?i:lcm)(?![a-z])|(?<=[a-z])LCM(?![a-z])")
"""In names of checkpoints that were distilled to few steps, with guidance in their weights."""
DISTILLED_STEPS, DISTILLED_CFG = 10, 3
"""The most that authors of such checkpoints recommend."""
CONTROLS = ["sampling", "scheduler", "steps", "cfg_scale", "width", "height", "denoising_strength"]


def warnings(p: Any, plan: Plan) -> list[str]:
    """For the answer: contradictions between a request and the family of its motion module."""
    family, found = plan.family, []
    settings = p.sampler_name or "", samplers.label(p.scheduler), p.steps, p.cfg_scale, p.width, p.height
    if contradictions := family.advice.contradictions(*settings):
        found.append(f"{family.title} is made for {spoken(family.advice)}, but {'; '.join(contradictions)}.")
    places = {place for description in plan.descriptions for place in description.channels or {}}
    idle = (rule.block for rule in plan.controls.rules if not any(rule.is_for(place) for place in places))
    found += [
        f"A motion rule is for {place}, where the motion module has no layer, so it does nothing. Leave it out."
        for place in idle
    ]
    return [f"AnimateDiff: {text}" for text in found]


def distilled(p: Any, checkpoint: str) -> list[str]:
    """A warning where the name of the loaded checkpoint says that it is made for other settings."""
    if not DISTILLED.search(Path(checkpoint).name) or (p.steps <= DISTILLED_STEPS and p.cfg_scale <= DISTILLED_CFG):
        return []
    made_for = f"made for up to {DISTILLED_STEPS} steps and a CFG scale of 1 to {DISTILLED_CFG}"
    found = f"but these are {p.steps} and {p.cfg_scale:g}. Lower them, or choose another checkpoint."
    return [f"AnimateDiff: By its name, the checkpoint {checkpoint} is {made_for}, {found}"]


def missing_lora(family: Family, names: list[str]) -> list[str]:
    """A warning where a family needs a LoRA that is not among those in the prompt."""
    if not family.lora or any("lcm" in name.lower() for name in names):
        return []
    return [f"AnimateDiff: {family.title} needs its LoRA beside it: write <lora:{family.lora}:0.8> in the prompt."]


def spoken(advice: Advice) -> str:
    parts = [advice.sampler]
    if advice.schedule_type != "Automatic":
        parts.append(advice.schedule_type)
    parts += [f"{advice.steps} step{'s' * (advice.steps > 1)}", f"CFG {advice.cfg:g}"]
    if advice.side:
        parts.append(f"about {advice.side}×{advice.side}")
    if advice.motion_scale != 1:
        parts.append(f"motion scale {advice.motion_scale:g}")
    if advice.denoising is not None:
        parts.append(f"denoising strength {advice.denoising:g}")
    return ", ".join(parts)


def connect(page: Page, controls: dict[str, Any], shown: gr.HTML, button: gr.Button) -> None:
    """Keeps `shown` up to date, and lets `button` set the WebUI's own controls as the authors do."""

    def text(model: str, family: str, *settings: Any) -> str:
        try:
            description, chosen = _chosen(model, family)
        except RequestError as error:
            return f"<strong>{html.escape(str(error))}</strong>" if family != AS_FOUND else ""  # else the notice above says it
        except CheckpointError as error:
            return f"<strong>{html.escape(str(error))}</strong>"
        *of_sampling, _denoising = settings
        return as_html(description, chosen, chosen.advice.contradictions(*of_sampling))

    def settings(model: str, family: str, width: int, height: int) -> list[Any]:
        try:
            advice = _chosen(model, family)[1].advice
        except (RequestError, CheckpointError) as error:
            raise gr.Error(str(error)) from error
        size = [advice.side] * 2 if advice.is_far_from(width, height) else [gr.update()] * 2
        denoising = gr.update() if advice.denoising is None else advice.denoising
        return [advice.sampler, advice.schedule_type, advice.steps, advice.cfg, *size, denoising, advice.motion_scale]

    def join(webuis: list[Any]) -> None:
        module = [controls["model"], controls["family"]]
        shown.value = text(*(control.value for control in (*module, *webuis)))
        for control in (*module, *webuis):
            control.change(text, [*module, *webuis], [shown], show_progress=False, queue=False)
        size = [webuis[CONTROLS.index(name)] for name in ("width", "height")]
        outputs = [*webuis, controls["motion_scale"]]
        button.click(settings, [*module, *size], outputs, show_progress=False, queue=False)

    page.when_there("advice", CONTROLS, join)


def as_html(description: Description, family: Family, contradictions: list[str]) -> str:
    """Labels stand alone, so that they can be translated."""
    parts = [f"<strong>{html.escape(family.title)}</strong>"]
    if family is description.family and description.assumed:
        parts.append("<span>assumed; if that is wrong, choose the family under “Motion”</span>")
    parts.append(f"<span>made for</span> <code>{html.escape(spoken(family.advice))}</code>")
    parts.append(f"<span>with checkpoints of the kind</span> <code>{html.escape(family.base)}</code>")
    if family.lora:
        parts.append(f"<span>needs in the prompt</span> <code>&lt;lora:{family.lora}:0.8&gt;</code>")
    text = " · ".join(parts)
    if contradictions:
        text += f"<br><strong><span>Your settings contradict that:</span> {html.escape('; '.join(contradictions))}.</strong>"
    return text


def trained_frames(model: str | None) -> int:
    """For a panel that leaves the number open. Raises RequestError or CheckpointError where no module is chosen."""
    return module_files.trained_frames(*_chosen(model, AS_FOUND))


def base_of(model: str | None) -> str:
    """The kind of checkpoint that a module is made for. Raises RequestError or CheckpointError where none is chosen."""
    return _chosen(model, AS_FOUND)[1].base


def _chosen(model: str | None, family: str) -> tuple[Description, Family]:
    description = module_files.what_it_is(module_files.find(model or ""))
    return description, chosen_family(family, description)
