"""Motion modules as they act in one job: one or two of them, under their controls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import torch
from torch import Tensor

from .context_windows import Cut
from .motion_strength import Controls
from .network import MotionModule, TemporalTransformer
from .row_layout import RowLayout


@dataclass(frozen=True)
class Second:
    """A second motion module. "blend": `share` of it and the rest of the first act on the same input. "chain": it acts on what
    the first has made, with `share` of its effect.
    """

    module: MotionModule
    how: Literal["blend", "chain"] = "blend"
    share: float = 0.5


class Motion:
    """What acts behind the blocks of a UNet. `progress` tells how much of the steps is done, from 0 to below 1. `cut` gives the
    windows of the running step, where attention is not to look further than those. `device`: where layers work, if that is
    elsewhere than what they are handed.
    """

    def __init__(
        self,
        module: MotionModule,
        controls: Controls = Controls(),
        progress: Callable[[], float] = lambda: 0.0,
        second: Second | None = None,
        cut: Callable[[], Cut] | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.module = module
        self.second = second
        self._controls = controls
        self._progress = progress
        self.cut = cut
        self._device = device

    @property
    def modules(self) -> tuple[MotionModule, ...]:
        return (self.module, self.second.module) if self.second else (self.module,)

    @property
    def channels(self) -> dict[str, int]:
        """The width at each place where something acts."""
        return {place: width for module in self.modules for place, width in module.channels.items()}

    @property
    def active(self) -> bool:
        return self._controls.active(self._progress())

    def animate(self, place: str, x: Tensor, layout: RowLayout) -> Tensor:
        """Lets the layers of a place act on `x`, `(rows, channels, height, width)`."""
        strength = self._controls.at(place, self._progress())
        if not self.active or strength.effect == 0:
            return x
        first = self._residual(self.module, place, x, layout, strength.scale)
        if self.second is None:
            return x + _times(strength.effect, first)
        if self.second.how == "chain":
            x = x + _times(strength.effect, first)
            second = self._residual(self.second.module, place, x, layout, strength.scale)
            return x + _times(strength.effect * self.second.share, second)
        second = self._residual(self.second.module, place, x, layout, strength.scale)
        return x + strength.effect * ((1 - self.second.share) * first + self.second.share * second)

    def _residual(self, module: MotionModule, place: str, x: Tensor, layout: RowLayout, scale: float) -> Tensor:
        """What the layer of one module adds; nothing where it has no layer at that place."""
        if place not in module.layers:
            return torch.zeros_like(x)
        layer = module.layers[place]
        assert isinstance(layer, TemporalTransformer)
        device = self._device or x.device
        weights = chain(layer.parameters(), layer.buffers())
        if any(weight.dtype != x.dtype or not same_device(weight.device, device) for weight in weights):
            layer.to(device, x.dtype)
        return layer.residual(x, layout, scale, self.cut() if self.cut else None)


def same_device(one: torch.device, other: torch.device) -> bool:
    """Whether both name one device. A device without an index, such as `cuda`, is the current one of its type: `cuda:0`."""
    return one.type == other.type and _index(one) == _index(other)


def _index(device: torch.device) -> int:
    if device.index is None and device.type == "cuda":
        return torch.cuda.current_device()
    return device.index or 0


def _times(factor: float, x: Tensor) -> Tensor:
    return x if factor == 1.0 else factor * x
