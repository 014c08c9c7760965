"""The AnimateDiff entry of a picture's infotext, written and read.

`AnimateDiff: "model: mm.safetensors, video_length: 16, …"`, the form of the established extension, with what differs from the
default, and always the motion module, its hash, the number of frames and our version.
"""

from __future__ import annotations

import dataclasses
from typing import Any
from urllib.parse import unquote

from . import __version__
from .params import PANEL_FIELDS, Params

KEY = "AnimateDiff"
NOT_OF_THE_VIDEO = ("video_delivery",)
"""Parameters that say how it is handed over."""


def write(params: Params, module_hash: str | None) -> str:
    always = ("enable", "model", "video_length")
    entries = {
        field.name: _as_text(getattr(params, field.name))
        for field in dataclasses.fields(params)
        if field.name in always or (field.name not in NOT_OF_THE_VIDEO and getattr(params, field.name) != field.default)
    }
    if module_hash:
        entries["mm_hash"] = module_hash
    entries["version"] = __version__
    return ", ".join(f"{name}: {value}" for name, value in entries.items())


def expand_pasted(_infotext: str, results: dict[str, Any]) -> None:
    """Turns the entry into one `AnimateDiff …` per control, for the WebUI to paste. A still's infotext turns the panel off."""
    if KEY not in results:
        results[label("enable")] = "False"
        return
    entries = dict(part.split(": ", 1) for part in results.pop(KEY).split(", ") if ": " in part)
    entries = {name: unquote(value) for name, value in entries.items()}
    for field in PANEL_FIELDS:
        results[label(field.name)] = entries.get(field.name, _as_text(field.default))
    results[label("enable")] = entries.get("enable", "True")


def label(name: str) -> str:
    return f"{KEY} {name}"


def _as_text(value: Any) -> str:
    """A comma would end the entry, so it is written as in a URL."""
    return " ".join(value) if isinstance(value, tuple) else str(value).replace("%", "%25").replace(",", "%2C")
