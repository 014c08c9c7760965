"""How many windows of a clip fit into the memory of a device together."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager

import torch

LEFT_FREE = 0.25
"""Part of the free memory that is never counted on: where drivers lend RAM once it is used up, everything becomes slow."""


class Room:
    """Learns from one window what it takes. Elsewhere than on CUDA it is always one window at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._fitting: dict[Hashable, int] = {}

    def windows(self, size: Hashable) -> int:
        """How many of this size may pass at once: one, until one has been measured."""
        return self._fitting.get(size, 1)

    @contextmanager
    def measuring(self, size: Hashable) -> Iterator[None]:
        """Around a call with one window, or more when its size is known."""
        if self._device.type != "cuda" or size in self._fitting:
            yield
            return
        torch.cuda.empty_cache()  # so that what the call allocates has to be reserved
        before = torch.cuda.memory_reserved(self._device)
        yield
        taken = torch.cuda.memory_reserved(self._device) - before
        free, _ = torch.cuda.mem_get_info(self._device)
        self._fitting[size] = 1 + int(free * (1 - LEFT_FREE) / max(taken, 1))
