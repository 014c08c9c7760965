"""The rows of a UNet call, and which clip, condition and frame each of them is.

A UNet that was trained on pictures sees frames as rows of its batch. Motion layers have to know which rows belong together.
The sampler above the UNet knows; nothing here is guessed from the size of the batch alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import UserError


class RowLayoutError(UserError):
    """The rows that reached the UNet cannot be told apart into whole clips."""


@dataclass(frozen=True)
class RowLayout:
    """How `rows` rows divide into clips of `frames` frames.

    `order[i]` is the row that holds frame `i % frames` of clip `i // frames`; None where rows are in that order already.
    A prompt under two conditions makes two clips of one video: they share no attention. `shown`: `(clips, frames)`, which frame
    of the video each is, where a clip is a window of it; None where clips are whole.
    """

    frames: int
    rows: int
    order: Tensor | None = None
    shown: Tensor | None = None

    def __post_init__(self) -> None:
        if self.rows == 0 or self.rows % self.frames:
            raise RowLayoutError(f"the UNet was given {self.rows} rows, which are not whole clips of {self.frames} frames")

    def to_clips(self, x: Tensor) -> Tensor:
        """`(rows, …)` to `(clips, frames, …)`."""
        self._check(x)
        if self.order is not None:
            x = x[self.order.to(x.device)]
        return x.reshape(-1, self.frames, *x.shape[1:])

    def to_rows(self, clips: Tensor) -> Tensor:
        """`(clips, frames, …)` back to `(rows, …)`; undoes `to_clips`."""
        x = clips.reshape(self.rows, *clips.shape[2:])
        if self.order is None:
            return x
        return x[torch.argsort(self.order).to(x.device)]

    def _check(self, x: Tensor) -> None:
        if x.shape[0] != self.rows:
            raise RowLayoutError(f"a motion layer was given {x.shape[0]} rows in a UNet call of {self.rows}")


def row_layout(rows: int, frames: int, parts: int = 1) -> RowLayout:
    """The layout of one UNet call of the WebUI's guidance (`CFGDenoiser`).

    With one prompt part per frame a call holds whole clips, one after another: `[prompt, negative]`, or one of them.
    With `parts` prompt parts joined by AND, the prompt's rows are frame-major — all parts of frame 0, then all of frame 1 —
    and the negative prompt's clip follows, unless it was left out or comes in a call of its own.

    Raises RowLayoutError where the rows are not one of these.
    """
    if parts == 1 or rows == frames:
        return RowLayout(frames, rows)
    prompt_rows = parts * frames
    if rows not in (prompt_rows, prompt_rows + frames):
        raise RowLayoutError(
            f"the UNet was given {rows} rows, but {frames} frames of {parts} prompt parts joined by AND make "
            f"{prompt_rows}, or {prompt_rows + frames} with the negative prompt"
        )
    order = torch.arange(prompt_rows).view(frames, parts).t().flatten()
    return RowLayout(frames, rows, torch.cat([order, torch.arange(prompt_rows, rows)]))
