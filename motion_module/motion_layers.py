"""Motion modules as they act in one job: one or two of them, with their strength."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import torch
from torch import Tensor

from .camera_ctrl import Camera
from .context_windows import StepWindows
from .image_encoder import ImageFeatures
from .motion_mask import MotionMask
from .motion_strength import MotionStrength, PerFrame
from .network import MotionModule, Scale, TemporalTransformer
from .row_layout import RowLayout


@dataclass(frozen=True)
class SecondModule:
    """A second motion module.

    "blend": both modules act on the same input, the second one with the weight `weight` and the first one with the rest.
    "chain": the second module acts on the output of the first, and `weight` multiplies its effect.
    """

    module: MotionModule
    how: Literal["blend", "chain"] = "blend"
    weight: float = 0.5


class Motion:
    """The motion layers that act in a UNet, with their strength at the current step.

    `progress`: returns the fraction of the steps that are done, from 0 to below 1. `step_windows`: returns the windows of the
    running step, if attention is limited to context windows. `device`: returns where the layers run; None for where their input
    is. `acts`: called with the layout of the rows whenever layers are called, whatever their strength. `camera`: acts in all
    modules. `mask`: if motion does not act everywhere, returns where it does; that may change from pass to pass. `image`: what
    an image encoder of the first module adds to what its layers see. `rests`: whether a block computes nothing in the running
    call, so that its layers do not either.
    """

    def __init__(
        self,
        module: MotionModule,
        strength: MotionStrength = MotionStrength(),
        progress: Callable[[], float] = lambda: 0.0,
        *,
        second: SecondModule | None = None,
        step_windows: Callable[[], StepWindows] | None = None,
        device: Callable[[], torch.device | None] = lambda: None,
        acts: Callable[[RowLayout], None] = lambda layout: None,
        camera: Camera | None = None,
        mask: Callable[[], MotionMask] | None = None,
        image: ImageFeatures | None = None,
        rests: Callable[[str], bool] = lambda block: False,
    ) -> None:
        self.module = module
        self.second = second
        self.camera = camera
        self._strength = strength
        self._progress = progress
        self._step_windows = step_windows
        self._device = device
        self._acts = acts
        self._mask = mask
        self._image = image
        self._rests = rests
        self._given: dict[tuple[tuple[float, ...], torch.device], Tensor] = {}
        """Numbers of the frames, where they are used: each is copied once, and not for each layer."""

    @property
    def modules(self) -> tuple[MotionModule, ...]:
        """The motion modules that act: one or two."""
        return (self.module, self.second.module) if self.second else (self.module,)

    @property
    def channels(self) -> dict[str, int]:
        """The number of channels of each block that has a motion layer."""
        return {block: channels for module in self.modules for block, channels in module.channels.items()}

    @property
    def active(self) -> bool:
        """Whether motion modules act at the current step."""
        return self._strength.active(self._progress())

    def animate(self, block: str, x: Tensor, layout: RowLayout) -> Tensor:
        """Returns the output `x`, `(rows, channels, height, width)`, of a UNet block with what its motion layers add."""
        if self._rests(block):
            return x
        self._acts(layout)
        strength = self._strength.at(block, self._progress())
        if not self.active or strength.effect == 0:
            return x
        scale, effect = (self._of_clips(number, x, layout) for number in (strength.scale, strength.effect))
        if isinstance(effect, Tensor):
            effect = layout.to_rows(effect).view(-1, 1, 1, 1)
        first = self._first(block, x, layout, scale)
        if self.second is None:
            return x + self._masked(_times(effect, first), layout)
        if self.second.how == "chain":
            x = x + self._masked(_times(effect, first), layout)
            second = self._residual(self.second.module, block, x, layout, scale)
            return x + self._masked(_times(effect * self.second.weight, second), layout)
        second = self._residual(self.second.module, block, x, layout, scale)
        both = (1 - self.second.weight) * first + self.second.weight * second
        return x + self._masked(_times(effect, both), layout)

    def _of_clips(self, number: PerFrame, x: Tensor, layout: RowLayout) -> float | Tensor:
        """Returns the numbers of the frames of each clip, `(clips, frames)` in float32; one number for all stays as it is."""
        if not isinstance(number, tuple):
            return number
        if (key := (number, x.device)) not in self._given:
            self._given[key] = torch.tensor(number, device=x.device)
        return layout.of_video(self._given[key])

    def _first(self, block: str, x: Tensor, layout: RowLayout, scale: Scale) -> Tensor:
        """Returns what the layer of the first module adds, with what its image encoder adds before it."""
        shown = self._image.before_layer(block, x, layout) if self._image else None
        if shown is None:
            return self._residual(self.module, block, x, layout, scale)
        return shown + self._residual(self.module, block, x + shown, layout, scale)

    def _masked(self, added: Tensor, layout: RowLayout) -> Tensor:
        """Returns what layers add, where the mask lets them."""
        return added if self._mask is None else self._mask().of_rows(added, layout) * added

    def _residual(self, module: MotionModule, block: str, x: Tensor, layout: RowLayout, scale: Scale) -> Tensor:
        """Returns what the layer of one module adds; zeros if the module has no layer for the block."""
        if block not in module.layers:
            return torch.zeros_like(x)
        layer = module.layers[block]
        assert isinstance(layer, TemporalTransformer)
        device = self._device() or x.device
        weights = chain(layer.parameters(), layer.buffers())
        if any(weight.dtype != x.dtype or not same_device(weight.device, device) for weight in weights):
            layer.to(device, x.dtype)
        windows = self._step_windows() if self._step_windows else None
        return layer.residual(x, layout, scale, windows, self.camera.in_layer(block, x, layout) if self.camera else None)


def same_device(one: torch.device, other: torch.device) -> bool:
    """Returns whether both name one device. Without an index, `cuda` is the current CUDA device, such as `cuda:0`."""
    return one.type == other.type and _index(one) == _index(other)


def _index(device: torch.device) -> int:
    if device.index is None and device.type == "cuda":
        return torch.cuda.current_device()
    return device.index or 0


def _times(factor: float | Tensor, x: Tensor) -> Tensor:
    if isinstance(factor, Tensor):
        return (factor * x).to(x.dtype)
    return x if factor == 1.0 else factor * x
