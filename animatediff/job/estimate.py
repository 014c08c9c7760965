"""How long a clip will take, and how much of the GPU's memory, from what earlier ones took on this machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """What is asked for. `steps`: those that will be taken. `videos`: how many there are.

    `frames`: of one video that go through the UNet in a step, more than it has where windows overlap. `at_once`: of these
    together; 0 for all.
    """

    frames: int
    width: int
    height: int
    steps: int
    videos: int = 1
    at_once: int = 0

    @property
    def pixels(self) -> int:
        """Of all that goes through the UNet in a step."""
        return self.frames * self.width * self.height

    @property
    def pixels_at_once(self) -> int:
        return (self.at_once or self.frames) * self.width * self.height


@dataclass(frozen=True)
class Run:
    """One that was finished. `base`: the kind of its checkpoint. `memory`: the most bytes in use on the GPU, 0 where there is
    none, or it says nothing.
    """

    device: str
    base: str
    size: Size
    seconds: float
    memory: int = 0


def seconds(runs: Sequence[Run], wanted: Size) -> float | None:
    """From the run whose clip is nearest in size, the last one of those: time goes with pixels, steps and videos."""
    nearest = min(reversed(runs), key=lambda run: abs(math.log(run.size.pixels / wanted.pixels)), default=None)
    if nearest is None:
        return None
    of_one = nearest.seconds / (nearest.size.pixels * nearest.size.steps * nearest.size.videos)
    return of_one * wanted.pixels * wanted.steps * wanted.videos


def memory(runs: Sequence[Run], wanted: Size) -> float | None:
    """A straight line through all runs: the models, which are always there, and a share for each pixel at once.

    None without runs of two sizes or more, from which alone a line can be told.
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
    """A duration as people say it, not more exactly than it can be known."""
    if seconds < 60:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60 // 10 * 10:.0f} s"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
