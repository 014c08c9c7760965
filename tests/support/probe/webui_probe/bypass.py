"""Ways in which other extensions keep motion layers from acting, or stand in their way."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from webui_probe import webuis


class Bypass:
    """Makes the next job sample without its motion layers, from one of its steps on."""

    def __init__(self) -> None:
        self._how: str | None = None
        self._remaining = 0
        self._own: Any = None

    def arm(self, how: str | None, step: int) -> None:
        """`how`: "sampler" for one that never calls the UNet; "unet" for another UNet from step `step` on, counted from 1."""
        self.disarm()
        self._how, self._remaining = how, step

    def about_to_sample(self, p: Any) -> None:
        """Must be called before every pass."""
        if self._how == "sampler":
            p.sampler.sample = lambda _p, x, *_args, **_kwargs: x

    def denoiser_called(self) -> None:
        """Must be called at every step."""
        if self._how != "unet":
            return
        self._remaining -= 1
        if self._remaining == 0:
            self._own = webuis.unet()
            webuis.holder().diffusion_model = without_hooks(self._own)

    def disarm(self) -> None:
        """Gives the model its own UNet back."""
        self._how = None
        if self._own is not None:
            webuis.holder().diffusion_model, self._own = self._own, None


def without_hooks(unet: nn.Module) -> nn.Module:
    """Returns a copy of a UNet on the same weights, with the forward hooks of none of its modules."""
    memo = {id(weight): weight for weight in (*unet.parameters(), *unet.buffers())}
    hooks = {module: dict(module._forward_hooks) for module in unet.modules()}
    for module in hooks:
        module._forward_hooks.clear()
    try:
        copied = copy.deepcopy(unet, memo)
        vars(copied).pop("forward", None)  # the extension's, in WebUIs that have nothing around the UNet
        return copied
    finally:
        for module, own in hooks.items():
            module._forward_hooks.update(own)


class Scaler(nn.Module):
    """A module around a block, such as another extension leaves in the UNet after an exception."""

    def __init__(self, block: nn.Module | None) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return x if self.block is None else self.block(x, *args, **kwargs)


class WrappedBlock:
    """Puts a `Scaler` around a block of the UNet, or in its place."""

    def __init__(self) -> None:
        self._own: Any = None

    def arm(self, how: str | None) -> None:
        """None gives the UNet its own block back."""
        self.disarm()
        if how is not None:
            blocks = webuis.unet().input_blocks
            self._own = blocks[1]
            blocks[1] = Scaler(self._own if how == "around" else None)

    def disarm(self) -> None:
        if self._own is not None:
            webuis.unet().input_blocks[1], self._own = self._own, None
