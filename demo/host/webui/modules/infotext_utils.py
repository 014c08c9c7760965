"""Stands in for `modules.infotext_utils`: writes and parses infotexts, and declares paste fields."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from modules import script_callbacks, shared

VERSION = "v1.10.1"
NEEDS_QUOTES = set(",:\n")


class PasteField(NamedTuple):
    """A control, and the infotext entry (or function of all entries) that fills it in."""

    component: Any
    label: Any
    api: str | None = None


class ParamBinding(NamedTuple):
    """A button that sends a picture, or a tab's settings, to a tab."""

    paste_button: Any
    tabname: str
    source_text_component: Any = None
    source_image_component: Any = None
    source_tabname: str | None = None


def register_paste_params_button(binding: ParamBinding) -> None:
    """Does nothing: this host has only one tab."""


def create_infotext(p: Any, index: int, of_job: bool = False) -> str:
    """Returns prompt, negative prompt and a line of settings, for one picture of the running batch or of the whole job."""

    def of_picture(name: str) -> Any:
        return ((not of_job and getattr(p, name, None)) or getattr(p, f"all_{name}"))[index]

    entries = {
        "Steps": p.steps,
        "Sampler": p.sampler_name,
        "Schedule type": p.scheduler or "Automatic",
        "CFG scale": p.cfg_scale,
        "Seed": of_picture("seeds"),
        "Size": f"{p.width}x{p.height}",
        "Model": shared.sd_model.sd_checkpoint_info.name_for_extra,
        **p.extra_generation_params,
        "Version": VERSION,
    }
    settings = ", ".join(f"{name}: {_as_entry(value)}" for name, value in entries.items() if value is not None)
    negative = of_picture("negative_prompts")
    return "\n".join([of_picture("prompts"), *([f"Negative prompt: {negative}"] if negative else []), settings])


def parse_generation_parameters(infotext: str) -> dict[str, Any]:
    """Returns the entries of an infotext, after the callbacks of extensions have changed them."""
    text, _, settings = infotext.strip().rpartition("\n")
    if not settings.startswith("Steps: "):
        text, settings = infotext.strip(), ""
    prompt, _, negative = text.partition("\nNegative prompt: ")
    results: dict[str, Any] = {"Prompt": prompt, "Negative prompt": negative}
    for entry in _entries(settings):
        name, _, value = entry.partition(": ")
        results[name] = json.loads(value) if value.startswith('"') else value
    script_callbacks.call("infotext_pasted", infotext, results)
    return results


def _as_entry(value: Any) -> str:
    """Returns the value as text, in quotes if it contains a separator."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if NEEDS_QUOTES & set(text) else text


def _entries(settings: str) -> Iterator[str]:
    """Yields the parts between commas that are not inside quotes."""
    start, quoted, escaped = 0, False, False
    for position, character in enumerate(settings):
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = quoted
        elif character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            yield settings[start:position].strip()
            start = position + 1
    if rest := settings[start:].strip():
        yield rest
