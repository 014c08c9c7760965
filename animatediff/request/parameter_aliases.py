"""Names and values that parameters had before; infotexts, presets and requests may still use them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KEYS = {
    "window_mode": "context_mode",
    "window_order": "context_schedule",
    "window_fusion": "fuse_method",
    "noise_mode": "noise_type",
    "image_reach": "ramp_length",
    "anchor": "first_frame_attention",
    "positions": "positional_encoding",
    "mix": "model_2_mode",
    "mix_share": "model_2_weight",
}
VALUES: dict[str, dict[str, str]] = {
    "context_mode": {"blend whole frames": "whole UNet", "share attention": "motion attention"},
    "context_schedule": {"shifting": "uniform"},
    "noise_type": {"shared": "constant", "repeated window": "repeated context"},
    "image_mode": {"mix with noise": "blend with noise", "strength of each frame": "strength ramp"},
    "family": {"as found": "auto"},
}

OFF = {"interp": "Off", "closed_loop": "N", "detail": "Off"}
"""The choice that switches a feature off, where a parameter has one."""
OFF_WORDS = ("", "no", "n", "off", "none", "false", "0")
"""What programs send for it, in any case. In JSON it may be `false` or 0 as well."""
UNKNOWN_IS_OFF = ("interp",)
"""Parameters of which sd-webui-animatediff took every word for off but its own one."""
NOT_HERE = {"interp": ("FILM",)}
"""Choices of sd-webui-animatediff that ask for something. Off would be no answer to them."""


def renamed(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parameters under their current names and values. A current name wins over its old one."""
    current = {KEYS.get(name, name): value for name, value in given.items() if KEYS.get(name) not in given}
    return {name: _renamed_value(name, value) for name, value in current.items()}


def _renamed_value(name: str, value: Any) -> Any:
    return VALUES.get(name, {}).get(value, value) if isinstance(value, str) else value
