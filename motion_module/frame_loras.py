"""LoRAs whose strength differs from frame to frame.

All rows of a UNet call have the same weights. So such a LoRA is merged into none: in each layer that it changes, s·up·down·x is
added to the output, where s is the strength of the frame that a row is. That costs the same for any schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .attach import LayoutOf, blocks_by_name
from .lora import Lora, LowRank
from .motion_strength import PerFrame
from .network import MotionModule, TemporalTransformer
from .ordinary_loras import layers_by_name
from .patching import patched
from .weight_patches import adding, image_part_of, image_parts, motion_parts


def changes_image_model(loras: Iterable[tuple[Lora, PerFrame]]) -> bool:
    """Returns whether one of these LoRAs changes the image model, from frame to frame."""
    return any(
        isinstance(strength, tuple) and any(target.kind != "motion" for target in lora.parts) for lora, strength in loras
    )


@contextmanager
def added_by_frame(
    unet: Any, modules: Iterable[MotionModule], loras: Iterable[tuple[Lora, PerFrame]], layout_of: LayoutOf
) -> Iterator[None]:
    """While open, LoRAs with a strength for each frame act in a UNet and in motion modules; others are left out.

    Raises CheckpointError for a LoRA that does not fit, before anything is changed.
    """
    varying = [(lora, torch.tensor(strength)) for lora, strength in loras if isinstance(strength, tuple)]
    blocks, names = blocks_by_name(unet), layers_by_name(unet)
    in_image = [
        (layer, adding(part, of_rows=_of_rows(strengths, layout_of)))
        for lora, strengths in varying
        for layer, part in (*image_parts(blocks, lora), *ordinary_parts(names, lora))
    ]
    in_motion = [
        (module, linear, rows, part, strengths)
        for module in modules
        for lora, strengths in varying
        for linear, rows, part in motion_parts(module, lora)
    ]
    with ExitStack() as undo:
        for layer, hook in in_image:
            undo.callback(layer.register_forward_hook(hook).remove)
        for module, linear, rows, part, strengths in in_motion:
            layer = _layer_of(module, linear)
            if not layer.tells_frames:
                undo.enter_context(patched(layer, "tells_frames", True))
                undo.enter_context(patched(layer, "frames_now", None))
            undo.callback(linear.register_forward_hook(_in_motion_layer(layer, rows, part, strengths)).remove)
        yield


def require_ordinary_fit(unet: Any, lora: Lora) -> None:
    """Raises CheckpointError if what a LoRA changes in the image model is made for another checkpoint."""
    ordinary_parts(layers_by_name(unet), lora)


def ordinary_parts(layers: dict[str, nn.Module], lora: Lora) -> list[tuple[nn.Module, LowRank]]:
    """Returns what an ordinary LoRA changes: the layers, and the change. Raises CheckpointError."""
    return [
        image_part_of(lora, target, part, layers.get(target.name))
        for target, part in lora.parts.items()
        if target.kind == "unet"
    ]


def _of_rows(strengths: Tensor, layout_of: LayoutOf) -> Callable[[Tensor], Tensor]:
    """Returns what gives the strength for each row of a layer's input."""

    def of(x: Tensor) -> Tensor:
        layout = layout_of(len(x))
        return layout.to_rows(layout.of_video(strengths)).view(-1, *[1] * (x.ndim - 1))

    return of


def _layer_of(module: MotionModule, linear: nn.Linear) -> TemporalTransformer:
    """Returns the motion layer that a linear layer is in."""
    return next(layer for layer in module.layers.values() if any(part is linear for part in layer.modules()))  # type: ignore


def _in_motion_layer(layer: TemporalTransformer, rows: slice, part: LowRank, strengths: Tensor) -> Callable[..., Tensor]:
    """Returns a hook for a linear layer of a motion layer. `rows`: those of its matrix that the LoRA changes."""

    def of(x: Tensor) -> Tensor:
        assert layer.frames_now is not None
        return strengths.to(x.device)[layer.frames_now][..., None]

    add = adding(part, of_rows=of)

    def add_to_rows(linear: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        output[..., rows] = add(linear, inputs, output[..., rows])
        return output

    return add_to_rows
