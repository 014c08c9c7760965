"""Warnings about settings that do not suit the motion module or the checkpoint. Settings are never changed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from motion_module.families import Advice, Family

from ..request.choices import EXACT
from ..request.plan import Plan
from . import extension_rows, samplers

DISTILLED = re.compile(r"(?i:lightning|turbo|hyper[-_ ]?sd)|(?<![A-Za-z])(?i:lcm)(?![a-z])|(?<=[a-z])LCM(?![a-z])")
"""Matches names of checkpoints that were distilled to few steps, with guidance in their weights."""
DISTILLED_STEPS, DISTILLED_CFG = 10, 3
"""The highest values that authors of such checkpoints recommend."""


def warnings(p: Any, plan: Plan) -> list[str]:
    """Returns warnings for the answer: settings that contradict the family of the motion module."""
    family, found = plan.family, []
    settings = p.sampler_name or "", samplers.label(p.scheduler), p.steps, p.cfg_scale, p.width, p.height
    if contradictions := family.advice.contradictions(*settings):
        found.append(f"{family.title} is made for {spoken(family.advice)}, but {'; '.join(contradictions)}.")
    blocks = {block for description in plan.descriptions for block in description.channels or {}}
    idle = (rule.block for rule in plan.strength.rules if not any(rule.is_for(block) for block in blocks))
    found += [
        f"The motion rule for {block} has no effect: the motion module has no layer there. Remove it."
        for block in dict.fromkeys(idle)
    ]
    return [f"AnimateDiff: {text}" for text in found]


def distilled(p: Any, checkpoint: str) -> list[str]:
    """Returns a warning if the name of the loaded checkpoint says that it is made for other settings."""
    if not DISTILLED.search(Path(checkpoint).name) or (p.steps <= DISTILLED_STEPS and p.cfg_scale <= DISTILLED_CFG):
        return []
    text = (
        f"By its name, the checkpoint {checkpoint} is made for up to {DISTILLED_STEPS} steps and a CFG scale of 1 to "
        f"{DISTILLED_CFG}, but these are {p.steps} and {p.cfg_scale:g}. Lower them, or choose another checkpoint."
    )
    return [f"AnimateDiff: {text}"]


def missing_lora(family: Family, names: list[str]) -> list[str]:
    """Returns a warning if a family needs a LoRA that is not among those in the prompt."""
    if not family.lora or any("lcm" in name.lower() for name in names):
        return []
    return [f"AnimateDiff: {family.title} needs its LoRA as well: write <lora:{family.lora}:0.8> in the prompt."]


def other_detailer(p: Any) -> list[str]:
    """Returns a warning if ADetailer is switched on: it makes every frame again as a still, without the motion module."""
    for script in p.scripts.alwayson_scripts:
        if script.title().lower() == "adetailer" and _is_on(p.script_args[script.args_from : script.args_to]):
            text = (
                "ADetailer retouches every frame as a still of its own, so what it retouches may flicker. Switch it off, and "
                "use Detail (detail) instead."
            )
            return [f"AnimateDiff: {text}"]
    return []


def speed_without_light_calls(p: Any, plan: Plan) -> list[str]:
    """Returns a warning if light steps were chosen, but another extension makes calls of which none can be light.

    It decides in its `process` whether it is active, so this is known in `p.init` at the earliest.
    """
    if plan.params.speed == EXACT or not extension_rows.are_whole_clips(p):
        return []
    text = (
        f"Speed (speed) is “{plan.params.speed}”, which has no effect with Regional Prompter's mode Latent. Choose another "
        f"mode of Regional Prompter, or set Speed to “{EXACT}”."
    )
    return [f"AnimateDiff: {text}"]


def _is_on(values: Sequence[Any]) -> bool:
    units = [value for value in values if isinstance(value, dict)]
    used = (unit for unit in units if unit.get("ad_tab_enable", True) and unit.get("ad_model", "None") != "None")
    return values[0] is not False and any(used) if values else False


def spoken(advice: Advice) -> str:
    """Returns recommended settings in words."""
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
