"""What the UNet of SDXL is told of a picture's size (arXiv 2307.01952, section 2.2)."""

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
def telling_sizes(model: Any, original: Size, target: Size, active: Callable[[], bool]) -> Iterator[None]:
    """While open, and `active`, the UNet of an SDXL checkpoint is told these sizes, whatever the size of the picture.

    They are put into calls of the UNet, not into the conditions of a prompt, since the WebUI keeps those for later pictures.
    """
    values = {
        "original_size_as_tuple": original,
        "crop_coords_top_left": (shared.opts.sdxl_crop_top, shared.opts.sdxl_crop_left),
        "target_size_as_tuple": target,
    }
    embedders = [embedder for embedder in model.conditioner.embedders if embedder.input_key in values]
    whole = model.model.forward

    def told(vector: Tensor) -> Tensor:
        """The text's part of `(rows, width)`, with other sizes behind it."""
        sizes = [embedder(torch.tensor([values[embedder.input_key]], device=vector.device)) for embedder in embedders]
        behind = torch.cat(sizes, dim=1).to(vector).expand(len(vector), -1)
        return torch.cat([vector[:, : -behind.shape[1]], behind], dim=1)

    def forward(x: Tensor, timesteps: Tensor, conditions: dict[str, Any], **named: Any) -> Tensor:
        if active():
            conditions = {**conditions, "vector": told(conditions["vector"])}
        found: Tensor = whole(x, timesteps, conditions, **named)
        return found

    with patched(model.model, "forward", forward):
        yield
