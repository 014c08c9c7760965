"""What ControlNet's units cannot do in a clip: it is refused by the number of the unit."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from motion_module.sparse_ctrl import MOST_FRAMES

from ..errors import RequestError
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
OF_FIRST_PICTURE = ("inpaint_only", "recolor")
"""Parts of the names of preprocessors for which the built-in ControlNet goes by the first picture when frames are finished."""
NOT_IN_BATCHES = ("tile_colorfix",)
"""Parts of the names of preprocessors with which the built-in ControlNet fails for a batch of several images."""

XL_ADAPTER_PIXELS = 16
"""The pixels, along each side, that a T2I-adapter for SDXL takes together; others take 8."""


def require_all_units_for_all_rows(script: Any) -> None:
    """Raises RequestError where each row of a UNet call would have another unit: in each window, frames change rows."""
    if str(script.ui_batch_option_state[0]).startswith("Each"):
        raise RequestError(
            "ControlNet's Batch Option gives each image of a batch another unit, which frames of a video cannot have. Set "
            "it to “All ControlNet units for all images in a batch”."
        )


def require_planned_units(script: Any, planned: list[Unit]) -> None:
    """Raises RequestError where ControlNet took other units than those that were planned for."""
    require_number_of_units(len(script.enabled_units), len(planned))


def require_number_of_units(enabled: int, planned: int) -> None:
    """Raises RequestError where ControlNet has another number of units than was planned for."""
    if enabled != planned:
        raise RequestError(
            f"Another script has changed ControlNet's units: {planned} were enabled when the video was planned, "
            f"{enabled} are now. Switch that script off."
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


def require_same_kind(planned: Unit, model: Any, *, is_sdxl: bool) -> None:
    """Raises RequestError where a control model of sd-webui-controlnet is for SDXL and the checkpoint is not, or vice versa."""
    of_sdxl = _is_for_sdxl(model)
    if of_sdxl is not None and of_sdxl != is_sdxl:
        kinds = ("Stable Diffusion 1 or 2", "SDXL")
        raise RequestError(
            f"ControlNet unit {planned.number} has a model for {kinds[of_sdxl]}, but the checkpoint is {kinds[is_sdxl]}. "
            "Choose another model or another checkpoint."
        )


def _is_for_sdxl(model: Any) -> bool | None:
    """Returns whether a control model is for SDXL; None where that cannot be told."""
    if (adapter := getattr(model, "ipadapter", None)) is not None:
        return bool(adapter.is_sdxl)
    network = getattr(model, "control_model", None)
    if (pixels := getattr(network, "pixel_shuffle", None)) is not None:
        return bool(pixels == XL_ADAPTER_PIXELS)
    if network is None or not hasattr(network, "num_classes"):
        return None
    return network.num_classes is not None


def require_fit_of_built_in(planned: Unit, params: Any, *, splits_calls: bool) -> None:
    """Raises RequestError for what the built-in ControlNet of Forge and its relatives cannot do in a clip.

    `params`: what it has made of the unit. `splits_calls`: whether context windows split the calls of the UNet.
    """
    name = f"ControlNet unit {planned.number} ({planned.module})"
    made_of_rows = isinstance(params.control_cond, Tensor)
    if planned.follows_frames and (not made_of_rows or any(part in planned.module for part in OF_FIRST_PICTURE)):
        raise RequestError(
            f"{name} takes one picture for all frames in this WebUI's own ControlNet. Give it a picture of its own, or "
            "disable it."
        )
    is_network = getattr(params.model, "model_patcher", None) is not None
    if planned.keyframes and (not is_network or any(part in planned.module for part in ALWAYS_ACTING)):
        raise RequestError(
            f"{name} cannot act on some frames only. Remove the line keyframe: and give it a picture for each frame."
        )
    if any(part in planned.module for part in NOT_IN_BATCHES):
        raise RequestError(
            f"{name} takes one image at a time in this WebUI's own ControlNet, and not the frames of a video. Choose another "
            "preprocessor, or disable the unit."
        )
    if splits_calls and made_of_rows and not is_network:
        raise RequestError(
            f"{name} does not work in context windows over the whole UNet. Set Windows apply to (context_mode) to “motion "
            "attention”, or disable the unit."
        )


def require_few_frames(number: int, attended: int) -> None:
    """Raises RequestError where more frames attend to each other than SparseCtrl has positions for."""
    if attended > MOST_FRAMES:
        raise RequestError(
            f"ControlNet unit {number} is SparseCtrl, which takes {MOST_FRAMES} frames at once, but the "
            f"context length (batch_size) is {attended}. Set it to {MOST_FRAMES} or less."
        )
