"""SDXL's size conditioning: the image sizes that its UNet gets beside the prompt (arXiv 2307.01952, section 2.2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from modules import shared
from torch import Tensor

from .. import host

Size = tuple[int, int]


def fixed_sizes(model: Any, original: Size, target: Size, active: Callable[[], bool]) -> AbstractContextManager[None]:
    """While open, and `active`, the UNet of an SDXL checkpoint is conditioned on these sizes, whatever the image's size.

    They go into calls of the UNet rather than into the prompt's conditions, which the WebUI caches for later images.
    """

    def with_sizes(vector: Tensor) -> Tensor:
        """Returns the vector `(rows, width)` with its sizes, which come after the text's values, replaced."""
        if not active():
            return vector
        crop = (shared.opts.data.get("sdxl_crop_top", 0), shared.opts.data.get("sdxl_crop_left", 0))
        new = (
            embedded((*original, *crop, *target), host.of(model).size_width(model)).flatten().to(vector).expand(len(vector), -1)
        )
        return torch.cat([vector[:, : -new.shape[1]], new], dim=1)

    return host.of(model).vector_replaced(model, with_sizes)


def embedded(values: tuple[int, ...], width: int) -> Tensor:
    """Returns the sinusoidal embedding `(values, width)` of numbers, as for timesteps: cosines first (arXiv 2006.11239)."""
    frequencies = torch.exp(-math.log(10_000) * torch.arange(width // 2, dtype=torch.float32) / (width // 2))
    angles = torch.tensor(values, dtype=torch.float32)[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)
