"""How many context windows of a clip fit into the memory of a device together, and whether an error says that it is full."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager

import torch

LEFT_FREE = 0.25
"""The fraction of the free memory that is never used. Some drivers continue in RAM once a GPU is full, which is very slow."""

FULL = ("out of memory", "not enough GPU video memory", "ALLOC_FAILED")
"""What errors say that are not torch's own for a full memory: those of Apple's GPUs, of DirectML, and of NVIDIA's libraries."""


def memory_of(device: torch.device) -> tuple[int, int]:
    """Returns the free and the total bytes of a CUDA device. Older versions of torch need the index of the device."""
    return torch.cuda.mem_get_info(torch.cuda.current_device() if device.index is None else device.index)


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of a GPU is full."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in FULL)


class WindowBudget:
    """Measures what one window takes, and returns how many fit. On other devices than CUDA it is always one."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._fitting: dict[Hashable, int] = {}

    def windows(self, size: Hashable) -> int:
        """Returns how many windows of this size one call may have: one, until a call has been measured."""
        return self._fitting.get(size, 1)

    def halve(self, size: Hashable) -> None:
        """Has calls with half as many windows of this size: they did not fit."""
        self._fitting[size] = max(self.windows(size) // 2, 1)

    @contextmanager
    def measuring(self, size: Hashable) -> Iterator[None]:
        """Measures the call of one window that is made while this is open, unless windows of this size have been measured."""
        if self._device.type != "cuda" or size in self._fitting:
            yield
            return
        torch.cuda.empty_cache()  # so that all that the call allocates has to be reserved
        before = torch.cuda.memory_reserved(self._device)
        yield
        taken = torch.cuda.memory_reserved(self._device) - before
        if taken > 0:  # otherwise it fitted into what was reserved before, and says nothing
            self._fitting[size] = 1 + int(memory_of(self._device)[0] * (1 - LEFT_FREE) / taken)
