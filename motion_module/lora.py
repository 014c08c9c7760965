"""LoRAs (arXiv 2106.09685) beside a motion module: motion LoRAs and domain adapters (arXiv 2307.04725, 4.1 and 4.3).

A motion LoRA changes the matrices of motion layers, a domain adapter those of the image UNet's attention: W + s·up·down. Files
come as their authors published them (`…processor.to_q_lora.down.weight`), from diffusers and PEFT (`…to_q.lora_A.weight`), from
MotionDirector (the authors' form), and in kohya's form (`lora_unet_…_to_q.lora_down.weight` with `alpha`). An alpha that lies
in another file, as PEFT's `adapter_config.json`, is not read.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from . import key_layouts
from .key_layouts import BLOCK, Layout, place_of
from .weight_files import CheckpointError, Entry, WeightFile, open_weights

Kind = Literal["motion", "image"]


@dataclass(frozen=True)
class Target:
    """A matrix that a LoRA changes: of the motion layer at `place`, or of the image UNet's transformer there.

    `name` is the authors' for a motion layer (`transformer_blocks.0.attention_blocks.0.to_q`), LDM's for the image UNet
    (`transformer_blocks.0.attn1.to_q`), which is diffusers' too.
    """

    kind: Kind
    place: str
    name: str


@dataclass(frozen=True, eq=False)
class LowRank:
    """`down`: (rank, inputs). `up`: (outputs, rank). `scale`: alpha over rank, or 1 where the file says nothing of it."""

    down: Tensor
    up: Tensor
    scale: float

    def change(self) -> Tensor:
        """What it adds to the matrix at strength 1, `(outputs, inputs)` in float32."""
        return self.scale * (self.up.float() @ self.down.float())


@dataclass(frozen=True, eq=False)
class Lora:
    """`left_out`: keys that are neither of motion layers, nor of the image UNet's attention, nor for the WebUI's own loader."""

    path: Path
    parts: dict[Target, LowRank]
    left_out: tuple[str, ...] = ()


# --- files ---

_PART = re.compile(
    r"(?P<target>.+?)(?:[._]lora)?\.(?:(?:lora_)?(?:(?P<down>down|A)|(?P<up>up|B))(?:\.default)?\.weight|(?P<alpha>alpha))"
)
_PREFIX = re.compile(r"(?:module_|base_model_model_|lora_unet_|unet_)+")
_BLOCK = r"(?:(?P<side>down|up)_blocks_(?P<level>\d+)|(?P<mid>mid)_block)_"
_NAME = r"(?:attention_blocks_(?P<authors>[01])|attn(?P<theirs>[12]))_to_(?P<matrix>q|k|v|out)(?:_0)?|ff_net_(?P<ff>0_proj|2)"
_PROJECTION = r"(?P<proj>proj_in|proj_out)"
_MOTION = re.compile(
    rf"{_BLOCK}motion_modules_(?P<index>\d+)_(?:temporal_transformer_)?(?:transformer_blocks_(?P<depth>0)_(?:{_NAME})|{_PROJECTION})"
)
_IMAGE = re.compile(rf"{_BLOCK}attentions_(?P<index>\d+)_(?:transformer_blocks_(?P<depth>\d+)_(?:{_NAME})|{_PROJECTION})")
"""A motion layer has one transformer block, SDXL's image UNet up to ten at a place."""
_OURS = re.compile(r"motion_modules?[._]|^(?!lora_unet).*attentions\.\d+\..*lora")
"""Keys that only we can mean. Kohya's for the image UNet are read by the WebUI itself."""
_OF_THE_WEBUI = ("lora_unet_", "lora_te")


def target_of(key: str) -> tuple[Target, str] | None:
    """What a key of a LoRA file belongs to, and which part of it it is: "down", "up" or "alpha"; None for other keys."""
    if not (part := _PART.fullmatch(key)):
        return None
    name = part["target"].replace(".", "_").replace("_processor_", "_")  # MotionDirector has it in the middle of names
    bare = _PREFIX.sub("", name, count=1) if _PREFIX.match(name) else name
    which = next(which for which in ("down", "up", "alpha") if part[which])
    if match := _MOTION.fullmatch(bare):
        return Target("motion", place_of(match), _authors_name(match)), which
    if (match := _IMAGE.fullmatch(bare)) and not name.startswith("lora_unet_") and not match["authors"]:
        return Target("image", place_of(match), _image_name(match)), which
    return None


def _authors_name(match: re.Match[str]) -> str:
    if match["matrix"]:
        index = match["authors"] or int(match["theirs"]) - 1
        return f"{BLOCK}attention_blocks.{index}.to_{match['matrix']}" + (".0" if match["matrix"] == "out" else "")
    return _shared_name(match)


def _image_name(match: re.Match[str]) -> str:
    if match["matrix"]:
        block = f"transformer_blocks.{match['depth']}."
        return f"{block}attn{match['theirs']}.to_{match['matrix']}" + (".0" if match["matrix"] == "out" else "")
    return _shared_name(match)


def _shared_name(match: re.Match[str]) -> str:
    return match["proj"] or f"transformer_blocks.{match['depth']}.ff.net.{match['ff'].replace('_', '.')}"


def kinds_of(entries: Iterable[str]) -> set[Kind]:
    """What a LoRA file changes that is ours to apply; nothing where it is a LoRA of another kind, or none."""
    return {found[0].kind for key in entries if (found := target_of(key))}


def load_lora(path: Path) -> Lora:
    """Reads what of a file is ours to apply. Raises CheckpointError, with the key, where that is none, or not whole."""
    file = open_weights(path)
    keys: dict[Target, dict[str, str]] = defaultdict(dict)
    strangers, left_out = [], []
    for key in file.entries:
        if found := target_of(key):
            keys[found[0]][found[1]] = key
        elif _OURS.search(key) or key.endswith("dora_scale"):
            strangers.append(key)
        elif not key.startswith(_OF_THE_WEBUI):
            left_out.append(key)
    if strangers:
        raise CheckpointError(f"{path.name} cannot be used as a LoRA: {strangers[0]} is no key that AnimateDiff knows.")
    if not keys:
        raise CheckpointError(f"{path.name} is neither a motion LoRA nor a domain adapter.")
    return Lora(path, {target: _low_rank(path, file, parts) for target, parts in keys.items()}, tuple(left_out))


def _low_rank(path: Path, file: WeightFile, keys: dict[str, str]) -> LowRank:
    present = next(iter(keys.values()))
    for part in ("down", "up"):
        if part not in keys:
            raise CheckpointError(f"{path.name} is incomplete: {present} has no {part} matrix beside it. Download it again.")
    shapes = [file.entries[keys[part]].shape for part in ("down", "up")]
    rank = _rank(file.entries[keys["down"]], file.entries[keys["up"]])
    if rank is None:
        raise CheckpointError(
            f"{path.name} is altered: {keys['down']} is {list(shapes[0])}, which does not fit {keys['up']}, {list(shapes[1])}. "
            "Download it again."
        )
    scale = float(file.read(keys["alpha"])) / rank if "alpha" in keys else _scale_in_header(file)
    down, up = (file.read(keys[part]).clone() for part in ("down", "up"))  # on Windows no file is replaced that has views
    return LowRank(down.reshape(rank, -1), up.reshape(-1, rank), scale)


def _rank(down: Entry, up: Entry) -> int | None:
    """Matrices may come as 1×1 kernels."""
    flat = all(len(entry.shape) >= 2 and set(entry.shape[2:]) <= {1} for entry in (down, up))
    return down.shape[0] if flat and down.shape[0] == up.shape[1] else None


def _scale_in_header(file: WeightFile) -> float:
    """diffusers writes PEFT's `lora_alpha` and `r` into the header of a safetensors file; else nothing is scaled."""
    facts = file.header_json("lora_adapter_metadata")
    alpha, rank = (facts.get(f"unet.{name}") for name in ("lora_alpha", "r"))
    return alpha / rank if alpha and rank else 1.0


def kohya_name(place: str, name: str) -> str:
    """What kohya's trainer calls the layer `name` of the image UNet's transformer at `place`."""
    side, *numbers = place.split("_")
    block = f"{side}_blocks_{numbers[0]}" if len(numbers) == 2 else f"{side}_block"
    return f"lora_unet_{block}_attentions_{numbers[-1]}_{name.replace('.', '_')}"


def key_of(target: Target, part: Literal["down", "up"], layout: Layout = "original") -> str:
    """The key of one matrix of a LoRA: as the authors name it, or, with PEFT's words, diffusers."""
    if layout == "diffusers":
        name = f"{target.name}.{'lora_A' if part == 'down' else 'lora_B'}.weight"
        prefix = "unet."
    else:
        *attention, matrix = target.name.removesuffix(".0").split(".")
        name = ".".join([*attention, "processor", f"{matrix}_lora", part, "weight"])
        prefix = ""
    key = prefix + key_layouts.key_of(target.place, name, layout)
    return key if target.kind == "motion" else key.replace("motion_modules", "attentions").replace("temporal_transformer.", "")
