"""Weights that are others for a while: LoRAs, and position tables for more frames. Afterwards they are the very same tensors.

Motion layers are ours, so what a LoRA changes in them is merged, and nothing is slower for it. The image UNet's weights are not
ours, and the WebUI changes them too; so there, what a LoRA adds is added to the output.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .key_layouts import BLOCK
from .lora import Lora, LowRank, Target
from .network import MotionModule, TemporalTransformer, sinusoidal_positions
from .patching import patched
from .weight_files import CheckpointError

# --- motion LoRAs ---


@contextmanager
def merged(module: MotionModule, loras: Iterable[tuple[Lora, float]]) -> Iterator[None]:
    """While open, the matrices of `module` are W + Σ s·up·down, computed in float32.

    Raises CheckpointError for a LoRA that does not fit, before anything changed.
    """
    changes: dict[nn.Linear, list[tuple[slice, Tensor]]] = defaultdict(list)
    for lora, strength in loras:
        for linear, rows, part in motion_parts(module, lora):
            if strength:
                changes[linear].append((rows, strength * part.change()))
    with ExitStack() as undo:
        for linear, parts in changes.items():
            weight = linear.weight.detach().to(torch.float32, copy=True)
            for rows, change in parts:
                weight[rows] += change.to(weight.device)
            undo.enter_context(patched(linear, "weight", nn.Parameter(weight, requires_grad=False)))
        yield


def require_motion_fit(module: MotionModule, lora: Lora) -> None:
    """Raises CheckpointError where the motion parts of a LoRA are made for another module.

    Parts for a middle block that the module has not are left out, as the authors do.
    """
    motion_parts(module, lora)


def motion_parts(module: MotionModule, lora: Lora) -> list[tuple[nn.Linear, slice, LowRank]]:
    """What a LoRA changes in a motion module: layers, which rows of their matrices, and the change. Raises CheckpointError."""
    parts = []
    for target, part in lora.parts.items():
        if target.kind == "motion" and not (target.place == "mid_0" and "mid_0" not in module.layers):
            linear, rows = _matrix(module, lora, target)
            _require_size(lora, target, part, linear.weight[rows])
            parts.append((linear, rows, part))
    return parts


_MATRICES = {
    "proj_in": "proj_in",
    "proj_out": "proj_out",
    BLOCK + "ff.net.0.proj": "feed_forward.widen",
    BLOCK + "ff.net.2": "feed_forward.narrow",
}


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


# --- domain adapters ---


@contextmanager
def added_to_unet(transformers: dict[str, nn.Module], loras: Iterable[tuple[Lora, float]]) -> Iterator[None]:
    """While open, the layers that the image parts of `loras` name compute (W + s·up·down)x.

    `transformers`: what of the UNet is at each place (`attach.blocks_by_place`). Raises CheckpointError for a part that does
    not fit, before anything changed.
    """
    hooks = [
        (layer, _adding(part, strength))
        for lora, strength in loras
        for layer, part in image_parts(transformers, lora)
        if strength
    ]
    with ExitStack() as undo:
        for layer, hook in hooks:
            undo.callback(layer.register_forward_hook(hook).remove)
        yield


def require_image_fit(transformers: dict[str, nn.Module], lora: Lora) -> None:
    """Raises CheckpointError where the image parts of a LoRA are made for another checkpoint."""
    image_parts(transformers, lora)


def image_parts(transformers: dict[str, nn.Module], lora: Lora) -> list[tuple[nn.Module, LowRank]]:
    """What a LoRA changes in the image UNet: layers, and the change. Raises CheckpointError."""
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


# --- position tables ---

Positions = Literal["as trained", "stretch", "extend"]


@contextmanager
def positions(module: MotionModule, how: Positions, frames: int, trained_on: int) -> Iterator[None]:
    """While open, the position tables of `module` are made for `frames` frames.

    "stretch": the rows of the `trained_on` frames that it was trained on are drawn out over all frames, so that the same motion
    takes longer. "extend": rows beyond the end of the table go on as the sinusoid does.
    """
    with ExitStack() as undo:
        for layer in module.layers.values():
            for attention in layer.attentions:  # type: ignore[union-attr]
                table = changed_table(attention.positions, how, frames, trained_on)
                if table is not attention.positions:
                    undo.enter_context(patched(attention, "positions", table))
        yield


def changed_table(table: Tensor, how: Positions, frames: int, trained_on: int) -> Tensor:
    """A table `(rows, channels)` for `frames` frames; the same one where nothing has to change.

    Stretching interpolates along the frames, each channel by itself: `F.interpolate` with `align_corners` off, as is usual.
    """
    if how == "stretch" and frames > min(trained_on, len(table)):
        rows = table[: min(trained_on, len(table))].float().t()[None]
        return F.interpolate(rows, size=frames, mode="linear")[0].t().contiguous()
    if how == "extend" and frames > len(table):
        more = sinusoidal_positions(frames, table.shape[1])[len(table) :]
        return torch.cat([table, more.to(table)])
    return table
