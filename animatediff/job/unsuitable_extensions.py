"""Other extensions whose work on a clip would be wrong without a word. Each is refused only where it is switched on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import AnimateDiffError
from ..request.plan import Plan

Check = Callable[[Any, Any, Plan], str]
HOW_TO_ATTEND = "Set “Windows apply to” (context_mode) to “motion attention”"


def require_suitable(p: Any, plan: Plan) -> None:
    """Raises AnimateDiffError for what cannot be made right with these settings.

    Extensions decide in their `process` whether they are active, so this is known in `p.init` at the earliest.
    """
    _require_none(p, plan, SUITABLE)


def require_no_keyframes(p: Any, plan: Plan) -> None:
    """Raises AnimateDiffError for what cannot be made right with keyframes in the prompt."""
    _require_none(p, plan, WITHOUT_KEYFRAMES)


def _require_none(p: Any, plan: Plan, checks: dict[str, Check]) -> None:
    for script in p.scripts.alwayson_scripts:
        check = checks.get(script.title().lower())
        if check and (why := check(script, p, plan)):
            raise AnimateDiffError(why)


def _regions_by_words(script: Any, p: Any, plan: Plan) -> str:
    """Regional Prompter finds regions in the attention maps of all rows of a call, which it adds up by their number."""
    by_words = getattr(script, "active", False) and "Pro" in getattr(script, "mode", "")
    if not (by_words and plan.windows.needed and not plan.windows_in_attention):
        return ""
    return (
        f"Regional Prompter's mode Prompt needs all {plan.frames} frames in one call of the UNet, but they come in windows of "
        f"{plan.windows.length}. {HOW_TO_ATTEND}, which takes the memory of all frames, make a shorter video, or choose "
        "another mode of Regional Prompter."
    )


def _regions_of_keyframes(script: Any, p: Any, plan: Plan) -> str:
    if not getattr(script, "active", False):
        return ""
    return (
        "Regional Prompter reads the prompt with all keyframes as one text, so its regions would be of other words. "
        "Write the prompt without keyframes, or switch Regional Prompter off."
    )


def _demofusion(script: Any, p: Any, plan: Plan) -> str:
    if not argument(script, p, 0):
        return ""
    return "DemoFusion samples in a way of its own, without motion. Switch it off; hires fix makes larger videos."


def _tiled_diffusion(script: Any, p: Any, plan: Plan) -> str:
    if not argument(script, p, 0):
        return ""
    if plan.images and argument(script, p, 12):
        return "Tiled Diffusion's noise inversion calls the UNet before the clip is sampled. Switch noise inversion off."
    if len(plan.images or ()) > 1 and argument(script, p, 10) not in (None, "None"):
        return (
            "Tiled Diffusion's upscaler would put the first frame in the place of all. Set its upscaler to None, and the size "
            "of the video to that which it shall have."
        )
    if plan.inputs.controls:
        return (
            "Tiled Diffusion gives one picture of ControlNet to all frames. Switch Tiled Diffusion off, or disable the units "
            "of ControlNet."
        )
    return ""


def _tiled_regions(script: Any, p: Any, plan: Plan) -> str:
    if not (argument(script, p, 0) and argument(script, p, 18)):
        return ""
    return (
        "Tiled Diffusion reads the prompt with all keyframes as one text for its regions. Switch its region control off, or "
        "write the prompt without keyframes."
    )


def argument(script: Any, p: Any, number: int) -> Any:
    """Returns one of the values of a script in a request; None where it has not so many."""
    values = p.script_args[script.args_from : script.args_to]
    return values[number] if number < len(values) else None


SUITABLE: dict[str, Check] = {
    "regional prompter": _regions_by_words,
    "demofusion": _demofusion,
    "tiled diffusion": _tiled_diffusion,
}
WITHOUT_KEYFRAMES: dict[str, Check] = {"regional prompter": _regions_of_keyframes, "tiled diffusion": _tiled_regions}
"""By the title of the script, in small letters."""
