"""Which steps of a sampler are light: they use what full steps before them have computed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LEAST_STEPS = 10
"""The fewest steps of a pass that may have light ones."""


@dataclass(frozen=True)
class Expected:
    """What a light step expects, from what two full steps have computed: `last`, and the one `before` it.

    `weight`: how far it goes on along the line through both, in their distance; 0 repeats the last one.
    """

    last: int
    before: int
    weight: float

    def of(self, last: Tensor, before: Tensor | None) -> Tensor:
        """Returns what is expected of what both steps have computed. If only the last one is known, it is repeated."""
        return last if before is None else torch.lerp(before, last, 1 + self.weight)


@dataclass(frozen=True)
class LightSteps:
    """Every `every`-th step is full, beginning with the first one. The last step is full too: no later one corrects it.

    Steps count from 0. Those of a sampler with two calls per step are its calls. `least`: a pass of fewer steps has no light
    ones, since they would be too far apart.
    """

    every: int
    least: int = 0

    def is_light(self, step: int, steps: int) -> bool:
        """Returns whether a step of `steps` is light. A sampler that takes more than it announced ends with full ones."""
        return step % self._every(steps) != 0 and step < steps - 1

    def count(self, steps: int) -> int:
        """Returns how many of `steps` steps are light."""
        return sum(self.is_light(step, steps) for step in range(steps))

    def last_full(self, step: int, steps: int) -> int:
        """Returns the full step whose results are used in a step: itself, or the last one before it."""
        return step - step % self._every(steps) if self.is_light(step, steps) else step

    def full_before(self, step: int, steps: int) -> int:
        """Returns the number of full steps before the one whose results are used in a step."""
        return -(-self.last_full(step, steps) // self._every(steps))

    def expected(self, step: int, steps: int, trust: float = 1.0) -> Expected:
        """Returns what a light step expects. `trust`: how much of the way along the line it goes."""
        last = self.last_full(step, steps)
        return Expected(last, last - self.every, trust * (step - last) / self.every)

    def _every(self, steps: int) -> int:
        return self.every if steps >= self.least else 1
