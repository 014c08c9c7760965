"""Whether motion layers act in a job. Samplers and UNets of other extensions, or of another host, may pass them by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from motion_module.row_layout import RowLayout


@dataclass
class Run:
    """One run of a sampler: a pass, or a round of FreeInit."""

    sampler: Any
    steps: int = 0
    without_motion: int = 0
    """The steps in which not every frame passed the motion layers."""
    acted: bool = False


class Acting:
    """The record of one video. Layers act where they are called with the job's rows, also at a strength of 0."""

    def __init__(self, frames: int) -> None:
        self._frames = frames
        self.begin()

    def begin(self) -> None:
        """Begins another video."""
        self._runs: list[Run] = []
        self._missing: set[int] = set()

    def begin_run(self, sampler: Any) -> None:
        """Begins a run. Forge announces a hires pass twice."""
        self._end_step()
        if not self._runs or self._runs[-1].sampler is not sampler or self._runs[-1].steps:
            self._runs.append(Run(sampler))

    def begin_step(self) -> None:
        self._end_step()
        self._run.steps += 1
        self._missing = set(range(self._frames))

    def acted(self, layout: RowLayout) -> None:
        """Called for every motion layer with the rows of a UNet call."""
        self._run.acted = True
        if self._missing:
            frames = layout.frame_numbers
            self._missing -= set(range(self._frames) if frames is None else frames.flatten().tolist())

    def acted_before(self) -> None:
        """Called for a UNet call of all frames whose result is on disk: layers acted when it was made."""
        self._run.acted = True
        self._missing.clear()

    def hindrance(self, interrupted: bool) -> str:
        """Returns how frames were made without motion; empty if none was. `interrupted`: the last step is incomplete."""
        if interrupted:
            self._missing.clear()
        self._end_step()
        runs = self._runs or [Run(None)]
        steps, without = sum(run.steps for run in runs), sum(run.without_motion for run in runs)
        if without:
            return f"The motion module did not act on every frame in {without} of {steps} sampling steps."
        if not interrupted and any(not run.acted and steps_of(run.sampler) > 0 for run in runs):
            return "A sampler ran without the motion module."
        return ""

    @property
    def _run(self) -> Run:
        if not self._runs:  # a host that does not announce passes
            self._runs.append(Run(None))
        return self._runs[-1]

    def _end_step(self) -> None:
        if self._missing:
            self._run.without_motion += 1
            self._missing = set()


def steps_of(sampler: Any) -> int:
    """Returns how many steps one of the WebUI's samplers takes; 1 for another one.

    Samplers by timesteps, such as DDIM, announce one step more than they take, in img2img two. So they may take none at all.
    Those of the second order, such as DPM2, announce two calls for each step and leave out the last one's second.
    """
    guidance = getattr(sampler, "model_wrap_cfg", None)
    steps: int = getattr(guidance, "total_steps", None) or 1
    if hasattr(sampler, "get_timesteps"):
        steps -= 1 if getattr(guidance, "init_latent", None) is None else 2
    if getattr(getattr(sampler, "config", None), "options", {}).get("second_order"):
        steps -= 1
    return steps
