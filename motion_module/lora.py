"""LoRAs (arXiv 2106.09685) beside a motion module: motion LoRAs and domain adapters (arXiv 2307.04725, 4.1 and 4.3).

A motion LoRA changes the matrices of motion layers, a domain adapter those of the image UNet's attention: W + s·up·down. Files
come as their authors published them (`…processor.to_q_lora.down.weight`), from diffusers and PEFT (`…to_q.lora_A.weight`), from
MotionDirector (the authors' form), and in kohya's form (`lora_unet_…_to_q.lora_down.weight` with `alpha`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from .files import CheckpointError, Entry, WeightFile, open_weights
from .layouts import BLOCK, place_of
from .network import MotionModule, TemporalTransformer

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


@dataclass(frozen=True)
class LowRank:
    """`down`: (rank, inputs). `up`: (outputs, rank). `scale`: alpha over rank, or 1 where the file says nothing of it."""

    down: Tensor
    up: Tensor
    scale: float

    def change(self) -> Tensor:
        """What it adds to the matrix at strength 1, `(outputs, inputs)` in float32."""
        return self.scale * (self.up.float() @ self.down.float())


@dataclass(frozen=True)
class Lora:
    path: Path
    parts: dict[Target, LowRank]

    @property
    def name(self) -> str:
        return self.path.stem


# --- files ---

_PART = re.compile(
    r"(?P<target>.+?)(?:[._]lora)?\.(?:(?:lora_)?(?:(?P<down>down|A)|(?P<up>up|B))(?:\.default)?\.weight|(?P<alpha>alpha))"
)
_PREFIX = re.compile(r"(?:module_|base_model_model_|lora_unet_|unet_)+")
_BLOCK = r"(?:(?P<side>down|up)_blocks_(?P<level>\d+)|(?P<mid>mid)_block)_"
_NAME = (
    r"transformer_blocks_0_(?:attention_blocks_(?P<authors>[01])|attn(?P<theirs>[12]))_to_(?P<matrix>q|k|v|out)(?:_0)?"
    r"|transformer_blocks_0_ff_net_(?P<ff>0_proj|2)|(?P<proj>proj_in|proj_out)"
)
_MOTION = re.compile(rf"{_BLOCK}motion_modules_(?P<index>\d+)_(?:temporal_transformer_)?(?:{_NAME})")
_IMAGE = re.compile(rf"{_BLOCK}attentions_(?P<index>\d+)_(?:{_NAME})")
_OURS = re.compile(r"motion_modules?[._]|^(?!lora_unet).*attentions\.\d+\..*lora")
"""Keys that only we can mean. Kohya's for the image UNet are read by the WebUI itself."""


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
        return f"{BLOCK}attn{match['theirs']}.to_{match['matrix']}" + (".0" if match["matrix"] == "out" else "")
    return _shared_name(match)


def _shared_name(match: re.Match[str]) -> str:
    return match["proj"] or f"{BLOCK}ff.net.{match['ff'].replace('_', '.')}"


def kinds_of(entries: Iterable[str]) -> set[Kind]:
    """What a LoRA file changes that is ours to apply; nothing where it is a LoRA of another kind, or none."""
    return {found[0].kind for key in entries if (found := target_of(key))}


def load_lora(path: Path) -> Lora:
    """Reads what of a file is ours to apply. Raises CheckpointError, with the key, where that is none, or not whole."""
    file = open_weights(path)
    keys: dict[Target, dict[str, str]] = defaultdict(dict)
    strangers = []
    for key in file.entries:
        if found := target_of(key):
            keys[found[0]][found[1]] = key
        elif _OURS.search(key):
            strangers.append(key)
    if strangers:
        raise CheckpointError(f"{path.name} cannot be used as a LoRA: {strangers[0]} is no key that AnimateDiff knows.")
    if not keys:
        raise CheckpointError(f"{path.name} is neither a motion LoRA nor a domain adapter.")
    return Lora(path, {target: _low_rank(path, file, parts) for target, parts in keys.items()})


def _low_rank(path: Path, file: WeightFile, keys: dict[str, str]) -> LowRank:
    present = next(iter(keys.values()))
    for part in ("down", "up"):
        if part not in keys:
            raise CheckpointError(f"{path.name} is incomplete: {present} has no {part} matrix beside it. Download it again.")
    down, up = file.entries[keys["down"]], file.entries[keys["up"]]
    rank = _rank(down, up)
    if rank is None:
        raise CheckpointError(
            f"{path.name} is altered: {keys['down']} is {list(down.shape)}, which does not fit {keys['up']}, {list(up.shape)}. "
            "Download it again."
        )
    scale = float(file.read(keys["alpha"])) / rank if "alpha" in keys else _scale_in_header(file)
    return LowRank(file.read(keys["down"]).reshape(rank, -1), file.read(keys["up"]).reshape(-1, rank), scale)


def _rank(down: Entry, up: Entry) -> int | None:
    """Matrices may come as 1×1 kernels."""
    flat = all(len(entry.shape) >= 2 and set(entry.shape[2:]) <= {1} for entry in (down, up))
    return down.shape[0] if flat and down.shape[0] == up.shape[1] else None


def _scale_in_header(file: WeightFile) -> float:
    """diffusers writes PEFT's `lora_alpha` and `r` into the header of a safetensors file; else nothing is scaled."""
    facts = file.header_json("lora_adapter_metadata")
    alpha, rank = (facts.get(f"unet.{name}") for name in ("lora_alpha", "r"))
    return alpha / rank if alpha and rank else 1.0


# --- motion layers: their matrices are ours, so they are merged, and nothing is slower for it ---

_MATRICES = {
    "proj_in": "proj_in",
    "proj_out": "proj_out",
    BLOCK + "ff.net.0.proj": "feed_forward.widen",
    BLOCK + "ff.net.2": "feed_forward.narrow",
}


@contextmanager
def merged(module: MotionModule, loras: Iterable[tuple[Lora, float]]) -> Iterator[None]:
    """While open, the matrices of `module` are W + Σ s·up·down; afterwards they are what they were, to the bit.

    Raises CheckpointError for a LoRA that does not fit, before anything changed.
    """
    changes: dict[nn.Linear, list[tuple[slice, Tensor]]] = defaultdict(list)
    for lora, strength in loras:
        for linear, rows, part in _motion_parts(module, lora):
            if strength:
                changes[linear].append((rows, strength * part.change()))
    with ExitStack() as undo:
        for linear, parts in changes.items():
            weight = linear.weight.detach().float()  # a copy, unless it is float32 already
            weight = weight.clone() if weight.data_ptr() == linear.weight.data_ptr() else weight
            for rows, change in parts:
                weight[rows] += change.to(weight.device)
            undo.enter_context(lent(linear, "weight", nn.Parameter(weight, requires_grad=False)))
        yield


def require_motion_fit(module: MotionModule, lora: Lora) -> None:
    """Raises CheckpointError where the motion parts of a LoRA are made for another module.

    Parts for a middle block that the module has not are left out, as the authors do.
    """
    _motion_parts(module, lora)


def _motion_parts(module: MotionModule, lora: Lora) -> list[tuple[nn.Linear, slice, LowRank]]:
    parts = []
    for target, part in lora.parts.items():
        if target.kind == "motion" and not (target.place == "mid_0" and "mid_0" not in module.layers):
            linear, rows = _matrix(module, lora, target)
            _require_size(lora, target, part, linear.weight[rows])
            parts.append((linear, rows, part))
    return parts


@contextmanager
def lent(owner: nn.Module, name: str, tensor: Tensor) -> Iterator[None]:
    """Another parameter or buffer for a while. The owner may move meanwhile: its own one comes back to where it is then."""
    own = getattr(owner, name)
    setattr(owner, name, tensor)
    try:
        yield
    finally:
        device = getattr(owner, name).device
        moved = own if own.device == device else own.detach().to(device)
        setattr(owner, name, nn.Parameter(moved, requires_grad=False) if isinstance(own, nn.Parameter) else moved)


def _matrix(module: MotionModule, lora: Lora, target: Target) -> tuple[nn.Linear, slice]:
    """The layer that holds a matrix, and the matrix's rows in it: those for query, key and value are one."""
    if target.place not in module.layers:
        raise CheckpointError(
            f"{lora.path.name} is made for another kind of motion module: there is no layer {target.place} in the chosen one."
        )
    layer = module.layers[target.place]
    assert isinstance(layer, TemporalTransformer)
    if target.name in _MATRICES:
        return layer.get_submodule(_MATRICES[target.name]), slice(None)  # type: ignore[return-value]
    attention = layer.attentions[int(target.name[len(BLOCK + "attention_blocks.")])]
    if target.name.endswith("to_out.0"):
        return attention.to_out, slice(None)  # type: ignore[return-value]
    channels = layer.norm.num_channels
    first = "qkv".index(target.name[-1]) * channels
    return attention.to_qkv, slice(first, first + channels)  # type: ignore[return-value]


def _require_size(lora: Lora, target: Target, part: LowRank, weight: Tensor) -> None:
    found = part.up.shape[0], part.down.shape[1]
    if found != weight.shape:
        raise CheckpointError(
            f"{lora.path.name} does not fit: at {target.place}.{target.name} it changes a matrix of {list(found)}, "
            f"where the model has {list(weight.shape)}."
        )


# --- the image UNet: its weights are not ours, and the WebUI changes them too, so what a LoRA adds is added to the output ---


@contextmanager
def added_to_unet(transformers: dict[str, nn.Module], loras: Iterable[tuple[Lora, float]]) -> Iterator[None]:
    """While open, the layers that the image parts of `loras` name compute (W + s·up·down)x.

    `transformers`: what of the UNet is at each place (`attach.blocks_by_place`). Raises CheckpointError for a part that does
    not fit, before anything changed.
    """
    hooks = [
        (layer, _adding(part, strength))
        for lora, strength in loras
        for layer, part in _image_parts(transformers, lora)
        if strength
    ]
    with ExitStack() as undo:
        for layer, hook in hooks:
            undo.callback(layer.register_forward_hook(hook).remove)
        yield


def require_image_fit(transformers: dict[str, nn.Module], lora: Lora) -> None:
    """Raises CheckpointError where the image parts of a LoRA are made for another checkpoint."""
    _image_parts(transformers, lora)


def _image_parts(transformers: dict[str, nn.Module], lora: Lora) -> list[tuple[nn.Module, LowRank]]:
    parts = []
    for target, part in lora.parts.items():
        if target.kind == "image":
            layer = _image_layer(lora, target, transformers)
            weight: Tensor = layer.weight  # type: ignore[assignment]
            _require_size(lora, target, part, weight.flatten(1))
            parts.append((layer, part))
    return parts


def _image_layer(lora: Lora, target: Target, transformers: dict[str, nn.Module]) -> nn.Module:
    try:
        return transformers[target.place].get_submodule(target.name)
    except (KeyError, AttributeError):
        raise CheckpointError(
            f"{lora.path.name} is made for another kind of checkpoint: there is no {target.place}.{target.name} in this one."
        ) from None


def _adding(part: LowRank, strength: float) -> Callable[..., Tensor]:
    down, up = part.down.float(), strength * part.scale * part.up.float()

    def add(layer: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        nonlocal down, up
        if down.device != output.device or down.dtype != output.dtype:
            down, up = down.to(output.device, output.dtype), up.to(output.device, output.dtype)
        (x,) = inputs
        if isinstance(layer, nn.Conv2d):  # 1×1
            return output + F.conv2d(F.conv2d(x, down[:, :, None, None]), up[:, :, None, None])
        return output + F.linear(F.linear(x, down), up)

    return add
