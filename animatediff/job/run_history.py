"""What clips took on this machine, remembered for estimates."""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import Any

import torch
from modules import devices, shared

from motion_module.context_windows import ContextWindows
from motion_module.vram import memory_of

from .. import json_store
from .estimate import Run, Size

log = logging.getLogger("AnimateDiff")
FILE = "runs"
MOST_RUNS = 50


class Stopwatch:
    """Runs from the beginning of a job to its answer."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._cut_short = False
        if devices.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(devices.device)

    def lap(self) -> None:
        """One of the videos has been sampled: whether in full, the WebUI knows until the next begins."""
        state = shared.state
        self._cut_short |= bool(state.interrupted or state.skipped or state.stopping_generation)

    def record(self, p: Any, base: str, windows: ContextWindows, within: bool) -> None:
        """Remembers the job, if others can be judged by it: one that took all its steps, at one size, with one checkpoint."""
        if self._cut_short or getattr(p, "enable_hr", False) or p.refiner_checkpoint:
            return
        steps = steps_taken(p.steps, p.denoising_strength if hasattr(p, "init_images") else None)
        size = size_of(windows, within, p.width, p.height, steps, p.n_iter)
        memory = 0 if windows.needed else _peak_memory()  # windows take as much as there is
        run = Run(device_name(), base, size, time.perf_counter() - self._began, memory)
        try:
            json_store.update(FILE, lambda before: [*_readable(before), dataclasses.asdict(run)][-MOST_RUNS:])
        except (OSError, ValueError) as error:
            log.warning("This run could not be remembered for estimates: %s", error)


def runs(base: str) -> list[Run]:
    """Those on the device in use with checkpoints of a kind, the last one last."""
    try:
        facts = _readable(json_store.read(FILE))
    except (OSError, ValueError):
        return []
    alike = [run for run in facts if (run["device"], run["base"]) == (device_name(), base)]
    return [Run(**{**run, "size": Size(**run["size"])}) for run in alike]


def size_of(windows: ContextWindows, within: bool, width: int, height: int, steps: int, videos: int) -> Size:
    """What will go through the UNet; how many windows there are is much the same in all steps."""
    if within:
        return Size(windows.frames, width, height, steps, videos)
    return Size(windows.at(0).frames.numel(), width, height, steps, videos, windows.attended_frames)


def steps_taken(steps: int, strength: float | None) -> int:
    """img2img takes as many of its steps as its strength says, unless a setting has it take all."""
    if strength is None or shared.opts.data.get("img2img_fix_steps", False):
        return steps
    return min(steps, int(min(strength, 0.999) * steps) + 1)


def device_name() -> str:
    return torch.cuda.get_device_name(devices.device) if devices.device.type == "cuda" else devices.device.type


def device_memory() -> int | None:
    """Bytes of the GPU; None where there is none whose memory can be asked for."""
    return memory_of(devices.device)[1] if devices.device.type == "cuda" else None


def _readable(runs: Any) -> list[dict[str, Any]]:
    """What was remembered, unless by a version that remembers other things."""
    names = {field.name for field in dataclasses.fields(Run)}
    return [run for run in runs or [] if set(run) == names]


def _peak_memory() -> int:
    return torch.cuda.max_memory_allocated(devices.device) if devices.device.type == "cuda" else 0
