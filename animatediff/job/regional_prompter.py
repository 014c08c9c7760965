"""Regional Prompter, whose attention tells prompt and negative prompt apart by the number of rows of a UNet call."""

from __future__ import annotations

from typing import Any

from ..errors import AnimateDiffError
from ..request.plan import Plan

TITLE = "regional prompter"


def require_suitable(p: Any, plan: Plan) -> None:
    """Raises AnimateDiffError if it is active and would get the frames of one window: its regions would be of other prompts.

    It decides in its `process` whether it is active, so this is known in `p.init` at the earliest.
    """
    if plan.windows.needed and not plan.windows_in_attention and any(map(_is_active, p.scripts.alwayson_scripts)):
        raise AnimateDiffError(
            f"Regional Prompter needs all {plan.frames} frames in one call of the UNet, but they come in windows of "
            f"{plan.windows.length}. Set “Windows apply to” (context_mode) to “motion attention”, which takes the memory of "
            "all frames, make a shorter video, or switch Regional Prompter off."
        )


def _is_active(script: Any) -> bool:
    """Whether a script is Regional Prompter with its attention in the UNet. Its other way, Latent, counts no rows."""
    return script.title().lower() == TITLE and getattr(script, "active", False) and getattr(script, "hooked", False)
