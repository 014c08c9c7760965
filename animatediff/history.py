"""What clips took on this machine, remembered for estimates."""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import Any

import torch
from modules import devices, shared

from . import saved
from .estimate import Run, Size

log = logging.getLogger("AnimateDiff")
FILE = "runs"
MOST_RUNS = 50


class Stopwatch:
    """Runs from the beginning of a job to its answer."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        if devices.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(devices.device)

    def record(self, p: Any, frames: int) -> None:
        """Remembers the job, if others can be judged by it: one that took all its steps, at one size, with one checkpoint."""
        if _is_special(p):
            return
        size = Size(
            frames,
            p.width,
            p.height,
            steps_taken(p.steps, p.denoising_strength if hasattr(p, "init_images") else None),
            p.n_iter,
        )
        run = Run(device_name(), size, time.perf_counter() - self._began, _peak_memory())
        try:
            saved.write(FILE, [dataclasses.asdict(run) for run in [*_all(), run][-MOST_RUNS:]])
        except OSError as error:
            log.warning("This run could not be remembered for estimates: %s", error)


def runs() -> list[Run]:
    """Those on the device in use, the last one last."""
    return [run for run in _all() if run.device == device_name()]


def steps_taken(steps: int, strength: float | None) -> int:
    """img2img takes as many of its steps as its strength says."""
    return steps if strength is None else min(steps, int(min(strength, 0.999) * steps) + 1)


def device_name() -> str:
    return torch.cuda.get_device_name(devices.device) if devices.device.type == "cuda" else devices.device.type


def device_memory() -> int | None:
    """Bytes of the GPU; None where there is none whose memory can be asked for."""
    return torch.cuda.mem_get_info(devices.device)[1] if devices.device.type == "cuda" else None


def _all() -> list[Run]:
    try:
        return [Run(**{**facts, "size": Size(**facts["size"])}) for facts in saved.read(FILE) or []]
    except (TypeError, KeyError):
        return []  # written by another version


def _is_special(p: Any) -> bool:
    state = shared.state
    stopped = state.interrupted or state.skipped or state.stopping_generation
    return bool(stopped or getattr(p, "enable_hr", False) or p.refiner_checkpoint)


def _peak_memory() -> int:
    return torch.cuda.max_memory_allocated(devices.device) if devices.device.type == "cuda" else 0
