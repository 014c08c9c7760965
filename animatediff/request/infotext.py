"""Writes and reads the AnimateDiff entry of an image's infotext.

It has the form of sd-webui-animatediff: `AnimateDiff: "model: mm.safetensors, video_length: 16, …"`. It lists the parameters
that differ from their defaults, and always the motion module, its hash, the number of frames and our version.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from .. import __version__
from .choices import FORMATS
from .parameter_aliases import renamed
from .params import SAVED_FIELDS, Params, option_of

KEY = "AnimateDiff"
NOT_WRITTEN = ("video_delivery", "last_frame", "motion_mask", "sparse_pictures", "sparse_more")
"""How the answer is delivered, and images, which no text can hold."""


def write(params: Params, module_hash: str | None) -> str:
    always = ("enable", "model", "video_length")
    entries = {
        field.name: _as_text(_written_value(field, params))
        for field in dataclasses.fields(params)
        if field.name in always or (field.name not in NOT_WRITTEN and getattr(params, field.name) != field.default)
    }
    if module_hash:
        entries["mm_hash"] = module_hash
    entries["version"] = __version__
    return ", ".join(f"{name}: {value}" for name, value in entries.items())


def _written_value(field: dataclasses.Field[Any], params: Params) -> Any:
    """Returns the value. Of an input file it returns only the name: where the file lies is private. Its text is too long."""
    value = getattr(params, field.name)
    if option_of(field).is_saved:
        return value
    return "text" if "\n" in value.strip() else Path(value).name


def value_for(field: dataclasses.Field[Any], results: Mapping[str, Any]) -> Any:
    """Returns what a pasted infotext, parsed to `results`, sets in one control of the panel; None leaves it as it is.

    A still image's infotext turns AnimateDiff off. In an animation's, what is missing or malformed gets the default.
    """
    entries = _entries(results)
    if entries is None:
        return False if field.name == "enable" else None
    text = entries.get(field.name, "True" if field.name == "enable" else _as_text(field.default))
    try:
        return _READ[str(field.type)](text)
    except (ValueError, OverflowError):
        return list(field.default) if isinstance(field.default, tuple) else field.default


READERS: dict[str, Callable[[Mapping[str, Any]], Any]] = {field.name: partial(value_for, field) for field in SAVED_FIELDS}
"""`value_for` by parameter. Both tabs share these objects: the WebUI compares them when it sends settings between tabs."""


def expand_pasted(_infotext: str, results: dict[str, Any]) -> None:
    """Adds one `AnimateDiff …` entry per control, as text, for programs that read the WebUI's PNG info."""
    for name, read in READERS.items():
        if (value := read(results)) is not None:
            results[f"{KEY} {name}"] = _plain(value)


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
    """Returns the text with commas escaped as in a URL, since a comma ends an entry."""
    return _plain(value).replace("%", "%25").replace(",", "%2C")


def _plain(value: Any) -> str:
    """Returns a value as text; a whole number has no decimal point, whatever its type."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return " ".join(value) if isinstance(value, (list, tuple)) else str(value)
