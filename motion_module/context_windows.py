"""Context windows: a long clip is split into overlapping windows of as many frames as a motion module was trained on.

The schedules are those of ComfyUI-AnimateDiff-Evolved (`context.py`): from step to step the windows are shifted by a
bit-reversed fraction, and with a stride above 1 there are also windows of every second frame, every fourth, and so on. Unlike
there, every frame is in a window at every step, no window has a frame twice, and the results of overlapping windows are
averaged with weights.

A clip that fits into one window can be closed too: by two windows of all its frames, half a clip apart, so that the end of one
is the middle of the other. They are the same in all steps. In Mobius (arXiv 2502.20307) one window begins at another frame in
each step, but a motion module begins a motion where its window begins, so motions become jumpy or come to rest.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property, lru_cache
from typing import Literal

import torch
from torch import Tensor

from .errors import UserError

ClosedLoop = Literal["none", "few", "many"]
FuseMethod = Literal["pyramid", "flat", "overlap-linear"]


class ContextWindowsError(UserError):
    """The settings of context windows are impossible. The text is for the user."""


@dataclass(frozen=True)
class StepWindows:
    """The windows of one sampling step. The first of them has the first frame of the clip.

    `frames`: `(windows, length)`, the frame numbers in each window. `weights`: `(windows, length)`, how much each window
    contributes to its frames; the weights of a frame add up to 1.
    """

    frames: Tensor
    weights: Tensor

    def blended(self, results: Tensor) -> Tensor:
        """Returns the weighted sum of all windows' results for each frame: `(rows, windows, length, …)` to `(rows, frames, …)`.

        The windows of a frame are always added in the same order, so that the same request gives the same bits. CUDA fixes no
        order for `index_add_`.
        """
        flat = results.flatten(1, 2)
        indices, weights = (part.to(results.device) for part in self.by_frame)
        total = flat.new_zeros(len(flat), indices.shape[1], *flat.shape[2:])
        for index, weight in zip(indices, weights.to(results.dtype)):
            total += flat.index_select(1, index).mul_(weight.view(-1, *[1] * (flat.ndim - 2)))
        return total

    def to(self, device: torch.device) -> StepWindows:
        """Returns the same windows with their tensors on a device, so that none is copied to it where they are used."""
        moved = StepWindows(self.frames.to(device), self.weights.to(device))
        vars(moved)["by_frame"] = tuple(part.to(device) for part in self.by_frame)
        return moved

    @cached_property
    def by_frame(self) -> tuple[Tensor, Tensor]:
        """Where each frame is in the flattened windows, and its weight there: both `(most windows of a frame, frames)`.

        A frame that is in fewer windows than others repeats its last one with a weight of 0.
        """
        frames = self.frames.flatten()
        counts = frames.bincount()
        nth = torch.arange(int(counts.max()))[:, None]
        indices = frames.argsort(stable=True)[counts.cumsum(0) - counts + torch.minimum(nth, counts - 1)]
        return indices, self.weights.flatten()[indices] * (nth < counts)


@dataclass(frozen=True)
class ContextWindows:
    """How a clip of `frames` frames is split into windows of `length` frames; neighbours share at least `overlap` frames.

    `stride`: how many distances between the frames of a window there are: 1, 2, 4, …, as far as the clip reaches. `uniform`:
    whether the windows are shifted from step to step. `closed_loop`: whether windows continue from the last frame to the first
    ones, and whether that seam is in as many windows as any other place in the clip ("many") or in fewer ("few").

    Raises ContextWindowsError.
    """

    frames: int
    length: int
    overlap: int = 0
    _: KW_ONLY
    stride: int = 1
    uniform: bool = True
    closed_loop: ClosedLoop = "none"
    fuse_method: FuseMethod = "pyramid"

    def __post_init__(self) -> None:
        for name, value in (("frames", self.frames), ("context length", self.length), ("stride", self.stride)):
            if value < 1:
                raise ContextWindowsError(f"The {name} of context windows cannot be {value}. Set it to 1 or more.")
        if not 0 <= self.overlap < self.length:
            raise ContextWindowsError(
                f"Context windows of {self.length} frames cannot overlap by {self.overlap} frames. "
                f"Set the overlap to a number from 0 to {self.length - 1}."
            )

    @property
    def needed(self) -> bool:
        """Whether the clip is longer than one window."""
        return self.frames > self.length

    @property
    def wraps(self) -> bool:
        """Whether the clip fits into one window and its loop is closed nevertheless, by a second window of the same frames."""
        return self.closed_loop == "many" and 1 < self.frames <= self.length

    @property
    def attended_frames(self) -> int:
        """How many frames attend to each other in a motion module."""
        return min(self.frames, self.length)

    def at(self, step: int) -> StepWindows:
        """Returns the windows of a sampling step; the first step is 0."""
        if self.wraps:
            halves = replace(self, length=self.frames, overlap=self.frames // 2, stride=1, uniform=False, fuse_method="pyramid")
            return _step_windows(halves, 0)
        if not self.needed:
            return StepWindows(torch.arange(self.frames)[None], torch.ones(1, self.frames))
        return _step_windows(self, step if self.uniform else 0)

    def boundaries(self) -> list[int]:
        """Returns the first frames of the windows of consecutive frames, if they are the same in all steps; else none."""
        if self.uniform or not self.needed:
            return []
        return sorted(start % self.frames for start in self.starts(1, 0) if start % self.frames)

    def distances(self) -> list[int]:
        """Returns the distances between neighbouring frames of a window that fit into the clip."""
        return [2**power for power in range(self.stride) if (self.length - 1) * 2**power < self.frames]

    def starts(self, distance: int, step: int) -> list[int]:
        """Returns the first frames of the windows whose frames are `distance` apart.

        Those of windows that close the loop may be beyond the end of the clip.
        """
        advance = self.length * distance - self.overlap
        phase = van_der_corput(step)
        if self.closed_loop == "none":
            last = self.frames - 1 - (self.length - 1) * distance
            return sorted({0, *range(round(phase * advance), last, advance), last})
        first = round(phase * self.frames)  # so that the windows that overlap more than they need to are elsewhere in each step
        without_seam = self.overlap if self.closed_loop == "few" and self.uniform else 0
        return list(range(first, first + self.frames - without_seam, advance))

    def neighbours(self, start: int, distance: int) -> tuple[bool, bool]:
        """Returns whether there are windows before and after the one that begins at `start`."""
        if self.closed_loop != "none":
            return True, True
        return start > 0, start + (self.length - 1) * distance < self.frames - 1


def van_der_corput(index: int) -> float:
    """Returns 0, 1/2, 1/4, 3/4, 1/8, …: the binary digits of `index`, reversed, after the binary point."""
    value, unit = 0.0, 0.5
    while index:
        value += unit * (index & 1)
        index, unit = index >> 1, unit / 2
    return value


@lru_cache(maxsize=256)
def _step_windows(windows: ContextWindows, step: int) -> StepWindows:
    starts = [(start, distance) for distance in windows.distances() for start in windows.starts(distance, step)]
    along = torch.arange(windows.length)
    frames = torch.stack([(start + distance * along) % windows.frames for start, distance in starts])
    weights = torch.stack([_weights(windows, *windows.neighbours(start, distance)) for start, distance in starts])
    total = StepWindows(frames, weights).blended(torch.ones(1, *frames.shape))[0]
    first = next(index for index, window in enumerate(frames.tolist()) if 0 in window)
    order = [first, *range(first), *range(first + 1, len(frames))]
    return StepWindows(frames[order], (weights / total[frames])[order])


def _weights(windows: ContextWindows, before: bool, after: bool) -> Tensor:
    """Returns the weights `(length,)` of a window's frames. `before`, `after`: whether there are windows there."""
    length, overlap = windows.length, windows.overlap
    rising = torch.arange(1.0, length + 1)
    if windows.fuse_method == "pyramid":
        return torch.minimum(rising, rising.flip(0))
    if windows.fuse_method == "flat":
        return torch.ones(length)
    ramp = (rising / (overlap + 1)).clamp(max=1)
    return (ramp if before else torch.ones(length)) * (ramp.flip(0) if after else torch.ones(length))
