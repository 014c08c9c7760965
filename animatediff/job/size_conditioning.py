"""SDXL's size conditioning: the image sizes that its UNet gets beside the prompt (arXiv 2307.01952, section 2.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from modules import shared
from torch import Tensor

from motion_module.patching import patched

Size = tuple[int, int]


@contextmanager
def fixed_sizes(model: Any, original: Size, target: Size, active: Callable[[], bool]) -> Iterator[None]:
    """While open, and `active`, the UNet of an SDXL checkpoint is conditioned on these sizes, whatever the image's size.

    They go into calls of the UNet rather than into the prompt's conditions, which the WebUI caches for later images.
    """
    values = {
        "original_size_as_tuple": original,
        "crop_coords_top_left": (shared.opts.sdxl_crop_top, shared.opts.sdxl_crop_left),
        "target_size_as_tuple": target,
    }
    embedders = [embedder for embedder in model.conditioner.embedders if embedder.input_key in values]
    whole = model.model.forward

    def with_sizes(vector: Tensor) -> Tensor:
        """Returns the vector `(rows, width)` with its sizes, which come after the text's values, replaced."""
        sizes = [embedder(torch.tensor([values[embedder.input_key]], device=vector.device)) for embedder in embedders]
        new = torch.cat(sizes, dim=1).to(vector).expand(len(vector), -1)
        return torch.cat([vector[:, : -new.shape[1]], new], dim=1)

    def forward(x: Tensor, timesteps: Tensor, conditions: dict[str, Any], **named: Any) -> Tensor:
        if active():
            conditions = {**conditions, "vector": with_sizes(conditions["vector"])}
        found: Tensor = whole(x, timesteps, conditions, **named)
        return found

    with patched(model.model, "forward", forward):
        yield
