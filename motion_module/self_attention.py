"""What the image UNet's self-attention looks at, in place of its own picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from .attach import blocks_by_place


@contextmanager
def looking_at(unet: nn.Module, chosen: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While open, every spatial self-attention of an LDM UNet makes keys and values of what `chosen` returns.

    `chosen` is given the tokens of a call, `(rows, positions, channels)`, and returns as many rows, of any number of positions:
    those of the first frame for all, say, or each row's own with another's behind them.
    """

    def look(
        _attention: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Any]
    ) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        return inputs[:1], {**named, "context": chosen(inputs[0])}

    with ExitStack() as undo:
        for block in blocks_by_place(unet).values():
            for transformer in getattr(block, "transformer_blocks", ()):
                undo.callback(transformer.attn1.register_forward_pre_hook(look, with_kwargs=True).remove)
        yield
