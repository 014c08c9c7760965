"""Collects the dtypes and devices of the tensors that pass the UNet's blocks and the extension's layers."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch

from webui_probe import webuis
from webui_probe.patching import Patches


class Dtypes:
    """Wraps the blocks of the UNet, motion layers and SparseCtrl's networks while it is armed."""

    def __init__(self) -> None:
        self._found: defaultdict[str, set[str]] = defaultdict(set)
        self._patches = Patches()

    def arm(self, on: bool) -> None:
        """Begins to collect anew, or ends it. What was found stays readable."""
        self._patches.undo()
        if not on:
            return
        self._found.clear()
        for block in webuis.classes_of_layers():
            self._patches.wrap(block, "forward", self._collecting("blocks"))
        for kind, name, where in layers_of_the_extension():
            self._patches.wrap(kind, name, self._collecting(where, with_weights=True))

    def report(self) -> dict[str, list[str]]:
        """Returns each dtype with its type of device, such as `float16 on cpu`, by where it was found."""
        return {where: sorted(found) for where, found in self._found.items()}

    def _collecting(self, where: str, with_weights: bool = False) -> Any:
        def wrapper(method: Any) -> Any:
            def collected(layer: torch.nn.Module, x: torch.Tensor, *args: Any, **named: Any) -> Any:
                out = method(layer, x, *args, **named)
                self._found[where] |= set(described((x, out)))
                if with_weights:
                    self._found[f"weights of {where}"] |= set(described(chain(layer.parameters(), layer.buffers())))
                return out

            return collected

        return wrapper


def layers_of_the_extension() -> list[tuple[type, str, str]]:
    """Returns classes, their method that computes, and what they are. It looks them up late: they load after the probe."""
    network, sparse = sys.modules["motion_module.network"], sys.modules["motion_module.sparse_ctrl"]
    return [
        (network.TemporalTransformer, "residual", "motion layers"),
        (sparse.SparseCtrl, "forward", "SparseCtrl"),
    ]


def described(value: Any) -> Iterator[str]:
    """Describes tensors, which may be in lists. Those of whole numbers are left out: they have no precision."""
    if isinstance(value, torch.Tensor):
        if value.is_floating_point():
            yield f"{str(value.dtype).removeprefix('torch.')} on {value.device.type}"
    else:
        for part in value:
            yield from described(part)
