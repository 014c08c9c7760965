"""Motion modules as they act in one job: one or two of them, under their controls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .controls import Controls
from .frames import RowLayout
from .lora import lent
from .network import MotionModule, TemporalTransformer, sinusoidal_positions


@dataclass(frozen=True)
class Second:
    """A second motion module. "blend": `share` of it and the rest of the first act on the same input. "chain": it acts on what
    the first has made, with `share` of its effect.
    """

    module: MotionModule
    how: Literal["blend", "chain"] = "blend"
    share: float = 0.5


class Motion:
    """What acts behind the blocks of a UNet. `progress` tells how much of the steps is done, from 0 to below 1."""

    def __init__(
        self,
        module: MotionModule,
        controls: Controls = Controls(),
        progress: Callable[[], float] = lambda: 0.0,
        second: Second | None = None,
    ) -> None:
        self.module = module
        self.second = second
        self._controls = controls
        self._progress = progress

    @property
    def modules(self) -> tuple[MotionModule, ...]:
        return (self.module, self.second.module) if self.second else (self.module,)

    @property
    def channels(self) -> dict[str, int]:
        """The width at each place where something acts."""
        return {place: layer.norm.num_channels for module in self.modules for place, layer in module.layers.items()}  # type: ignore[union-attr,misc]

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
        if any(tensor.device != x.device or tensor.dtype != x.dtype for tensor in chain(layer.parameters(), layer.buffers())):
            layer.to(x.device, x.dtype)
        return layer.residual(x, layout, scale)


def _times(factor: float, x: Tensor) -> Tensor:
    return x if factor == 1.0 else factor * x


# --- positions ---

Positions = Literal["as trained", "stretch", "extend"]


@contextmanager
def positions(module: MotionModule, how: Positions, frames: int, trained_on: int) -> Iterator[None]:
    """While open, the position tables of `module` are made for `frames` frames.

    "stretch": the rows of the `trained_on` frames that it was trained on are drawn out over all frames, so that the same motion
    takes longer. "extend": rows beyond the end of the table go on as the sinusoid does.
    """
    with ExitStack() as undo:
        for layer in module.layers.values():
            for attention in layer.attentions:  # type: ignore[union-attr]
                table = changed_table(attention.positions, how, frames, trained_on)
                if table is not attention.positions:
                    undo.enter_context(lent(attention, "positions", table))
        yield


def changed_table(table: Tensor, how: Positions, frames: int, trained_on: int) -> Tensor:
    """A table `(rows, channels)` for `frames` frames; the same one where nothing has to change.

    Stretching interpolates along the frames, each channel by itself: `F.interpolate` with `align_corners` off, as is usual.
    """
    if how == "stretch" and frames > min(trained_on, len(table)):
        rows = table[: min(trained_on, len(table))].float().t()[None]
        return F.interpolate(rows, size=frames, mode="linear")[0].t().contiguous()
    if how == "extend" and frames > len(table):
        more = sinusoidal_positions(frames, table.shape[1])[len(table) :]
        return torch.cat([table, more.to(table)])
    return table
