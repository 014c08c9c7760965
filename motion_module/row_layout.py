"""Which clip, condition and frame each row of a UNet call is.

A UNet that was trained on images takes frames as rows of its batch, but motion layers have to know which rows belong to one
clip. The sampler above the UNet knows it; nothing here is guessed from the size of the batch alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import UserError


class RowLayoutError(UserError):
    """The rows of a UNet call are not whole clips. The text is for the user."""


@dataclass(frozen=True)
class RowLayout:
    """How `rows` rows are divided into clips of `frames` frames.

    `order[i]` is the row with frame `i % frames` of clip `i // frames`; None if the rows are in that order. A video under two
    conditions, such as a prompt and a negative prompt, is two clips: they share no attention. `frame_numbers`:
    `(clips, frames)`, the number of each frame in the video, if a clip is a context window of it; None if clips are whole.
    """

    frames: int
    rows: int
    order: Tensor | None = None
    frame_numbers: Tensor | None = None

    def __post_init__(self) -> None:
        if self.rows == 0 or self.rows % self.frames:
            raise RowLayoutError(
                f"The UNet was called with {self.rows} rows, which cannot be divided into clips of {self.frames} frames. "
                "Switch off other extensions that change the batch."
            )

    def to_clips(self, x: Tensor) -> Tensor:
        """Returns `(rows, …)` as `(clips, frames, …)`. Raises RowLayoutError."""
        self._require_rows(x)
        if self.order is not None:
            x = x[self.order.to(x.device)]
        return x.reshape(-1, self.frames, *x.shape[1:])

    def to_rows(self, clips: Tensor) -> Tensor:
        """Returns `(clips, frames, …)` as `(rows, …)`; undoes `to_clips`."""
        x = clips.reshape(self.rows, *clips.shape[2:])
        if self.order is None:
            return x
        return x[torch.argsort(self.order).to(x.device)]

    def of_video(self, values: Tensor) -> Tensor:
        """Returns what the frames of the video have, `(frames of the video, …)`, for each clip's: `(clips, frames, …)`."""
        if self.frame_numbers is None:
            return values.expand(self.rows // self.frames, *values.shape)
        return values[self.frame_numbers.to(values.device)]

    @property
    def numbers(self) -> Tensor:
        """The number in the video of each frame of each clip, `(clips, frames)`."""
        return self.of_video(torch.arange(self.frames)) if self.frame_numbers is None else self.frame_numbers

    def _require_rows(self, x: Tensor) -> None:
        if x.shape[0] != self.rows:
            raise RowLayoutError(
                f"A motion layer was called with {x.shape[0]} rows in a UNet call of {self.rows}. "
                "Switch off other extensions that change the batch."
            )


def layout_of_call(rows: int, frames: int, parts: int = 1) -> RowLayout:
    """Returns the layout of one UNet call of the WebUI's guidance (`CFGDenoiser`).

    With one prompt part per frame a call has whole clips, one after another: `[prompt, negative]`, or one of them.
    With `parts` prompt parts joined by AND, the prompt's rows are frame-major: all parts of frame 0, then all of frame 1.
    The negative prompt's clip follows, unless it was left out or comes in a call of its own.

    Raises RowLayoutError if the rows are none of these.
    """
    if parts == 1 or rows == frames:
        return RowLayout(frames, rows)
    prompt_rows = parts * frames
    if rows not in (prompt_rows, prompt_rows + frames):
        raise RowLayoutError(
            f"The UNet was called with {rows} rows, but {frames} frames of {parts} prompt parts joined by AND make "
            f"{prompt_rows}, or {prompt_rows + frames} with the negative prompt. "
            "Switch off other extensions that change the batch."
        )
    order = torch.arange(prompt_rows).view(frames, parts).t().flatten()
    return RowLayout(frames, rows, torch.cat([order, torch.arange(prompt_rows, rows)]))
