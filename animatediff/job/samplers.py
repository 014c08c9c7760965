"""Timesteps that the WebUI's samplers lack: AnimateLCM's, and trailing ones for AnimateDiff-Lightning."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from motion_module.patching import patched

TRAILING = "Trailing"


@contextmanager
def original_steps(steps: int, alphas_of: Callable[[Any], Tensor]) -> Iterator[None]:
    """While open, the WebUI's LCM sampler is for a model that was distilled on `steps` timesteps.

    0 leaves the sampler as it is. `alphas_of`: from the loaded checkpoint to its noise schedule.
    """
    lcm, k_diffusion = (sys.modules.get(f"modules.sd_samplers_{name}") for name in ("lcm", "kdiffusion"))
    if not steps or (lcm or k_diffusion) is None:
        yield
    elif lcm is not None:
        with patched(lcm, "LCMCompVisDenoiser", _denoiser(lcm.LCMCompVisDenoiser, steps, alphas_of)):
            yield
    else:
        with patched(k_diffusion, "KDiffusionSampler", _sampler(k_diffusion.KDiffusionSampler, steps)):  # type: ignore[union-attr]
            yield


def _denoiser(webuis: Any, original: int, alphas_of: Callable[[Any], Tensor]) -> type:
    """Returns the denoiser of the WebUI's LCM sampler for another number of timesteps than its own 50."""

    class Denoiser(webuis):  # type: ignore[misc]  # its base is known only at run time
        def __init__(self, model: Any) -> None:
            super().__init__(model)
            alphas = alphas_of(model)
            self.skip_steps = len(alphas) // original
            distilled_on = alphas[self.skip_steps - 1 :: self.skip_steps].float()
            self.sigmas = ((1 - distilled_on) / distilled_on).sqrt()
            self.log_sigmas = self.sigmas.log()

        def get_sigmas(self, n: int | None = None) -> Tensor:
            return _authors_sigmas(self.sigmas, n)

    return Denoiser


def _sampler(webuis: Any, original: int) -> type:
    """Returns the class of k-diffusion's samplers, where LCM is one of them (Neo) and knows no timesteps of its own."""

    class Sampler(webuis):  # type: ignore[misc]
        def get_sigmas(self, p: Any, steps: int) -> Tensor:
            if self.funcname != "sample_lcm":
                return super().get_sigmas(p, steps)
            sigmas = self.model_wrap.sigmas
            stride = len(sigmas) // original
            with patched(self.model_wrap, "get_sigmas", partial(_authors_sigmas, sigmas[stride - 1 :: stride])):
                return super().get_sigmas(p, steps)

    return Sampler


def _authors_sigmas(distilled_on: Tensor, n: int | None = None) -> Tensor:
    """Returns the sigmas of the authors' `n` timesteps, and 0: equal strides from the noisiest on, rounded down. None: all.

    `distilled_on`: the sigmas of the timesteps that the model was distilled on, `(timesteps,)`, from the least noisy on.
    Reference: G-U-N/AnimateLCM `scheduler/lcm_scheduler.py`, `set_timesteps`.
    """
    noisiest_first, count = distilled_on.flip(0), len(distilled_on)
    chosen = range(count) if n is None else np.floor(np.linspace(0, count, n, endpoint=False)).astype(int)
    return torch.cat([noisiest_first[list(chosen)], noisiest_first.new_zeros(1)])


def trailing(n: int, sigma_min: float, sigma_max: float, inner_model: Any, device: Any) -> Tensor:
    """Returns a schedule of `n` steps that begins at the last timestep (arXiv 2305.08891, section 3.3, table 2)."""
    timesteps = np.round(np.arange(n, 0, -1) * len(inner_model.sigmas) / n).astype(int) - 1
    return torch.cat([inner_model.sigmas[timesteps.tolist()].cpu(), torch.zeros(1)]).to(device)


def add_schedule_type() -> None:
    """Adds “Trailing” to the WebUI's schedule types, once."""
    if (schedulers := _schedulers()) is not None and TRAILING not in schedulers.schedulers_map:
        kind = schedulers.Scheduler(TRAILING.lower(), TRAILING, trailing, need_inner_model=True)
        schedulers.schedulers.append(kind)
        schedulers.schedulers_map |= {kind.name: kind, kind.label: kind}


def remove_schedule_type() -> None:
    """`on_script_unloaded`."""
    if (schedulers := _schedulers()) is not None and (kind := schedulers.schedulers_map.pop(TRAILING, None)):
        schedulers.schedulers_map.pop(kind.name, None)
        schedulers.schedulers.remove(kind)


def label(name: str | None) -> str:
    """Returns the page's name of a schedule type: programs may use its short name, or leave it out."""
    known = (schedulers := _schedulers()) and schedulers.schedulers_map.get(name)
    return known.label if known else name or "Automatic"


def _schedulers() -> Any:
    return sys.modules.get("modules.sd_schedulers")
