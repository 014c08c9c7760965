"""A CFG scale for each frame."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from modules import shared

from motion_module.motion_strength import PerFrame

from .. import host

SCALES = ("cfg_scale", "hr_cfg")
"""The WebUI's CFG scale, and that of the hires pass where it has its own: attributes of `p`."""

ANOTHER = 2.0
"""A scale at which every WebUI makes use of the negative prompt: one of a schedule may be as good as 1 to Forge."""


class FrameGuidance:
    """The CFG scales of one job. `scales`: one for all frames, or one for each; None for the WebUI's own."""

    def __init__(self, p: Any, scales: PerFrame | None) -> None:
        self._p = p
        self._scales = scales

    def give(self) -> None:
        """Gives the WebUI the scale of all frames; or another one than 1, at which it would leave the negative prompt out."""
        own = {name: getattr(self._p, name) for name in SCALES if hasattr(self._p, name)}
        if isinstance(self._scales, tuple):
            changed = {name: ANOTHER for name, scale in own.items() if scale == 1}
        else:
            changed = {} if self._scales is None else dict.fromkeys(own, self._scales)
        for name, scale in changed.items():
            setattr(self._p, name, scale)

    def in_step(self) -> AbstractContextManager[None]:
        """While open, one step of the sampler has the scale of each frame."""
        if not isinstance(self._scales, tuple):
            return nullcontext()
        model = shared.sd_model  # a refiner may have taken over just now
        return host.of(model).guidance(model, self._p.sampler.model_wrap_cfg, self._scales)
