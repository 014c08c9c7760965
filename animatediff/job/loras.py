"""Motion LoRAs and domain adapters, written in the prompt like any LoRA: `<lora:v2_lora_ZoomIn:0.8>`.

The WebUI's loader would look for their keys in the checkpoint and find none. So they are taken out of the parsed prompt before
the loader sees it. Their files come from the WebUI's own list, and they act for as long as the motion module does.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from modules import shared

from motion_module.lora import Lora, target_of
from motion_module.weight_files import CheckpointError

from ..request import module_files

Loras = tuple[tuple[Lora, float], ...]
"""LoRAs, each with its strength."""


def take_from(parsed: dict[str, list[Any]] | None) -> tuple[Loras, dict[str, str]]:
    """Takes our LoRAs out of a parsed prompt. Returns them, and their short hashes by name.

    A file that also has weights for the checkpoint stays in the prompt, for the WebUI's loader. Raises CheckpointError for a
    broken file.
    """
    ours: list[tuple[Lora, float]] = []
    hashes: dict[str, str] = {}
    for kind in ("lora", "lyco"):
        kept = []
        for entry in (parsed or {}).get(kind, ()):
            on_disk = _on_disk(str(entry.positional[0])) if entry.positional else None
            keys = _keys_of_ours(on_disk)
            if on_disk is None or keys is None:
                kept.append(entry)
                continue
            ours.append((module_files.lora(Path(on_disk.filename)), _strength(entry)))
            on_disk.read_hash()
            hashes[str(entry.positional[0])] = on_disk.shorthash or ""
            if not all(keys):
                kept.append(entry)
        if parsed and kind in parsed:
            parsed[kind] = kept
    return tuple(ours), hashes


def names_in(parsed: dict[str, list[Any]] | None) -> list[str]:
    """Returns the names of all LoRAs in a parsed prompt."""
    entries = [entry for kind in ("lora", "lyco") for entry in (parsed or {}).get(kind, ())]
    return [str(entry.positional[0]) for entry in entries if entry.positional]


def left_out(loras: Loras) -> list[str]:
    """Returns warnings about weights that neither we nor the WebUI apply."""
    return [
        f"AnimateDiff: {len(lora.left_out)} of the weights in {lora.path.name} are not applied: they belong neither to motion "
        f"layers nor to the attention of the image model ({lora.left_out[0]}, …)."
        for lora, _ in loras
        if lora.left_out
    ]


def write_hashes(p: Any, hashes: dict[str, str]) -> None:
    """Adds the hashes to the infotext as the WebUI's loader does for its LoRAs, so that a renamed file is found again."""
    known = {name.replace(":", "").replace(",", ""): digest for name, digest in hashes.items() if digest}
    if known and shared.opts.data.get("lora_add_hashes_to_infotext", True):
        p.lora_hashes = {**getattr(p, "lora_hashes", {}), **known}
        p.extra_generation_params["Lora hashes"] = ", ".join(f"{name}: {digest}" for name, digest in p.lora_hashes.items())


def _on_disk(name: str) -> Any:
    """Returns the WebUI's entry for a LoRA of that name or alias; None if there is none, or no loader for LoRAs at all."""
    networks = sys.modules.get("networks")
    if networks is None:
        return None

    def known() -> Any:
        if name.lower() in networks.forbidden_network_aliases:
            return networks.available_networks.get(name)
        return networks.available_network_aliases.get(name)

    if known() is None:
        networks.update_available_networks_by_names([name])  # the file may be newer than the list
    return known()


def _keys_of_ours(on_disk: Any) -> list[bool] | None:
    """Returns for each key of a file whether it is ours; None if none is, or if the file cannot be read."""
    if on_disk is None:
        return None
    try:
        description = module_files.what_it_is(Path(on_disk.filename))
    except CheckpointError:
        return None
    return [target_of(key) is not None for key in description.other] if description.is_lora else None


def _strength(entry: Any) -> float:
    """Returns the strength, read like the WebUI does: `<lora:name:text encoder:unet>`, where one number counts for both."""
    try:
        numbers = [float(number) for number in entry.positional[1:3]]
        text = float(entry.named.get("te", numbers[0] if numbers else 1.0))
        return float(entry.named.get("unet", numbers[1] if len(numbers) > 1 else text))
    except ValueError:
        raise CheckpointError(f"The strength in <lora:{':'.join(map(str, entry.items))}> must be a number.") from None
