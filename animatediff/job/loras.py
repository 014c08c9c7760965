"""Motion LoRAs and domain adapters, written in the prompt like any LoRA: `<lora:v2_lora_ZoomIn:0.8>`.

Instead of one strength any LoRA may have a schedule: `<lora:v2_lora_ZoomIn:0: 1, 16: 0.2>`. One that the WebUI loads then acts
in the UNet through us, and the WebUI only loads its text encoder part, at the strongest of the numbers.

The WebUI's loader would look for their keys in the checkpoint and find none. So they are taken out of the parsed prompt before
the loader sees it. Their files come from the WebUI's own list, and they act for as long as the motion module does.

The arguments of a tag are read as the WebUI reads them: `<lora:name:text encoder:unet:rank>`, also as `te=`, `unet=` and
`dyn=`. Those of other extensions, such as sd-webui-lora-block-weight's `lbw=` and `stop=`, have no effect on our LoRAs.
"""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modules import shared

from motion_module.frame_schedule import read_schedule
from motion_module.keyframe_lines import shortened
from motion_module.lora import Lora, target_of
from motion_module.motion_strength import PerFrame
from motion_module.prompt_travel import TravelError
from motion_module.weight_files import CheckpointError

from ..errors import RequestError
from ..request import module_files

Loras = tuple[tuple[Lora, PerFrame], ...]
"""LoRAs, each with its strength."""
READ, READ_BESIDE_SCHEDULE = ("te", "unet", "dyn"), ("te", "dyn")
"""The named arguments that are read. Beside a schedule, which is for the UNet, `te` is the strength in the text encoder."""
_SCHEDULE = re.compile(r"[,;\n%％]")
"""Matches what is in a schedule of several keyframes, and in none of the WebUI's numbers."""
POSITIONS = 4
"""How many arguments without a name are read, that of the LoRA's name included."""


@dataclass
class Taken:
    """What was taken out of a prompt. `hashes`: the files' short hashes by name. `warnings`: what does not act as written."""

    loras: list[tuple[Lora, PerFrame]] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def take_from(parsed: dict[str, list[Any]] | None, frames: int, *, closed: bool) -> Taken:
    """Takes our LoRAs, and those with a schedule, out of the parsed prompt of a video of `frames` frames.

    `closed`: whether schedules lead back to their beginning. A file that also has weights for the checkpoint stays in the
    prompt, for the WebUI's loader. Raises CheckpointError for a broken file, or for an argument that is no number, and
    RequestError for a schedule that cannot be.
    """
    taken = Taken()
    for kind in ("lora", "lyco"):
        kept = []
        for entry in (parsed or {}).get(kind, ()):
            on_disk = _on_disk(str(entry.positional[0])) if entry.positional else None
            keys = _keys_of_ours(on_disk)
            if (strengths := _strengths(entry, frames, closed=closed)) is not None:
                kept += _take_schedule(entry, on_disk, keys, strengths, taken)
                continue
            if on_disk is None or keys is None:
                kept.append(entry)
                continue
            lora = module_files.lora(Path(on_disk.filename)).of_rank(_rank(_given_rank(entry), entry))
            taken.loras.append((lora, _strength(entry)))
            taken.warnings += _without_effect(entry, entry.positional[POSITIONS:], READ) + _left_out(lora)
            on_disk.read_hash()
            taken.hashes[str(entry.positional[0])] = on_disk.shorthash or ""
            if not all(keys):
                kept.append(entry)
        if parsed and kind in parsed:
            parsed[kind] = kept
    return taken


def _take_schedule(entry: Any, on_disk: Any, keys: list[bool] | None, strengths: PerFrame, taken: Taken) -> list[Any]:
    """Takes a LoRA with a schedule. Returns what of it stays in the prompt: the part for the text encoder."""
    if on_disk is None:
        raise RequestError(f"There is no LoRA of this name: {_tag(entry)}. Correct the name, or put the file into the folder.")
    path, name, rank = Path(on_disk.filename), entry.positional[0], _rank(entry.named.get("dyn"), entry)
    text_encoder = _number(entry.named["te"], entry) if "te" in entry.named else _strongest(strengths)
    ours = module_files.lora(path) if keys else None
    on_disk.read_hash()
    taken.hashes[str(name)] = on_disk.shorthash or ""
    if ours is not None:
        taken.loras.append((ours.of_rank(rank), strengths))
        taken.warnings += _left_out(ours)
    taken.warnings += _without_effect(entry, [], READ_BESIDE_SCHEDULE)
    if keys and all(keys):
        return []
    taken.loras.append((module_files.ordinary_lora(path).of_rank(rank), strengths))
    return [type(entry)([name, f"te={text_encoder}", "unet=0", *([f"dyn={rank}"] if rank else [])])]


def _strongest(strengths: PerFrame) -> float:
    return max(strengths, key=abs) if isinstance(strengths, tuple) else strengths


def facts_of(loras: Loras) -> list[tuple[str, int | None, PerFrame]]:
    """Returns what decides how LoRAs act: file, rank and strength of each."""
    return [(str(lora.path), lora.rank, strength) for lora, strength in loras]


def names_in(parsed: dict[str, list[Any]] | None) -> list[str]:
    """Returns the names of all LoRAs in a parsed prompt."""
    return [str(entry.positional[0]) for entry in _entries(parsed) if entry.positional]


def has_schedule(parsed: dict[str, list[Any]] | None) -> bool:
    """Whether a LoRA in a parsed prompt has keyframes, which count the frames of the whole video."""
    return any(_SCHEDULE.search(_schedule_in(entry)) for entry in _entries(parsed))


def _entries(parsed: dict[str, list[Any]] | None) -> list[Any]:
    return [entry for kind in ("lora", "lyco") for entry in (parsed or {}).get(kind, ())]


def _schedule_in(entry: Any) -> str:
    """Returns what may be the schedule of a tag, which the WebUI has cut at its colons."""
    return ":".join(map(str, entry.positional[1:]))


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


def _strengths(entry: Any, frames: int, *, closed: bool) -> PerFrame | None:
    """Returns the strengths of a tag with a schedule; None for other tags."""
    text = _schedule_in(entry)
    if not _SCHEDULE.search(text):
        return None
    try:
        schedule = read_schedule(text, frames, closed=closed)
    except TravelError as error:
        raise RequestError(f"{_tag(entry)}: {error}") from None
    assert schedule is not None
    return schedule.values


def _strength(entry: Any) -> float:
    """Returns the strength in the UNet; one number counts for text encoder and UNet."""
    numbers = [_number(number, entry) for number in entry.positional[1:3]]
    text = _number(entry.named.get("te", numbers[0] if numbers else 1.0), entry)
    return _number(entry.named.get("unet", numbers[1] if len(numbers) > 1 else text), entry)


def _number(written: Any, entry: Any) -> float:
    try:
        number = float(written)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        example = f"<lora:{shortened(str(entry.positional[0]))}:0.8>"
        raise CheckpointError(f"The strength in {_tag(entry)} must be a number, as in {example}.")
    return number


def _given_rank(entry: Any) -> Any:
    return entry.named.get("dyn", entry.positional[3] if len(entry.positional) > 3 else None)


def _rank(given: Any, entry: Any) -> int | None:
    """Returns how many components of each matrix act; None for all. `given`: as written."""
    if given is None:
        return None
    try:
        rank = int(given)
    except ValueError:
        rank = 0
    if rank < 1:
        raise CheckpointError(
            f"The rank (dyn) in {_tag(entry)} must be a whole number, 1 or more. Correct it, or leave it out."
        )
    return rank


def _without_effect(entry: Any, more: list[Any], read: tuple[str, ...]) -> list[str]:
    """Returns a warning about arguments of a tag that say nothing to us: `more`, and those with names that are not `read`."""
    others = [*map(str, more), *(name for name in entry.named if name not in read)]
    if not others:
        return []
    what = "motion LoRAs and domain adapters act" if read == READ else "LoRAs with a schedule act"
    text = (
        f"AnimateDiff: {shortened(', '.join(others))} in {_tag(entry)} {'has' if len(others) == 1 else 'have'} no effect: "
        f"{what} alike in all blocks and steps, and only {', '.join(read[:-1])} and {read[-1]} are read. Leave out the rest."
    )
    return [text]


def _left_out(lora: Lora) -> list[str]:
    """Returns a warning about weights that neither we nor the WebUI apply."""
    if not lora.left_out:
        return []
    text = (
        f"AnimateDiff: In {lora.path.name}, weights that belong neither to motion layers nor to the attention of the image "
        f"model are not applied: {len(lora.left_out)}, such as {lora.left_out[0]}."
    )
    return [text]


def _tag(entry: Any) -> str:
    """Returns a tag as it is shown in a text for the user."""
    return shortened(f"<lora:{':'.join(map(str, entry.items))}>")
