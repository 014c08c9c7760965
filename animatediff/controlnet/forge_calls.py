"""UNet calls with the ControlNet built into Forge: it adds to the features of all rows of a call, before the UNet runs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

Control = dict[str, list[Tensor | None]]
"""What is added to the features of the UNet, by part and level."""


class FrameRows:
    """The method `get_control` of one control network of a clip.

    `factors`: what multiplies the features of each frame, such as 0 without a hint; None if nothing does.
    """

    def __init__(self, network: Any, factors: Tensor | None) -> None:
        self._network = network
        self._whole = network.get_control
        self._factors = factors
        self._rows = 0

    def __call__(self, x: Tensor, *args: Any, **named: Any) -> Control | None:
        if len(x) != self._rows:  # what a T2I-adapter has made is for as many rows as it was called with first
            self._network.control_input = None
            self._rows = len(x)
        if self._factors is None:
            return self._whole(x, *args, **named)
        earlier, self._network.previous_controlnet = self._network.previous_controlnet, None
        try:
            own = self._whole(x, *args, **named)
        finally:
            self._network.previous_controlnet = earlier
        others = earlier.get_control(x, *args, **named) if earlier is not None else None
        factors = self._factors.repeat(len(x) // len(self._factors)).view(-1, 1, 1, 1)
        return _sum(others, _map(own, lambda features: features * factors.to(features)))


def _map(control: Control | None, change: Callable[[Tensor], Tensor]) -> Control | None:
    if control is None:
        return None
    return {part: [None if one is None else change(one) for one in features] for part, features in control.items()}


def _sum(first: Control | None, second: Control | None) -> Control | None:
    """Returns what two units add together."""
    if first is None or second is None:
        return first or second
    return {
        part: [b if a is None else a if b is None else a + b for a, b in zip_longest(first.get(part, []), second.get(part, []))]
        for part in {**first, **second}
    }


def saying_rows(named: dict[str, Any]) -> dict[str, Any]:
    """Returns the named arguments of a UNet call, which say which of its rows are of prompts, and which of negative ones.

    reForge says it of conditions only. Its reference preprocessors take their numbers for those of rows, which is right for a
    single picture, and do nothing in a batch.
    """
    options = named.get("transformer_options") or {}
    if "cond_or_uncond" not in options or "cond_indices" in options:
        return named
    of_condition = len(options["sigmas"])
    marks = [mark for mark in options["cond_or_uncond"] for _ in range(of_condition)]
    said: dict[str, list[int]] = {"cond_indices": [], "uncond_indices": []}
    for row, mark in enumerate(marks):
        said["uncond_indices" if mark else "cond_indices"].append(row)
    return {**named, "transformer_options": {**options, **said}}


def run_in_chunks(unet_patcher: Any, rows: int) -> Any:
    """Returns a patcher of the UNet with which control models run over `rows` rows at a time, where its WebUI allows that."""
    options = unet_patcher.model_options.get("transformer_options", {})
    if options.get("controlnet_model_function_wrapper") is not None:  # of another extension
        return unet_patcher
    found = unet_patcher.clone()
    found.set_controlnet_model_function_wrapper(_in_chunks(rows))
    return found


def _in_chunks(rows: int) -> Callable[..., list[Tensor | None]]:
    def run(*, model: Any, inner_model: Any, hint: Tensor, inner_t2i_model: Any = None, **inputs: Any) -> list[Tensor | None]:
        count = len(inputs["x"]) if "x" in inputs else len(hint)

        def chunk(first: int) -> list[Tensor | None]:
            part = {name: _rows(value, first, rows, count) for name, value in inputs.items()}
            of_part = _rows(hint, first, rows, count).to(model.device)
            made: list[Tensor | None] = (
                inner_model(of_part) if inner_t2i_model is not None else inner_model(hint=of_part, **part)
            )
            return made

        chunks = [chunk(first) for first in range(0, count, rows)]
        return [None if level[0] is None else torch.cat(level) for level in zip(*chunks)]

    return run


def _rows(value: Any, first: int, rows: int, count: int) -> Any:
    """Returns some rows of what has one for each row of the call."""
    return value[first : first + rows] if isinstance(value, Tensor) and value.ndim and len(value) == count else value
