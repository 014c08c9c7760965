"""Runs the image UNet's own layers on some frames at a time, while the other frames stay on the GPU or in RAM.

A layer of the image UNet processes every row separately, so the result is the same. What a layer allocates is then that of a
few frames, whatever the length of the clip. Only the activations between layers and the skip connections are those of all
frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from .attach import inside
from .patching import patched
from .vram import is_lack_of_memory

OURS = __name__.partition(".")[0]
FUNCTIONS = ("forward", "_forward")
"""What extensions replace in a module; the second one is LDM's, within its gradient checkpointing."""
OPTIONS = ("patches", "patches_replace", "block_modifiers", "block_inner_modifiers", "group_norm_wrapper")
"""The items of `transformer_options` with functions."""


@contextmanager
def in_chunks(unet: Any, rows: int, device: torch.device | None = None) -> Iterator[None]:
    """While open, the layers of an LDM `UNetModel` run on `rows` rows at a time.

    A layer in which another extension has replaced a function gets all rows at once: that function may have to know which row
    is which, as ControlNet's reference and Regional Prompter do. So does a layer that is given such functions, as Forge does.

    `device`: where the layers run and the UNet's result is, if rows are to be in RAM between layers; else None.
    """
    between_layers = None if device is None else torch.device("cpu")
    blocks = [*unet.input_blocks, unet.middle_block, *unet.output_blocks]
    with ExitStack() as undo:
        for layer in (layer for block in blocks for layer in inside(block, nn.Sequential)):
            undo.enter_context(patched(layer, "forward", _in_chunks(layer, rows, device, between_layers)))
        undo.enter_context(patched(unet.out, "forward", _in_chunks(unet.out, rows, device, device)))
        yield


class OffloadOnDemand:
    """Has frames wait in RAM from the first UNet call on that finds too little memory on the GPU. That call is made again.

    `rows`: how many rows a layer has at once then. `device`: where layers run. `allowed`: from the latents of the call,
    `(rows, channels, height, width)`, returns whether frames can wait in RAM.
    """

    def __init__(self, rows: int, device: torch.device, allowed: Callable[[Tensor], bool]) -> None:
        self._rows = rows
        self._device = device
        self._allowed = allowed
        self.begun = False
        """Whether frames wait in RAM now."""

    @contextmanager
    def applied_to(self, calls: Any, unet: Any) -> Iterator[None]:
        """While open, calls of `calls`, which pass through `unet`, find out whether there is enough memory."""
        compute: Callable[..., Tensor] = calls.forward

        def forward(x: Tensor, *args: Any, **named: Any) -> Tensor:
            if not self.begun:
                try:
                    return compute(x, *args, **named)
                except RuntimeError as error:
                    gives_functions = any(map(_gives_functions, named.values()))
                    if not is_lack_of_memory(error) or gives_functions or not can_be_repeated(unet) or not self._allowed(x):
                        raise
                self.begun = True  # the error is gone by now, and with it the tensors of the failed call
            with in_chunks(unet, self._rows, self._device):
                return compute(x, *args, **named)

        with patched(calls, "forward", forward):
            yield


def can_be_repeated(unet: Any) -> bool:
    """Whether a UNet call that has failed can be made again. Functions of other extensions may count the calls of layers."""
    blocks = [*unet.input_blocks, unet.middle_block, *unet.output_blocks]
    return not any(map(_has_others_functions, blocks))


def _has_others_functions(layer: nn.Module) -> bool:
    """Whether a module inside a layer has a function of its own in place of that of its class, and not one of ours."""
    for part in layer.modules():
        for name in FUNCTIONS:
            replaced = vars(part).get(name)
            if replaced is None or replaced == MethodType(getattr(type(part), name), part):
                continue
            if replaced.__module__.partition(".")[0] != OURS:
                return True
    return False


def _gives_functions(argument: Any) -> bool:
    """Whether an argument of a layer is `transformer_options` of ComfyUI's kind with functions that change the layer."""
    return isinstance(argument, dict) and any(argument.get(name) for name in OPTIONS)


def _in_chunks(layer: nn.Module, rows: int, device: torch.device | None, after: torch.device | None) -> Callable[..., Tensor]:
    """Returns the forward function of a layer that runs on `device`, with its result on `after`; None: on its input's
    device.
    """
    forward_all = layer.forward

    def forward(x: Tensor, *args: Any, **named: Any) -> Tensor:
        results = []
        at_once = len(x) if _has_others_functions(layer) or any(map(_gives_functions, args)) else rows
        for first in range(0, len(x), at_once):
            chunk = slice(first, first + at_once)
            others = [arg[chunk] if isinstance(arg, Tensor) else arg for arg in args]
            results.append(forward_all(x[chunk].to(device or x.device), *others, **named).to(after or x.device))
        return torch.cat(results)

    return forward
