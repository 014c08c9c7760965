"""LoRAs in training: for motion layers (motion LoRA) and for the image UNet's attention (domain adapter).

As the authors do (arXiv 2307.04725, sections 4.1 and 4.3), a LoRA has the matrices for query, key, value and output of every
attention: of the two in each motion layer, or of self- and cross-attention in each of the UNet's transformers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..key_layouts import TRANSFORMER_BLOCK
from ..lora import Lora, LowRank, Target, key_of
from ..network import MotionModule
from ..weight_patches import image_parts, motion_parts

MATRICES = ("to_q", "to_k", "to_v", "to_out.0")


Matrix = tuple[Target, tuple[int, int]]
"""A matrix that a LoRA changes, and its shape: outputs, inputs."""


def motion_matrices(module: MotionModule) -> list[Matrix]:
    """Returns the matrices that a motion LoRA for `module` changes."""
    return [
        (Target("motion", block, f"{TRANSFORMER_BLOCK}attention_blocks.{index}.{matrix}"), (channels, channels))
        for block, channels in module.channels.items()
        for index in (0, 1)
        for matrix in MATRICES
    ]


ATTENTIONS = tuple(f"{TRANSFORMER_BLOCK}{attention}.{matrix}" for attention in ("attn1", "attn2") for matrix in MATRICES)


def image_matrices(transformers: Mapping[str, nn.Module], names: tuple[str, ...] = ATTENTIONS) -> list[Matrix]:
    """Returns the matrices that a domain adapter changes in a UNet with the blocks `transformers`."""
    return [
        (Target("image", block, name), transformer.get_parameter(f"{name}.weight").shape)  # type: ignore[misc]
        for block, transformer in transformers.items()
        if hasattr(transformer, "transformer_blocks")
        for name in names
    ]


class LowRankLayers(nn.Module):
    """The matrices of a LoRA in training. A new LoRA changes nothing, because `up` is zero."""

    def __init__(self, matrices: list[Matrix], rank: int) -> None:
        super().__init__()
        self.targets = [target for target, _ in matrices]
        self.down = nn.ParameterList(nn.Parameter(torch.randn(rank, inputs) / rank) for _, (_, inputs) in matrices)
        self.up = nn.ParameterList(nn.Parameter(torch.zeros(outputs, rank)) for _, (outputs, _) in matrices)

    def published(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns `weights`, whose names are those of this module, under the authors' keys."""
        return {
            key_of(target, part): weights[f"{part}.{index}"]
            for index, target in enumerate(self.targets)
            for part in ("down", "up")
        }

    @contextmanager
    def added_to_motion(self, module: MotionModule) -> Iterator[None]:
        """While open, the LoRA acts in a motion module."""
        lora = self._lora()
        by_layer: dict[nn.Module, list[tuple[int, LowRank]]] = defaultdict(list)
        for linear, rows, part in motion_parts(module, lora):
            by_layer[linear].append((rows.start or 0, part))
        with self._added(
            {linear: [part for _, part in sorted(parts, key=lambda it: it[0])] for linear, parts in by_layer.items()}
        ):
            yield

    @contextmanager
    def added_to_unet(self, transformers: dict[str, nn.Module]) -> Iterator[None]:
        """While open, the LoRA acts in an image UNet with the blocks `transformers`."""
        with self._added({layer: [part] for layer, part in image_parts(transformers, self._lora())}):
            yield

    def _lora(self) -> Lora:
        parts = {target: LowRank(down, up, 1.0) for target, down, up in zip(self.targets, self.down, self.up)}
        return Lora(Path("the LoRA in training"), parts)

    @contextmanager
    def _added(self, parts: dict[nn.Module, list[LowRank]]) -> Iterator[None]:
        with ExitStack() as undo:
            for layer, lows in parts.items():
                undo.callback(layer.register_forward_hook(_adding(lows)).remove)
            yield


def _adding(parts: list[LowRank]) -> Callable[..., Tensor]:
    """Returns a hook that adds the results of a layer's LoRAs, concatenated along the channels, to its output."""

    def add(_layer: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        (x,) = inputs
        return output + torch.cat([F.linear(F.linear(x, part.down), part.up) for part in parts], dim=-1)

    return add
