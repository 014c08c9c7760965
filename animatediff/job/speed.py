"""Light steps in a job: what the method needs to know of the WebUI's guidance and of its sampler."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from modules import shared

from motion_module.attach import LayoutOf
from motion_module.deep_features import DeepFeatures
from motion_module.light_steps import LEAST_STEPS, LightSteps
from motion_module.patching import patched
from motion_module.step_reuse import StepReuse

from .. import host
from ..request.choices import EXACT, FAST, FAST_DEEP, FAST_NEGATIVE
from ..request.plan import Plan
from . import extension_rows
from .acting import steps_of


class Speed:
    """The light steps of one job; none where the request asks for exact ones. `step`: returns the running sampler's step."""

    def __init__(self, p: Any, plan: Plan, step: Callable[[], int]) -> None:
        self._p = p
        self._plan = plan
        self._step = step
        self._light = LightSteps(plan.params.speed_every if plan.params.speed != EXACT else 1, LEAST_STEPS)
        self._deep: DeepFeatures | None = None
        self._reuse: StepReuse | None = None

    def begin_run(self) -> None:
        """Begins a run of the sampler."""
        if self._reuse is not None:
            self._reuse.begin()

    def window_step(self) -> int:
        """Returns the step whose context windows are used. A light step has those of the full one before it."""
        return self._light.full_before(self._step(), self._steps())

    def rests(self, block: str) -> bool:
        """Whether a block of the UNet computes nothing in the running call."""
        return self._deep is not None and self._deep.rests(block)

    @contextmanager
    def applied_to_calls(
        self, model: Any, cached: AbstractContextManager[None], layout_of_call: LayoutOf, layout_of: LayoutOf
    ) -> Iterator[None]:
        """While open, the UNet calls of light steps are light.

        `cached`: while open, calls may return what is stored on disk. `layout_of_call`, `layout_of`: the layout of a whole
        call, and of the one that the UNet is in, such as that of a window.
        """
        choice, holder = self._plan.params.speed, host.of(model)
        if choice == EXACT:
            with cached:
                yield
            return
        if choice in (FAST, FAST_DEEP):
            self._deep = DeepFeatures(layout_of, torch.device("cpu") if self._plan.windows.needed else None)
        self._reuse = StepReuse(
            self._light,
            self._deep,
            negative=choice in (FAST, FAST_NEGATIVE),
            step=self._step,
            steps=self._steps,
            at_step=self._at_step,
            layout_of=layout_of_call,
            conditions_of=self._conditions_of,
            arguments_of=holder.arguments_of_rows(),
        )
        try:
            with self._reuse.applied_to(holder.unet_calls(model), cached):
                yield
        finally:
            self._deep = self._reuse = None

    @contextmanager
    def applied_to_blocks(self, unet: Any) -> Iterator[None]:
        """While open, deep blocks keep their features. For after motion layers are attached."""
        if self._deep is None:
            yield
            return
        with self._deep.applied_to(unet):
            yield

    def _steps(self) -> int:
        return steps_of(self._p.sampler)

    def _at_step(self, step: int) -> AbstractContextManager[None]:
        return patched(self._p.sampler.model_wrap_cfg, "step", step)

    def _conditions_of(self, rows: int, named: dict[str, Any], had: Sequence[int]) -> Sequence[int] | None:
        if extension_rows.are_whole_clips(self._p):
            return None
        parts = {len(parts) for parts in self._p.sampler.sampler_extra_args["cond"].batch}
        return host.of(shared.sd_model).conditions_of_call(rows, self._plan.frames, max(parts), named, had)
