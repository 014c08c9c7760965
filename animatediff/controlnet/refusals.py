"""What ControlNet's units cannot do in a clip: it is refused by the number of the unit."""

from __future__ import annotations

from typing import Any

from ..errors import RequestError
from . import sparse_ctrl
from .pictures import Unit

UNFIT = {
    "T2I_StyleAdapter": "a style adapter",
    "ReVision": "Revision",
    "InstantID": "InstantID",
    "StableSR": "StableSR",
}
"""Kinds of control that take one picture only."""
NOT_AT_KEYFRAMES = ("AttentionInjection", "Controlllite")
"""Kinds of control that act on every row of a UNet call, so that no frame can be left free."""
ALWAYS_ACTING = ("inpaint", "recolor", "colorfix")
"""Parts of the names of preprocessors of which the same is true."""


def require_all_units_for_all_rows(script: Any) -> None:
    """Raises RequestError where each row of a UNet call would have another unit: in each window, frames change rows."""
    if str(script.ui_batch_option_state[0]).startswith("Each"):
        raise RequestError(
            "ControlNet's Batch Option gives each image of a batch another unit, which frames of a video cannot have. Set "
            "it to “All ControlNet units for all images in a batch”."
        )


def require_planned_units(script: Any, planned: list[Unit]) -> None:
    """Raises RequestError where ControlNet took other units than those that were planned for."""
    if len(script.enabled_units) != len(planned):
        raise RequestError(
            f"Another script has changed ControlNet's units: {len(planned)} were enabled when the video was planned, "
            f"{len(script.enabled_units)} are now. Switch that script off."
        )


def require_fit(planned: Unit, kind: Any) -> None:
    """Raises RequestError for a kind of control that cannot follow frames."""
    if what := UNFIT.get(kind.name):
        raise RequestError(
            f"ControlNet unit {planned.number} is {what}, which takes one picture for all frames. Give it a picture of its own."
        )
    everywhere = kind.name in NOT_AT_KEYFRAMES or any(name in planned.module for name in ALWAYS_ACTING)
    if planned.keyframes and everywhere:
        raise RequestError(
            f"ControlNet unit {planned.number} ({planned.module}) cannot act on some frames only. Remove the line "
            "keyframe: and give it a picture for each frame."
        )


def require_few_frames(number: int, attended: int) -> None:
    """Raises RequestError where more frames attend to each other than SparseCtrl has positions for."""
    if attended > sparse_ctrl.MOST_FRAMES:
        raise RequestError(
            f"ControlNet unit {number} is SparseCtrl, which takes {sparse_ctrl.MOST_FRAMES} frames at once, but the "
            f"context length (batch_size) is {attended}. Set it to {sparse_ctrl.MOST_FRAMES} or less."
        )
