"""The image UNet's own layers, for some frames at a time, while the others wait: where they are, or in RAM.

A layer of the image UNet sees one row at a time, so nothing is changed by it. What a layer allocates while it works is then
that of a few frames, whatever the length of the clip. What lies between two layers, or waits for the way up, is that of all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .patching import patched


@contextmanager
def in_parts(unet: Any, rows: int, device: torch.device | None = None) -> Iterator[None]:
    """While open, layers of an LDM `UNetModel` work on `rows` rows at a time.

    `device`: where they work, if rows are to wait in RAM between layers. What the UNet returns lies there.
    """
    waiting = None if device is None else torch.device("cpu")
    blocks = [*unet.input_blocks, unet.middle_block, *unet.output_blocks]
    with ExitStack() as undo:
        for layer in (layer for block in blocks for layer in block):
            undo.enter_context(patched(layer, "forward", _in_parts(layer, rows, device, waiting)))
        undo.enter_context(patched(unet.out, "forward", _in_parts(unet.out, rows, device, device)))
        yield


def _in_parts(layer: nn.Module, rows: int, device: torch.device | None, after: torch.device | None) -> Callable[..., Tensor]:
    """`device`: where the layer works. `after`: where its result goes. None: where its rows come from."""
    whole = layer.forward

    def forward(x: Tensor, *others: Any) -> Tensor:
        found = []
        for first in range(0, len(x), rows):
            part = slice(first, first + rows)
            given = [other[part] if isinstance(other, Tensor) else other for other in others]
            found.append(whole(x[part].to(device or x.device), *given).to(after or x.device))
        return torch.cat(found)

    return forward
