"""A long clip that is cut off goes on where it stopped: what the UNet returned is kept on disk until the clip is finished."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from modules import shared
from modules.processing import Processed

from motion_module.motion_strength import PerFrame
from motion_module.patching import patched_items
from motion_module.unet_cache import UNetCache

from .. import settings
from ..detailer.part import part_of
from ..errors import reason
from ..request import infotext
from ..request.plan import Plan
from . import camera, live_preview, resume_store

WITHOUT_EFFECT_ON_FRAMES: dict[str, Any] = {
    "format": ("PNG",),
    "fps": 8.0,
    "loop_number": 0,
    "interp": "Off",
    "interp_x": 10,
    "request_id": "",
}
"""Parameters that change nothing in the frames themselves, each at some fixed value."""


class Resuming:
    """The cache of one job. It does nothing for clips of one window without FreeInit, for parts of a clip that are detailed,
    or where a setting switches it off.

    `rounds`: FreeInit's current round and their number. `loras_in_use`: our LoRAs, by file, rank and strength.
    `controls`: ControlNet's units and SparseCtrl's models.
    """

    def __init__(
        self,
        p: Any,
        plan: Plan,
        *,
        rounds: Callable[[], tuple[int, int]],
        loras_in_use: Callable[[], list[tuple[str, int | None, PerFrame]]],
        controls: Callable[[], list[Any]],
    ) -> None:
        self._p = p
        self._plan = plan
        self._rounds = rounds
        self._loras_in_use = loras_in_use
        self._controls = controls
        self._stored: resume_store.Unfinished | None = None
        self.cache: UNetCache | None = None
        """The UNet's results; None before `start`, and where nothing is kept."""

    @property
    def _takes_long(self) -> bool:
        return (self._plan.windows.needed or self._plan.params.freeinit_enable) and not part_of(self._p)

    def start(self) -> list[str]:
        """Opens the cache before the first clip is sampled: by then all is known that decides its frames. Returns warnings."""
        if self.cache is not None or not (self._takes_long and settings.keeps_unfinished()):
            return []
        try:
            tab = "txt2img" if self._plan.inputs.init_images is None else "img2img"
            self._stored = resume_store.begin(tab, _infotext(self._p), _identity(self._p, self._plan))
        except OSError as error:
            return [f"This video could not be resumed if it were cut off: {reason(error)}. Free some disk space."]
        self.cache = UNetCache(self._stored.folder, self._position, self._inside_unet)
        return []

    def reproducible_noise(self, seed: int) -> AbstractContextManager[None]:
        """While open, the VAE's noise comes from `seed`: otherwise a resumed clip would not find its own results again, and the
        same request would not detail a clip in the same way.
        """
        return resume_store.seeded(seed) if self._takes_long or part_of(self._p) else nullcontext()

    def report(self, processed: Any) -> list[str]:
        """Writes into the answer where the clip went on, if it was resumed. Returns warnings."""
        if self.cache is None:
            return []
        if (after := self.cache.resumed_after) is not None:
            processed.comments += f"AnimateDiff went on after {after}.\n"
            facts = {"AnimateDiff went on after": after}
            processed.extra_generation_params = {**processed.extra_generation_params, **facts}
        return resume_store.warnings(self.cache)

    @property
    def was_resumed(self) -> bool:
        return self.cache is not None and self.cache.resumed_after is not None

    def finish(self) -> None:
        """Deletes what was kept: the clip is finished."""
        if self._stored is not None:
            self._stored.delete()

    def _position(self) -> str:
        """Where the running sampler is, in words."""
        p = self._p
        hires = ["hires pass"] if getattr(p, "is_hr_pass", False) else []
        videos = [f"video {p.iteration + 1} of {p.n_iter}"] if p.n_iter > 1 else []
        return ", ".join([live_preview.step(p.sampler.model_wrap_cfg, *self._rounds()), *hires, *videos])

    def _inside_unet(self) -> list[Any]:
        """What acts in the UNet now: the file of its weights, LoRAs, the WebUI's and ours, and ControlNet's units."""
        p, hires = self._p, getattr(self._p, "is_hr_pass", False)
        networks = getattr(p, "hr_extra_network_data" if hires else "extra_network_data", None) or {}
        webuis = {kind: [entry.items for entry in entries] for kind, entries in networks.items()}
        return [shared.sd_model.sd_checkpoint_info.filename, webuis, self._loras_in_use(), self._controls()]


def _infotext(p: Any) -> str:
    """The first frame's infotext, with what the WebUI adds only when the hires pass or the refiner begins."""
    later = {"Hires schedule type": getattr(p, "hr_scheduler", None)} if getattr(p, "enable_hr", False) else {}
    if p.refiner_checkpoint_info is not None:
        later |= {"Refiner": p.refiner_checkpoint_info.short_title, "Refiner switch at": p.refiner_switch_at}
    with patched_items(p.extra_generation_params, later):
        return Processed(p, []).infotext(p, 0)


def _identity(p: Any, plan: Plan) -> list[Any]:
    """What sets the frames of a job apart from those of others."""
    prompts = p.all_prompts[0], p.all_negative_prompts[0], int(p.all_seeds[0])
    mask = getattr(p, "image_mask", None)
    masks = plan.masks or ([] if mask is None else [mask])
    of_sparse = [picture for choice in plan.sparse for picture in choice.pictures]
    images = [getattr(p, "init_images", None) or [], masks, plan.motion_masks, of_sparse]
    ours = infotext.write(dataclasses.replace(plan.params, **WITHOUT_EFFECT_ON_FRAMES), None)
    return [
        *prompts,
        p.width,
        p.height,
        p.steps,
        p.sampler_name,
        float(p.cfg_scale),
        ours,
        *map(resume_store.digest, images),
        _hires_of(p),
        camera.facts(plan),
    ]


def _hires_of(p: Any) -> list[Any]:
    """The prompts and size of the hires pass, which `init` has worked out; empty without one."""
    if not getattr(p, "enable_hr", False):
        return []
    prompts = [getattr(p, name, None) or [None] for name in ("all_hr_prompts", "all_hr_negative_prompts")]
    return [*(rows[0] for rows in prompts), p.hr_upscale_to_x, p.hr_upscale_to_y]
