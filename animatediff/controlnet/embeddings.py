"""IP-Adapters in a clip: an image embedding for each frame, and the keys and values that they give."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from motion_module.prompt_travel import Interpolation, Keyframe, Travel, between

KEPT_CALLS = 8
"""Of how many different UNet calls keys and values are kept: each context window is one, or two without a common batch."""


def travelling(
    embeddings: Sequence[Tensor], keyframes: Sequence[int], frames: int, how: Interpolation, *, closed: bool
) -> Tensor:
    """Returns the embedding of each frame, `(frames, tokens, width)`, where pictures are for some frames only.

    `embeddings`: those of the keyframes, `(1, tokens, width)` each. Between them they travel as prompts do.
    """
    travel = Travel(tuple(Keyframe(frame, frame, "") for frame in keyframes), frames, closed)
    of_frames = torch.zeros(frames, *embeddings[0].shape[1:])
    of_frames[list(keyframes)] = torch.cat(list(embeddings)).cpu().float()
    return between(of_frames, travel.sources(), how)


class AdaptedCalls:
    """Gives an IP-Adapter of ControlNet the embeddings of the rows of each UNet call.

    `model`: ControlNet's; it keeps keys and values for the first call that it sees. `conditions`: `(frames, tokens, width)`;
    None where one picture is for all frames.
    """

    def __init__(self, model: Any, conditions: Tensor | None) -> None:
        self._model = model
        self._conditions = conditions
        self._kept: OrderedDict[Any, dict[str, Tensor]] = OrderedDict()

    def begin(self, frames: list[int], context: Tensor) -> None:
        """Begins a UNet call with these frames. `context`: `(rows, tokens, width)`, ControlNet's mark first."""
        call = (*frames, *(context[:, 0, 0] < 0).tolist())
        self._model.cache = self._kept.setdefault(call, {})
        self._kept.move_to_end(call)
        if len(self._kept) > KEPT_CALLS:
            self._kept.popitem(last=False)
        if self._conditions is not None:
            self._model.image_emb = self._model.image_emb._replace(cond_emb=self._conditions[frames])
