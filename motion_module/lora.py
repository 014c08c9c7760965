"""LoRAs (arXiv 2106.09685) for AnimateDiff: motion LoRAs and domain adapters (arXiv 2307.04725, sections 4.1 and 4.3).

A motion LoRA changes the matrices of motion layers, a domain adapter those of the image UNet's attention: W + s·up·down. Keys
may be the authors' (`…processor.to_q_lora.down.weight`, also MotionDirector's), those of diffusers and PEFT
(`…to_q.lora_A.weight`), or kohya's (`lora_unet_…_to_q.lora_down.weight` with `alpha`). An alpha in another file, such as PEFT's
`adapter_config.json`, is not read.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from torch import Tensor

from . import key_layouts
from .key_layouts import TRANSFORMER_BLOCK, Layout, block_name
from .weight_files import CheckpointError, Entry, WeightFile, open_weights

Kind = Literal["motion", "image", "unet"]
MOST_IN_HEADER = 1_000_000
"""The most that alpha and rank may be there."""


@dataclass(frozen=True)
class Target:
    """A matrix that a LoRA changes: in the motion layer of a UNet block, or in the image UNet's transformer of that block.

    `name` is the authors' for a motion layer (`transformer_blocks.0.attention_blocks.0.to_q`), LDM's for the image UNet
    (`transformer_blocks.0.attn1.to_q`), which is diffusers' too. In an ordinary LoRA, which may change any layer of the image
    UNet, `block` is empty and `name` is kohya's.
    """

    kind: Kind
    block: str
    name: str

    def __str__(self) -> str:
        return f"{self.block}.{self.name}" if self.block else self.name


@dataclass(frozen=True, eq=False)
class LowRank:
    """The change of one matrix: `down` is `(rank, inputs)`, `up` is `(outputs, rank)`.

    `scale`: alpha divided by rank, or 1 if the file has no alpha.
    """

    down: Tensor
    up: Tensor
    scale: float

    def change(self) -> Tensor:
        """Returns what is added to the matrix at strength 1: `(outputs, inputs)` in float32."""
        return self.scale * (self.up.float() @ self.down.float())

    def of_rank(self, rank: int) -> LowRank:
        """Returns the change by its first `rank` components alone. The scale stays, as in the WebUI."""
        return LowRank(self.down[:rank], self.up[:, :rank], self.scale)


@dataclass(frozen=True, eq=False)
class Lora:
    """What a LoRA file changes.

    `left_out`: keys that are neither for motion layers, nor for the image UNet's attention, nor for the WebUI's own loader.
    `rank`: how many components of each matrix act; None for all.
    """

    path: Path
    parts: dict[Target, LowRank]
    left_out: tuple[str, ...] = ()
    rank: int | None = None

    def of_rank(self, rank: int | None) -> Lora:
        """Returns what the first `rank` components of each matrix change; all of them if it is None."""
        if rank is None:
            return self
        return replace(self, parts={target: part.of_rank(rank) for target, part in self.parts.items()}, rank=rank)


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
"""A motion layer has one transformer block; the image UNet of SDXL has up to ten in one of its blocks."""
_FOR_ANIMATEDIFF = re.compile(r"motion_modules?[._]|^(?!lora_unet).*attentions\.\d+\..*lora")
"""Keys that can only be for AnimateDiff. Kohya's keys for the image UNet are read by the WebUI itself."""
_FOR_THE_WEBUI = ("lora_unet_", "lora_te")


def target_of(key: str) -> tuple[Target, str] | None:
    """Returns the matrix that a key of a LoRA file changes, and its part: "down", "up" or "alpha". None for other keys."""
    if not (part := _PART.fullmatch(key)):
        return None
    name = part["target"].replace(".", "_").replace("_processor_", "_")  # MotionDirector's keys have it in the middle
    bare = _PREFIX.sub("", name, count=1) if _PREFIX.match(name) else name
    which = next(which for which in ("down", "up", "alpha") if part[which])
    if match := _MOTION.fullmatch(bare):
        return Target("motion", block_name(match), _authors_name(match)), which
    if (match := _IMAGE.fullmatch(bare)) and not name.startswith("lora_unet_") and not match["authors"]:
        return Target("image", block_name(match), _image_name(match)), which
    return None


def _authors_name(match: re.Match[str]) -> str:
    if match["matrix"]:
        index = match["authors"] or int(match["theirs"]) - 1
        return f"{TRANSFORMER_BLOCK}attention_blocks.{index}.to_{match['matrix']}" + (".0" if match["matrix"] == "out" else "")
    return _shared_name(match)


def _image_name(match: re.Match[str]) -> str:
    if match["matrix"]:
        block = f"transformer_blocks.{match['depth']}."
        return f"{block}attn{match['theirs']}.to_{match['matrix']}" + (".0" if match["matrix"] == "out" else "")
    return _shared_name(match)


def _shared_name(match: re.Match[str]) -> str:
    return match["proj"] or f"transformer_blocks.{match['depth']}.ff.net.{match['ff'].replace('_', '.')}"


def kinds_of(entries: Iterable[str]) -> set[Kind]:
    """Returns what a LoRA file changes that AnimateDiff applies: motion layers, the image UNet, both, or nothing."""
    return {found[0].kind for key in entries if (found := target_of(key))}


def load_lora(path: Path) -> Lora:
    """Reads what AnimateDiff applies of a LoRA file. Raises CheckpointError if that is nothing, incomplete or unknown."""
    file = open_weights(path)
    keys: dict[Target, dict[str, str]] = defaultdict(dict)
    unknown, left_out = [], []
    for key in file.entries:
        if found := target_of(key):
            keys[found[0]][found[1]] = key
        elif _FOR_ANIMATEDIFF.search(key) or key.endswith("dora_scale"):
            unknown.append(key)
        elif not key.startswith(_FOR_THE_WEBUI):
            left_out.append(key)
    if unknown:
        raise CheckpointError(
            f"{path.name} cannot be used as a LoRA: its key {unknown[0]} is unknown. Remove the LoRA from the prompt, "
            "or get it in the layout of diffusers or kohya."
        )
    if not keys:
        raise CheckpointError(f"{path.name} is neither a motion LoRA nor a domain adapter. Choose another file.")
    return Lora(path, {target: low_rank_of(path, file, parts) for target, parts in keys.items()}, tuple(left_out))


def low_rank_of(path: Path, file: WeightFile, keys: dict[str, str], *, kernels: bool = False) -> LowRank:
    """Reads one matrix of a LoRA. `keys`: of its parts. `kernels`: whether it may be a kernel larger than 1×1, flattened then.

    Raises CheckpointError.
    """
    present = next(iter(keys.values()))
    for part in ("down", "up"):
        if part not in keys:
            raise CheckpointError(f"{path.name} is incomplete: there is {present}, but no {part} matrix. Download it again.")
    shapes = [file.entries[keys[part]].shape for part in ("down", "up")]
    rank = _rank(file.entries[keys["down"]], file.entries[keys["up"]], kernels)
    if rank is None:
        raise CheckpointError(
            f"{path.name} is damaged: the shape {list(shapes[0])} of {keys['down']} does not fit {list(shapes[1])} of "
            f"{keys['up']}. Download it again."
        )
    scale = _scale(file, keys, rank)
    if not math.isfinite(scale):
        raise CheckpointError(f"{path.name} is damaged: the alpha of {present} is not a number. Download it again.")
    # Copies, because Windows does not replace a file that is mapped into memory.
    down, up = (file.weight(keys[part]).clone() for part in ("down", "up"))
    return LowRank(down.reshape(rank, -1), up.reshape(-1, rank), scale)


def _rank(down: Entry, up: Entry, kernels: bool) -> int | None:
    """Returns the rank of two matrices, which may be 1×1 convolution kernels; None if they do not fit each other."""
    flat = all(len(entry.shape) >= 2 for entry in (down, up)) and all(
        set(entry.shape[2:]) <= {1} for entry in ((up,) if kernels else (down, up))
    )
    return down.shape[0] if flat and down.shape[0] == up.shape[1] > 0 else None


def _scale(file: WeightFile, keys: dict[str, str], rank: int) -> float:
    """Returns alpha divided by rank; NaN if alpha is not one number."""
    if "alpha" not in keys:
        return _scale_in_header(file)
    alpha = file.read(keys["alpha"])
    return float(alpha) / rank if alpha.numel() == 1 else math.nan


def _scale_in_header(file: WeightFile) -> float:
    """Returns alpha divided by rank from PEFT's `lora_alpha` and `r`, which diffusers writes into the header; else 1."""
    facts = file.header_json("lora_adapter_metadata")
    alpha, rank = (facts.get(f"unet.{name}", 0) for name in ("lora_alpha", "r"))
    if not all(type(number) in (int, float) and 0 < number < MOST_IN_HEADER for number in (alpha, rank)):
        return 1.0
    return float(alpha / rank)


def kohya_name(block: str, name: str) -> str:
    """Returns kohya's name for the layer `name` in the image UNet's transformer of a block."""
    side, *numbers = block.split("_")
    path = f"{side}_blocks_{numbers[0]}" if len(numbers) == 2 else f"{side}_block"
    return f"lora_unet_{path}_attentions_{numbers[-1]}_{name.replace('.', '_')}"


def key_of(target: Target, part: Literal["down", "up"], layout: Layout = "original") -> str:
    """Returns the key of one matrix of a LoRA in the authors' layout, or in that of diffusers."""
    if layout == "diffusers":
        name = f"{target.name}.{'lora_A' if part == 'down' else 'lora_B'}.weight"
        prefix = "unet."
    else:
        *attention, matrix = target.name.removesuffix(".0").split(".")
        name = ".".join([*attention, "processor", f"{matrix}_lora", part, "weight"])
        prefix = ""
    key = prefix + key_layouts.key_of(target.block, name, layout)
    return key if target.kind == "motion" else key.replace("motion_modules", "attentions").replace("temporal_transformer.", "")
