"""The times that earlier clips took on this machine, stored for estimates."""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import Any

import torch
from modules import devices, sd_models, shared

from motion_module.context_windows import ContextWindows
from motion_module.light_steps import LEAST_STEPS, LightSteps
from motion_module.vram import memory_of

from .. import host, json_store
from ..interrupt import is_stopping
from ..request.choices import EXACT, FAST, FAST_DEEP, FAST_NEGATIVE, IN_ATTENTION
from ..request.params import Params
from ..request.plan import Plan
from .estimate import Run, Size

log = logging.getLogger("AnimateDiff")
FILE = "runs"
MOST_RUNS = 50
LIGHT_STEP = {FAST: 0.1, FAST_DEEP: 0.2, FAST_NEGATIVE: 0.55}
"""The time of a light step as a fraction of that of a full one: a little above what docs/performance.md counts."""
SIZE_TOLERANCE = 0.01
"""The difference in parameters up to which UNets count as equally large: those for inpainting have a few more."""


class Stopwatch:
    """Measures a job from its beginning to its answer."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._cut_short = False
        if devices.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(devices.device)

    def lap(self) -> None:
        """Notes whether the video that was just sampled was cut short; the WebUI knows that only until the next one begins."""
        self._cut_short |= is_stopping()

    def record(self, p: Any, plan: Plan) -> None:
        """Remembers a job that others can be estimated by: one that took all its steps, at one size, with one checkpoint,
        and without SparseCtrl.
        """
        if self._cut_short or getattr(p, "enable_hr", False) or p.refiner_checkpoint or plan.sparse:
            return
        steps = steps_taken(p.steps, p.denoising_strength if hasattr(p, "init_images") else None)
        size = size_of(plan.windows, plan.params, width=p.width, height=p.height, steps=steps, videos=p.n_iter)
        memory = 0 if plan.windows.needed else _peak_memory()  # windows take as much as there is
        seconds = time.perf_counter() - self._began
        run = Run(device_name(), plan.family.base, unet_parameters(), size, seconds, memory)
        try:
            json_store.update(FILE, lambda before: [*_readable(before), dataclasses.asdict(run)][-MOST_RUNS:])
        except (OSError, ValueError) as error:
            log.warning("The time of this video could not be stored, so later estimates do without it: %s", error)


def runs(base: str) -> list[Run]:
    """Returns the runs on the current device with checkpoints of the same kind and size as the loaded one, newest last."""
    try:
        facts = _readable(json_store.read(FILE))
    except (OSError, ValueError):
        return []
    alike = [run for run in facts if (run["device"], run["base"]) == (device_name(), base) and _is_as_large(run["parameters"])]
    return [Run(**{**run, "size": Size(**run["size"])}) for run in alike]


def size_of(windows: ContextWindows, params: Params, *, width: int, height: int, steps: int, videos: int) -> Size:
    """Returns what will go through the UNet. The number of windows is much the same in all steps, and a light step counts as
    the part of a full one that it takes.

    Windows are counted, not made: the page asks for values that no job could take.
    """
    light = LightSteps(params.speed_every, LEAST_STEPS).count(steps) if params.speed != EXACT else 0
    full_steps = steps - light * (1 - LIGHT_STEP.get(params.speed, 1))
    if params.context_mode == IN_ATTENTION:
        return Size(windows.frames, width, height, full_steps, videos)
    several = windows.length * sum(len(windows.starts(distance, 0)) for distance in windows.distances())
    return Size(several if windows.needed else windows.frames, width, height, full_steps, videos, windows.attended_frames)


def steps_taken(steps: int, strength: float | None) -> int:
    """Returns the steps that are really taken: img2img takes a fraction of them, its strength, unless a setting says all."""
    if strength is None or shared.opts.data.get("img2img_fix_steps", False):
        return steps
    return min(steps, int(min(strength, 0.999) * steps) + 1)


def _is_as_large(parameters: int) -> bool:
    loaded = unet_parameters()
    return loaded > 0 and abs(parameters - loaded) <= SIZE_TOLERANCE * loaded


def unet_parameters() -> int:
    """Returns the number of parameters of the loaded checkpoint's UNet; 0 if none is loaded. Time goes with it."""
    model = sd_models.model_data.sd_model
    if not host.is_loaded(model):
        return 0
    return sum(parameter.numel() for parameter in host.of(model).unet(model).parameters())


def device_name() -> str:
    return torch.cuda.get_device_name(devices.device) if devices.device.type == "cuda" else devices.device.type


def device_memory() -> int | None:
    """Returns the bytes of the GPU's memory; None if there is no CUDA device."""
    return memory_of(devices.device)[1] if devices.device.type == "cuda" else None


def _readable(runs: Any) -> list[dict[str, Any]]:
    """Returns the stored runs without those of versions that stored other fields."""
    names = {field.name for field in dataclasses.fields(Run)}
    return [run for run in runs or [] if set(run) == names]


def _peak_memory() -> int:
    return torch.cuda.max_memory_allocated(devices.device) if devices.device.type == "cuda" else 0
