"""What a picture says of how it was made, written and read."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from modules import script_callbacks, shared

VERSION = "v1.10.1"
_ENTRY = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


class PasteField(NamedTuple):
    """A control, and which entry (or function of all entries) fills it in."""

    component: Any
    label: Any
    api: str | None = None


def create_infotext(p: Any, index: int) -> str:
    """Prompt, negative prompt, and one line of settings, for one picture of the running batch."""
    prompts, negatives, seeds = (
        getattr(p, name, None) or getattr(p, f"all_{name}") for name in ("prompts", "negative_prompts", "seeds")
    )
    entries = {
        "Steps": p.steps,
        "Sampler": p.sampler_name,
        "Schedule type": p.scheduler or "Automatic",
        "CFG scale": p.cfg_scale,
        "Seed": seeds[index],
        "Size": f"{p.width}x{p.height}",
        "Model": shared.sd_model.sd_checkpoint_info.name_for_extra,
        **p.extra_generation_params,
        "Version": VERSION,
    }
    settings = ", ".join(f"{name}: {_quoted(value)}" for name, value in entries.items() if value is not None)
    negative = f"\nNegative prompt: {negatives[index]}" if negatives[index] else ""
    return f"{prompts[index]}{negative}\n{settings}"


def parse_generation_parameters(infotext: str) -> dict[str, Any]:
    """The entries of an infotext, after extensions have had their say."""
    *lines, settings = infotext.strip().split("\n")
    if len(_ENTRY.findall(settings)) < 3:
        lines, settings = [*lines, settings], ""
    prompt, _, negative = "\n".join(lines).partition("\nNegative prompt: ")
    results: dict[str, Any] = {"Prompt": prompt, "Negative prompt": negative}
    results |= {name: json.loads(value) if value.startswith('"') else value for name, value in _ENTRY.findall(settings)}
    script_callbacks.call("infotext_pasted", infotext, results)
    return results


def _quoted(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if re.search(r"[,:\n]", text) else text
