"""Stands in for `modules.sd_samplers_common`: the base class of samplers, previews, and the refiner."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import k_diffusion.sampling
import numpy as np
import torch
from modules import devices, sd_models, shared
from modules.shared import opts, state
from PIL import Image


class InterruptedException(BaseException):
    """The user interrupted the run. It is no `Exception`, so that no handler on the way takes it for an error."""


class _TorchWithNoiseOf:
    """torch, except for `randn_like`, which draws from the generators of `p`. It replaces torch in k-diffusion's samplers."""

    def __init__(self, p: Any) -> None:
        self._rng = p.rng

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def randn_like(self, _x: torch.Tensor) -> torch.Tensor:
        return self._rng.next()


def single_sample_to_image(sample: torch.Tensor, _approximation: int | None = None) -> Image.Image:
    """Decodes one picture for the live preview. `sample`: `(4, height, width)`."""
    decoded = shared.sd_model.decode_first_stage(sample[None])[0]
    levels = (torch.clamp((decoded + 1) / 2, 0, 1) * 255).permute(1, 2, 0).cpu().numpy().astype(np.uint8)
    return Image.fromarray(levels)


def images_tensor_to_samples(pictures: torch.Tensor, _approximation: int | None = None, model: Any = None) -> torch.Tensor:
    """Returns the latents of pictures. `pictures`: `(rows, 3, height, width)`, from 0 to 1."""
    return (model or shared.sd_model).encode_first_stage(pictures.to(devices.device) * 2 - 1)


def samples_to_image_grid(samples: torch.Tensor) -> Image.Image:
    """Decodes a batch, side by side."""
    pictures = [single_sample_to_image(sample) for sample in samples]
    width, height = pictures[0].size
    grid = Image.new("RGB", (width * len(pictures), height))
    for index, picture in enumerate(pictures):
        grid.paste(picture, (width * index, 0))
    return grid


def apply_refiner(denoiser: Any, sigma: torch.Tensor) -> bool:
    """Switches to the refiner's checkpoint at its fraction of the noise schedule. Returns whether it switched now."""
    info = denoiser.p.refiner_checkpoint_info
    if info is None or shared.sd_model.sd_checkpoint_info == info:
        return False
    if 1 - (denoiser.timestep_of(sigma) + 1) / 1000 < denoiser.p.refiner_switch_at:
        return False
    denoiser.p.extra_generation_params |= {"Refiner": info.short_title, "Refiner switch at": denoiser.p.refiner_switch_at}
    sd_models.reload_model_weights(info=info)
    denoiser.p.setup_conds()
    denoiser.update_inner_model()
    return True


def img2img_steps(p: Any, steps: int | None) -> tuple[int, int]:
    """Returns the steps of the whole schedule, and how many of them `p.denoising_strength` leaves to run.

    `steps` counts the steps to run. Without it, `p.steps` counts those of the whole schedule.
    """
    strength = min(p.denoising_strength, 0.999)
    whole = p.steps
    taken = int(strength * whole)
    if steps is not None:
        whole, taken = (int(steps / strength) if strength else 0), steps - 1
    return whole, taken


class Sampler:
    eta_option = "eta_ancestral"
    model_wrap: Any
    model_wrap_cfg: Any

    def __init__(self, func: Callable[..., torch.Tensor], config: Any) -> None:
        self.func = func
        self.config = config
        self.p: Any = None
        self.last_latent: torch.Tensor | None = None
        self.sampler_extra_args: dict[str, Any] = {}

    def initialize(self, p: Any) -> dict[str, Any]:
        """Prepares one run. Returns keyword arguments for the sampling function."""
        self.p = self.model_wrap_cfg.p = p
        self.model_wrap_cfg.step = 0
        k_diffusion.sampling.torch = _TorchWithNoiseOf(p)
        takes_eta = "eta" in inspect.signature(self.func).parameters
        return {"eta": getattr(opts, self.eta_option)} if takes_eta else {}

    def run(self, p: Any, x: torch.Tensor, cond: Any, uncond: Any, steps: int, **levels: torch.Tensor) -> torch.Tensor:
        """Runs the sampling function from `x`. `levels`: its sigmas or timesteps."""
        keywords = {**self.initialize(p), **levels}
        self.last_latent = x
        self.sampler_extra_args = {
            "cond": cond,
            "uncond": uncond,
            "image_cond": None,
            "cond_scale": p.cfg_scale,
            "s_min_uncond": opts.s_min_uncond,
        }
        keywords |= {"extra_args": self.sampler_extra_args, "callback": self.callback_state}
        return self.launch_sampling(steps, partial(self.func, self.model_wrap_cfg, x, **keywords))

    def callback_state(self, step: dict[str, Any]) -> None:
        state.sampling_step = step["i"]

    def launch_sampling(self, steps: int, func: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Runs `func`. If the user interrupts it, returns the latest latents."""
        self.model_wrap_cfg.total_steps = self.config.total_steps(steps)
        state.sampling_steps, state.sampling_step = steps, 0
        try:
            return func()
        except InterruptedException:
            return self.last_latent
