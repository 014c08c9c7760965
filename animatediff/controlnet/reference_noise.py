"""The noise that reference units of sd-webui-controlnet draw in each UNet call: once, and windows take that of their rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from motion_module.patching import patched_items
from motion_module.windowed_unet import Around, Part, nothing_around

ADD_NOISE = "predict_q_sample"
"""ControlNet's function that adds noise to a reference picture; it is drawn there, for as many rows as the UNet has."""


def begin_call(network: Any) -> Around:
    """Returns what goes around the windows of one call of a UNet that `network`, ControlNet's `UnetHook`, controls.

    The draw is that of a plain batch: as many rows, from the same generator.
    """
    hook = getattr(type(network), "hook", None)
    names = hook.__globals__ if isinstance(hook, FunctionType) else {}
    if ADD_NOISE not in names:
        return nothing_around()
    add_noise, drawn = names[ADD_NOISE], list[Tensor]()

    @contextmanager
    def around(part: Part) -> Iterator[None]:
        numbers = count()  # of the units that draw in a call, in their order

        def add_noise_of_part(model: Any, latents: Tensor, timesteps: Tensor, noise: Tensor | None = None) -> Tensor:
            if (number := next(numbers)) == len(drawn):
                drawn.append(torch.randn_like(latents.new_empty(part.rows, *latents.shape[1:])))
            noisy: Tensor = add_noise(model, latents, timesteps, drawn[number][part.chosen.to(latents.device)])
            return noisy

        with patched_items(names, {ADD_NOISE: add_noise_of_part}):
            yield

    return around
