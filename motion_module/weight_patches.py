"""Temporary changes of weights: LoRAs, and positional encodings for more frames. Afterwards the original tensors are back.

In motion layers a LoRA is merged into the weights, which costs no time in sampling. The image UNet's weights are changed by the
WebUI too; so there, the change is computed separately and added to the output of the layer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .key_layouts import TRANSFORMER_BLOCK
from .lora import Lora, LowRank, Target
from .motion_strength import PerFrame
from .network import MotionModule, TemporalTransformer, sinusoidal_positions
from .patching import patched
from .weight_files import CheckpointError

# --- motion LoRAs ---


@contextmanager
def merged(module: MotionModule, loras: Iterable[tuple[Lora, PerFrame]]) -> Iterator[None]:
    """While open, the matrices of `module` are W + Σ strength·up·down, computed in float32.

    LoRAs with a strength for each frame are left out (`frame_loras`). Raises CheckpointError for a LoRA that does not fit,
    before anything is changed.
    """
    changes: dict[nn.Linear, list[tuple[slice, Tensor]]] = defaultdict(list)
    for lora, strength in loras:
        for linear, rows, part in motion_parts(module, lora):
            if strength and not isinstance(strength, tuple):
                changes[linear].append((rows, strength * part.change()))
    with ExitStack() as undo:
        for linear, parts in changes.items():
            weight = linear.weight.detach().to(torch.float32, copy=True)
            for rows, change in parts:
                weight[rows] += change.to(weight.device)
            undo.enter_context(patched(linear, "weight", nn.Parameter(weight, requires_grad=False)))
        yield


def require_motion_fit(module: MotionModule, lora: Lora) -> None:
    """Raises CheckpointError if the motion layers' part of a LoRA is made for another module.

    If the module has no layer in the middle block, the LoRA's part for it is left out, as the authors do.
    """
    motion_parts(module, lora)


def motion_parts(module: MotionModule, lora: Lora) -> list[tuple[nn.Linear, slice, LowRank]]:
    """Returns what a LoRA changes in a motion module: the layers, which rows of their matrices, and the change.

    Raises CheckpointError.
    """
    parts = []
    for target, part in lora.parts.items():
        if target.kind == "motion" and not (target.block == "mid_0" and "mid_0" not in module.layers):
            linear, rows = _matrix(module, lora, target)
            _require_size(lora, target, part, linear.weight[rows])
            parts.append((linear, rows, part))
    return parts


_MATRICES = {
    "proj_in": "proj_in",
    "proj_out": "proj_out",
    TRANSFORMER_BLOCK + "ff.net.0.proj": "feed_forward.widen",
    TRANSFORMER_BLOCK + "ff.net.2": "feed_forward.narrow",
}


def _matrix(module: MotionModule, lora: Lora, target: Target) -> tuple[nn.Linear, slice]:
    """Returns the layer with a matrix, and the rows of the matrix in it: those for query, key and value are one layer."""
    if target.block not in module.layers:
        raise CheckpointError(
            f"{lora.path.name} is made for another kind of motion module: the chosen one has no layer at {target.block}. "
            "Choose the motion module that the LoRA is made for, or remove the LoRA from the prompt."
        )
    layer = module.layers[target.block]
    assert isinstance(layer, TemporalTransformer)
    if target.name in _MATRICES:
        return layer.get_submodule(_MATRICES[target.name]), slice(None)  # type: ignore[return-value]
    attention = layer.attentions[int(target.name[len(TRANSFORMER_BLOCK + "attention_blocks.")])]
    if target.name.endswith("to_out.0"):
        return attention.to_out, slice(None)  # type: ignore[return-value]
    channels = layer.norm.num_channels
    first = "qkv".index(target.name[-1]) * channels
    return attention.to_qkv, slice(first, first + channels)  # type: ignore[return-value]


def _require_size(lora: Lora, target: Target, part: LowRank, weight: Tensor) -> None:
    shape = part.up.shape[0], part.down.shape[1]
    if shape != weight.shape:
        raise CheckpointError(
            f"{lora.path.name} does not fit: at {target} it changes a matrix of {list(shape)}, and the model has "
            f"{list(weight.shape)}. Choose the model that the LoRA is made for, or remove it from the prompt."
        )


# --- domain adapters ---


@contextmanager
def added_to_unet(transformers: dict[str, nn.Module], loras: Iterable[tuple[Lora, PerFrame]]) -> Iterator[None]:
    """While open, the layers of the image UNet that `loras` change compute (W + strength·up·down)·x.

    `transformers`: the UNet's blocks (`attach.blocks_by_name`). LoRAs with a strength for each frame are left out. Raises
    CheckpointError for a LoRA that does not fit, before anything is changed.
    """
    hooks = [
        (layer, adding(part, strength))
        for lora, strength in loras
        for layer, part in image_parts(transformers, lora)
        if strength and not isinstance(strength, tuple)
    ]
    with ExitStack() as undo:
        for layer, hook in hooks:
            undo.callback(layer.register_forward_hook(hook).remove)
        yield


def require_image_fit(transformers: dict[str, nn.Module], lora: Lora) -> None:
    """Raises CheckpointError if the image UNet's part of a LoRA is made for another checkpoint."""
    image_parts(transformers, lora)


def image_parts(transformers: dict[str, nn.Module], lora: Lora) -> list[tuple[nn.Module, LowRank]]:
    """Returns what a LoRA changes in the image UNet: the layers, and the change. Raises CheckpointError."""
    parts = []
    for target, part in lora.parts.items():
        if target.kind == "image":
            parts.append(image_part_of(lora, target, part, _image_layer(target, transformers)))
    return parts


def image_part_of(lora: Lora, target: Target, part: LowRank, layer: nn.Module | None) -> tuple[nn.Module, LowRank]:
    """Returns the layer that a part of a LoRA changes, and the part. Raises CheckpointError if it does not fit."""
    if layer is None:
        raise CheckpointError(
            f"{lora.path.name} is made for another kind of checkpoint: this one has no {target}. Choose the checkpoint that "
            "the LoRA is made for, or remove the LoRA from the prompt."
        )
    weight: Tensor = layer.weight  # type: ignore[assignment]
    _require_size(lora, target, part, weight.flatten(1))
    return layer, part


def _image_layer(target: Target, transformers: dict[str, nn.Module]) -> nn.Module | None:
    try:
        return transformers[target.block].get_submodule(target.name)
    except (KeyError, AttributeError):
        return None


def adding(part: LowRank, strength: float = 1.0, of_rows: Callable[[Tensor], Tensor] | None = None) -> Callable[..., Tensor]:
    """Returns a hook for a linear or convolutional layer, which adds strength·up·down·x to its output.

    `of_rows`: returns a strength for each row of the layer's input, `(rows, 1, …)`, if they have different ones.
    """
    down, up = part.down.float(), strength * part.scale * part.up.float()

    def add(layer: Any, inputs: Any, output: Tensor) -> Tensor:
        nonlocal down, up
        if down.device != output.device or down.dtype != output.dtype:
            down, up = down.to(output.device, output.dtype), up.to(output.device, output.dtype)
        (x,) = inputs
        if is_convolution := layer.weight.ndim == 4:
            kernel = down.unflatten(1, (-1, *layer.kernel_size))
            padding = layer.padding
            if layer.padding_mode != "zeros":  # A1111's “Tiling” makes it "circular"
                x, padding = F.pad(x, layer._reversed_padding_repeated_twice, mode=layer.padding_mode), 0
            inside = F.conv2d(x, kernel, None, layer.stride, padding, layer.dilation)
        else:
            inside = F.linear(x, down)
        if of_rows is not None:
            inside = inside * of_rows(x).to(inside.device, inside.dtype)
        if is_convolution:
            return output + F.conv2d(inside, up[:, :, None, None])
        rows = inside.to(output.dtype).flatten(0, -2)
        return torch.addmm(output.flatten(0, -2), rows, up.t()).view_as(output)  # one pass over the output, not two

    return add


# --- positional encodings ---

PositionalEncodingMode = Literal["as trained", "stretch", "extend"]


@contextmanager
def resized_positional_encoding(
    module: MotionModule, mode: PositionalEncodingMode, frames: int, trained_on: int
) -> Iterator[None]:
    """While open, the positional encodings of `module` are made for `frames` frames.

    "stretch": the rows for the `trained_on` frames that it was trained on are interpolated to all frames, so that the same
    motion takes longer. "extend": the sinusoid is continued beyond the last row.
    """
    with ExitStack() as undo:
        for layer in module.layers.values():
            for attention in layer.attentions:  # type: ignore[union-attr]
                table = resized_table(attention.positional_encoding, mode, frames, trained_on)
                if table is not attention.positional_encoding:
                    undo.enter_context(patched(attention, "positional_encoding", table))
        yield


def resized_table(table: Tensor, mode: PositionalEncodingMode, frames: int, trained_on: int) -> Tensor:
    """Returns a positional encoding `(rows, channels)` for `frames` frames; `table` itself if nothing has to change.

    "stretch" interpolates each channel along the frames with `align_corners` off, which is the usual setting.
    """
    if mode == "stretch" and frames > min(trained_on, len(table)):
        rows = table[: min(trained_on, len(table))].float().t()[None]
        return F.interpolate(rows, size=frames, mode="linear")[0].t().contiguous()
    if mode == "extend" and frames > len(table):
        more = sinusoidal_positions(frames, table.shape[1])[len(table) :]
        return torch.cat([table, more.to(table)])
    return table
