"""Stands in for `modules.script_callbacks`: `on_…` or `add_callback` adds a callback, and the host runs them with `call`.

An exception in a callback is logged and does not end a generation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from modules import errors
from PIL import Image

Listener = Callable[..., Any]
callback_map: dict[str, list[Listener]] = {
    f"callbacks_{name}": []
    for name in (
        "after_component",
        "app_started",
        "before_image_saved",
        "before_ui",
        "cfg_denoiser",
        "image_saved",
        "infotext_pasted",
        "model_loaded",
        "script_unloaded",
        "ui_settings",
        "ui_train_tabs",
    )
}
"""This host's page has no Train tab and none of the components that extensions look for: it never calls those callbacks."""


@dataclass
class CFGDenoiserParams:
    """The inputs of a denoising step. A callback may replace `x`, `text_cond` and `text_uncond`."""

    x: torch.Tensor
    sigma: torch.Tensor
    sampling_step: int
    total_sampling_steps: int
    text_cond: torch.Tensor
    text_uncond: torch.Tensor
    denoiser: Any


@dataclass
class ImageSaveParams:
    """A file with a picture. A callback may replace what is saved, before it is."""

    image: Image.Image
    p: Any
    filename: str
    pnginfo: dict[str, str]


def call(event: str, *args: Any) -> None:
    for listener in callback_map[f"callbacks_{event}"]:
        try:
            listener(*args)
        except Exception:
            errors.report(f"A callback of {event} failed", exc_info=True)


def before_image_saved_callback(params: ImageSaveParams) -> None:
    call("before_image_saved", params)


def image_saved_callback(params: ImageSaveParams) -> None:
    call("image_saved", params)


def add_callback(callbacks: list[Listener], fun: Listener, *, category: str, filename: str) -> None:
    """Adds a callback of a script whose file is known."""
    callbacks.append(fun)


def _adder(event: str) -> Callable[[Listener], None]:
    return lambda listener: callback_map[f"callbacks_{event}"].append(listener)


on_app_started = _adder("app_started")
on_model_loaded = _adder("model_loaded")
on_ui_settings = _adder("ui_settings")
on_cfg_denoiser = _adder("cfg_denoiser")
on_before_image_saved = _adder("before_image_saved")
on_image_saved = _adder("image_saved")
on_script_unloaded = _adder("script_unloaded")
