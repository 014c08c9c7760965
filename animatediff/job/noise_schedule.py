"""Gives the checkpoint the noise schedule of the motion module, also in img2img, which builds its sampler before it samples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from modules import sd_models

from motion_module.noise_schedule import NoiseSchedule
from motion_module.patching import patched


@contextmanager
def swapped_noise_schedule(model: Any, schedule: NoiseSchedule, p: Any) -> Iterator[None]:
    """While open, a checkpoint has another noise schedule; the WebUI's settings (zero terminal SNR, downcast) act on top of it.

    It is a new tensor each time, because a reload of weights copies into whatever tensor it finds.
    """
    own = schedule.alphas_cumprod().to(model.alphas_cumprod.device)
    with patched(model, "alphas_cumprod", model.alphas_cumprod), patched(model, "alphas_cumprod_original", own):
        sd_models.apply_alpha_schedule_override(model, p)
        yield
