"""What the image UNet's self-attention looks at, in place of its own picture or beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .attach import LayoutOf, blocks_by_place
from .patching import patched

Chosen = Callable[[nn.Module, Tensor], Tensor]
"""From an attention and the tokens of a call, `(rows, positions, channels)`, to as many rows of any number of positions: those
of the first frame for all, say, or each row's own with another's behind them.
"""


@contextmanager
def looking_at(unet: nn.Module, chosen: Chosen, strength: float = 1.0) -> Iterator[None]:
    """While open, every spatial self-attention of an LDM UNet makes keys and values of what `chosen` returns.

    `strength`: below 1, what it finds so is mixed with what it finds by itself; at 0 it is left alone.
    """
    with ExitStack() as undo:
        for block in blocks_by_place(unet).values() if strength else ():
            for transformer in getattr(block, "transformer_blocks", ()):
                attention = transformer.attn1
                undo.enter_context(patched(attention, "forward", _looking(attention, chosen, strength)))
        yield


def _looking(attention: Any, chosen: Chosen, strength: float) -> Callable[..., Tensor]:
    by_itself = attention.forward  # the class's, or what another extension put there: it goes on acting

    def forward(x: Tensor, *others: Any, **named: Any) -> Tensor:
        found: Tensor = by_itself(x, **{**named, "context": chosen(attention, x)})
        return found if strength == 1 else torch.lerp(by_itself(x, *others, **named), found, strength)

    return forward


class Anchor:
    """Offers every frame the first frame of its clip, behind the frame itself: what is there is to stay as it is.

    Where a clip passes in windows, the first frame is as it was in the last window that had it; `Windows` puts one first.
    """

    def __init__(self, layout_of: LayoutOf) -> None:
        self._layout_of = layout_of
        self._first: dict[nn.Module, Tensor] = {}

    def __call__(self, attention: nn.Module, tokens: Tensor) -> Tensor:
        layout = self._layout_of(len(tokens))
        clips = layout.to_clips(tokens)  # (clips, frames, positions, channels)
        first = clips[:, 0] if layout.shown is None else self._first_of_windows(attention, clips, layout.shown)
        return layout.to_rows(torch.cat([clips, first[:, None].expand_as(clips)], dim=2))

    def _first_of_windows(self, attention: nn.Module, clips: Tensor, shown: Tensor) -> Tensor:
        there = (shown == 0).nonzero()
        if len(there):
            clip, place = there[0].tolist()
            of_that_window = (shown == shown[clip]).all(dim=1).to(clips.device)
            self._first[attention] = clips[of_that_window, place]
        first = self._first[attention]
        return first.repeat(len(clips) // len(first), 1, 1)
