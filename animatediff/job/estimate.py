"""Estimates the time and GPU memory of a clip from earlier ones on this machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """The size of a job. `steps`: those that are really taken, in the time of full ones. `videos`: their number.

    `frames`: frames of one video that go through the UNet in a step; more than the video has if windows overlap. `at_once`:
    how many of these go together; 0 for all.
    """

    frames: int
    width: int
    height: int
    steps: float
    videos: int = 1
    at_once: int = 0

    @property
    def pixels(self) -> int:
        """The number of pixels that go through the UNet in a step."""
        return self.frames * self.width * self.height

    @property
    def pixels_at_once(self) -> int:
        return (self.at_once or self.frames) * self.width * self.height


@dataclass(frozen=True)
class Run:
    """A finished job. `base`: the kind of its checkpoint. `parameters`: the number of its UNet's parameters.

    `memory`: the most bytes in use on the GPU; 0 where there is none, or it does not tell.
    """

    device: str
    base: str
    parameters: int
    size: Size
    seconds: float
    memory: int = 0


def seconds(runs: Sequence[Run], wanted: Size) -> float | None:
    """Scales the newest run of the nearest size: time is proportional to pixels, steps and videos."""
    nearest = min(reversed(runs), key=lambda run: abs(math.log(run.size.pixels / wanted.pixels)), default=None)
    if nearest is None:
        return None
    of_one = nearest.seconds / (nearest.size.pixels * nearest.size.steps * nearest.size.videos)
    return of_one * wanted.pixels * wanted.steps * wanted.videos


def memory(runs: Sequence[Run], wanted: Size) -> float | None:
    """Fits a straight line through all runs: a constant for the models, and an amount for each pixel at once.

    Returns None unless there are runs of two sizes, which a line needs.
    """
    measured = [run for run in runs if run.memory]
    if len({run.size.pixels_at_once for run in measured}) < 2:
        return None
    mean_pixels = sum(run.size.pixels_at_once for run in measured) / len(measured)
    mean_memory = sum(run.memory for run in measured) / len(measured)
    spread = sum((run.size.pixels_at_once - mean_pixels) ** 2 for run in measured)
    slope = sum((run.size.pixels_at_once - mean_pixels) * (run.memory - mean_memory) for run in measured) / spread
    return mean_memory + max(slope, 0.0) * (wanted.pixels_at_once - mean_pixels)


def spoken(seconds: float) -> str:
    """Returns a duration in words, no more exact than the estimate."""
    if seconds < 60:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60 // 10 * 10:.0f} s"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
