"""The AnimateDiff entry of a picture's infotext, written and read.

`AnimateDiff: "model: mm.safetensors, video_length: 16, …"`, the form of the established extension, with what differs from the
default, and always the motion module, its hash, the number of frames and our version.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from .. import __version__
from .old_names import renamed
from .params import FORMATS, SAVED_FIELDS, Params, option_of

KEY = "AnimateDiff"
NOT_WRITTEN = ("video_delivery", "last_frame")
"""How it is handed over, and what no text holds."""


def write(params: Params, module_hash: str | None) -> str:
    always = ("enable", "model", "video_length")
    entries = {
        field.name: _as_text(_said_of(field, params))
        for field in dataclasses.fields(params)
        if field.name in always or (field.name not in NOT_WRITTEN and getattr(params, field.name) != field.default)
    }
    if module_hash:
        entries["mm_hash"] = module_hash
    entries["version"] = __version__
    return ", ".join(f"{name}: {value}" for name, value in entries.items())


def _said_of(field: dataclasses.Field[Any], params: Params) -> Any:
    """Of a file that is not kept, its name: where it lies is nobody else's business."""
    value = getattr(params, field.name)
    return value if option_of(field).is_saved else Path(value).name


def value_for(field: dataclasses.Field[Any], results: Mapping[str, Any]) -> Any:
    """What a pasted infotext, parsed to `results`, puts into one control of the panel; None leaves it as it is.

    A still's infotext turns the panel off. What an animation's leaves out, or has in a form that nobody writes, is the default.
    """
    entries = _entries(results)
    if entries is None:
        return False if field.name == "enable" else None
    text = entries.get(field.name, "True" if field.name == "enable" else _as_text(field.default))
    try:
        return _READ[str(field.type)](text)
    except ValueError:
        return list(field.default) if isinstance(field.default, tuple) else field.default


READERS: dict[str, Callable[[Mapping[str, Any]], Any]] = {field.name: partial(value_for, field) for field in SAVED_FIELDS}
"""`value_for` by parameter; the same objects in both tabs: the WebUI compares them when it sends from one to the other."""


def expand_pasted(_infotext: str, results: dict[str, Any]) -> None:
    """Adds one `AnimateDiff …` per control, as text, for programs that read the WebUI's png-info."""
    for name, read in READERS.items():
        if (value := read(results)) is not None:
            results[f"{KEY} {name}"] = _spoken(value)


def _entries(results: Mapping[str, Any]) -> dict[str, str] | None:
    if KEY not in results:
        return None
    parts = (part.split(": ", 1) for part in results[KEY].split(", ") if ": " in part)
    return renamed({name: unquote(value) for name, value in parts})


_READ: dict[str, Callable[[str], Any]] = {
    "bool": lambda text: text == "True",
    "int": lambda text: int(float(text)),
    "float": float,
    "str": str,
    "tuple[str, ...]": lambda text: [name for name in text.split(" ") if name in FORMATS],
}


def _as_text(value: Any) -> str:
    """A comma would end the entry, so it is written as in a URL."""
    return _spoken(value).replace("%", "%25").replace(",", "%2C")


def _spoken(value: Any) -> str:
    """A number without a fraction has none, whatever its type."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return " ".join(value) if isinstance(value, (list, tuple)) else str(value)
