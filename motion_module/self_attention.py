"""The tokens that the image UNet's self-attention attends to: in place of those of its own frame, or in addition to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .attach import LayoutOf, blocks_by_name
from .patching import patched

ContextOf = Callable[[nn.Module, Tensor], Tensor]
"""From an attention module and its tokens, `(rows, pixels, channels)`, returns the tokens that each row attends to: `(rows, any
number, channels)`, such as those of the first frame for all rows, or the row's own tokens followed by those of another one.
"""


@contextmanager
def self_attention_over(unet: nn.Module, context_of: ContextOf, strength: float = 1.0) -> Iterator[None]:
    """While open, every spatial self-attention of an LDM UNet computes keys and values from what `context_of` returns.

    `strength`: below 1, the result is interpolated with that of the unchanged attention; at 0 nothing changes.
    """
    with ExitStack() as undo:
        for block in blocks_by_name(unet).values() if strength else ():
            for transformer in getattr(block, "transformer_blocks", ()):
                attention = transformer.attn1
                undo.enter_context(patched(attention, "forward", _forward_over(attention, context_of, strength)))
        yield


def _forward_over(attention: Any, context_of: ContextOf, strength: float) -> Callable[..., Tensor]:
    unchanged = attention.forward  # the class's, or another extension's: it stays in use

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        result: Tensor = unchanged(x, **{**kwargs, "context": context_of(attention, x)})
        return result if strength == 1 else torch.lerp(unchanged(x, *args, **kwargs), result, strength)

    return forward


class FirstFrameAttention:
    """Lets every frame attend to the first frame of its clip in addition to itself, so that its content stays the same.

    If a clip is split into context windows, the tokens of the first frame are those of the last window that had it;
    `StepWindows` puts such a window first.
    """

    def __init__(self, layout_of: LayoutOf) -> None:
        self._layout_of = layout_of
        self._first: dict[nn.Module, Tensor] = {}

    def __call__(self, attention: nn.Module, tokens: Tensor) -> Tensor:
        layout = self._layout_of(len(tokens))
        clips = layout.to_clips(tokens)  # (clips, frames, pixels, channels)
        numbers = layout.frame_numbers
        first = clips[:, 0] if numbers is None else self._first_of_windows(attention, clips, numbers)
        return layout.to_rows(torch.cat([clips, first[:, None].expand_as(clips)], dim=2))

    def _first_of_windows(self, attention: nn.Module, clips: Tensor, frame_numbers: Tensor) -> Tensor:
        found = (frame_numbers == 0).nonzero()
        if len(found):
            clip, index = found[0].tolist()
            same_window = (frame_numbers == frame_numbers[clip]).all(dim=1).to(clips.device)
            self._first[attention] = clips[same_window, index]
        first = self._first[attention]
        return first.repeat_interleave(len(clips) // len(first), dim=0)  # the windows of a clip are together
