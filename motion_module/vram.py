"""How many windows of a clip fit into the memory of a device together."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager

import torch

LEFT_FREE = 0.25
"""Part of the free memory that is never counted on: where drivers lend RAM once it is used up, everything becomes slow."""


def memory_of(device: torch.device) -> tuple[int, int]:
    """Bytes of a CUDA device that are free, and all that it has. Older versions of torch want its number."""
    return torch.cuda.mem_get_info(torch.cuda.current_device() if device.index is None else device.index)


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
        if taken > 0:  # else it went where there was room already, and tells nothing
            self._fitting[size] = 1 + int(memory_of(self._device)[0] * (1 - LEFT_FREE) / taken)
