"""Context windows: a long clip in parts of as many frames as a motion module knows, which overlap and are blended.

Which windows there are is that of the context schedulers of AnimateDiff's users (ComfyUI-AnimateDiff-Evolved's `context.py`):
from step to step they are shifted by a bit-reversed fraction, and those of further levels take every second frame, every
fourth, and so on. What differs: every frame is in a window at every step, no window has a frame twice, and where windows
overlap their results are weighed and added.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import torch
from torch import Tensor

from .errors import UserError

Closing = Literal["none", "few", "many"]
Fusion = Literal["pyramid", "flat", "overlap-linear"]


class WindowsError(UserError):
    """Windows that cannot be. The text is for the user."""


@dataclass(frozen=True)
class Cut:
    """The windows of one step, one with the first frame of the clip before all others.

    `frames`: `(windows, length)`, the frames in each. `weights`: likewise, how much of a frame's result each gives; over all
    windows those of a frame add up to 1.
    """

    frames: Tensor
    weights: Tensor

    def blended(self, results: Tensor) -> Tensor:
        """Adds up what all windows give for each frame: `(rows, windows, length, …)` to `(rows, frames, …)`.

        The windows of a frame are always added in the same order, so that the same request gives the same bits. CUDA fixes no
        order for `index_add_`.
        """
        flat = results.flatten(1, 2)
        places, weights = (part.to(results.device) for part in self.by_frame)
        total = flat.new_zeros(len(flat), places.shape[1], *flat.shape[2:])
        for place, weight in zip(places, weights.to(results.dtype)):
            total += flat.index_select(1, place).mul_(weight.view(-1, *[1] * (flat.ndim - 2)))
        return total

    @cached_property
    def by_frame(self) -> tuple[Tensor, Tensor]:
        """Where each frame is in the flattened windows, and its weight there: both `(most windows of a frame, frames)`.

        A frame that is in fewer windows than others repeats its last one with a weight of 0.
        """
        frames = self.frames.flatten()
        counts = frames.bincount()
        nth = torch.arange(int(counts.max()))[:, None]
        places = frames.argsort(stable=True)[counts.cumsum(0) - counts + torch.minimum(nth, counts - 1)]
        return places, self.weights.flatten()[places] * (nth < counts)


@dataclass(frozen=True)
class Windows:
    """How a clip of `frames` frames is cut into windows of `length`, neighbours of which share `overlap` or more.

    `levels`: how many distances between the frames of a window there are: 1, 2, 4, …, as far as the clip reaches. `uniform`:
    whether windows are others in each step. `closing`: whether windows go on over the end of the clip at its start, and whether
    the seam is then in as many of them as other places are, or in fewer.

    Raises WindowsError.
    """

    frames: int
    length: int
    overlap: int = 0
    levels: int = 1
    uniform: bool = True
    closing: Closing = "none"
    fusion: Fusion = "pyramid"

    def __post_init__(self) -> None:
        if min(self.frames, self.length, self.levels) < 1:
            raise WindowsError("A clip, a window and the levels of windows must be 1 or more.")
        if not 0 <= self.overlap < self.length:
            raise WindowsError(f"Windows of {self.length} frames can share up to {self.length - 1}, not {self.overlap}.")

    @property
    def needed(self) -> bool:
        """Whether the clip does not fit into one window."""
        return self.frames > self.length

    @property
    def at_once(self) -> int:
        """How many frames a motion module attends over together."""
        return min(self.frames, self.length)

    def at(self, step: int) -> Cut:
        """The windows of a step, counted from 0."""
        return _cut(self, step if self.uniform else 0)

    def borders(self) -> list[int]:
        """The frames with which windows of neighbouring frames begin, where these are the same in all steps."""
        if self.uniform or not self.needed:
            return []
        return sorted(start % self.frames for start in self.starts(1, 0) if start % self.frames)

    def distances(self) -> list[int]:
        """From one frame of a window to the next, of each level."""
        return [2**level for level in range(self.levels) if (self.length - 1) * 2**level < self.frames]

    def starts(self, distance: int, step: int) -> list[int]:
        """The first frames of the windows of a level; those of windows that close the loop may lie behind the clip's end."""
        advance = self.length * distance - self.overlap
        phase = van_der_corput(step)
        if self.closing == "none":
            last = self.frames - 1 - (self.length - 1) * distance
            return sorted({0, *range(round(phase * advance), last, advance), last})
        first = round(phase * self.frames)  # so the place where windows overlap more than they need to is everywhere in turn
        unclosed = self.overlap if self.closing == "few" and self.uniform else 0
        return list(range(first, first + self.frames - unclosed, advance))

    def ramps(self, start: int, distance: int) -> tuple[bool, bool]:
        """Whether a window has neighbours before it and behind it."""
        if self.closing != "none":
            return True, True
        return start > 0, start + (self.length - 1) * distance < self.frames - 1


def van_der_corput(index: int) -> float:
    """0, 1/2, 1/4, 3/4, 1/8, …: the bits of `index` behind the point, in reverse."""
    value, unit = 0.0, 0.5
    while index:
        value += unit * (index & 1)
        index, unit = index >> 1, unit / 2
    return value


@lru_cache(maxsize=256)
def _cut(windows: Windows, step: int) -> Cut:
    if not windows.needed:
        return Cut(torch.arange(windows.frames)[None], torch.ones(1, windows.frames))
    starts = [(start, distance) for distance in windows.distances() for start in windows.starts(distance, step)]
    along = torch.arange(windows.length)
    frames = torch.stack([(start + distance * along) % windows.frames for start, distance in starts])
    weights = torch.stack([_weights(windows, *windows.ramps(start, distance)) for start, distance in starts])
    total = Cut(frames, weights).blended(torch.ones(1, *frames.shape))[0]
    first = next(index for index, window in enumerate(frames.tolist()) if 0 in window)
    order = [first, *range(first), *range(first + 1, len(frames))]
    return Cut(frames[order], (weights / total[frames])[order])


def _weights(windows: Windows, before: bool, behind: bool) -> Tensor:
    """How much each frame of a window counts, `(length,)`. `before`, `behind`: whether there are windows."""
    length, overlap = windows.length, windows.overlap
    rising = torch.arange(1.0, length + 1)
    if windows.fusion == "pyramid":
        return torch.minimum(rising, rising.flip(0))
    if windows.fusion == "flat":
        return torch.ones(length)
    ramp = (rising / (overlap + 1)).clamp(max=1)
    return (ramp if before else torch.ones(length)) * (ramp.flip(0) if behind else torch.ones(length))
