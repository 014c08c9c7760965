"""Stands in for `modules.sd_samplers_timesteps`: DDIM (Song et al., 2020), which works with timesteps."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import k_diffusion.sampling
import torch
from modules import sd_samplers_common, shared
from modules.sd_samplers_cfg_denoiser import CFGDenoiser
from torch import nn
from tqdm import tqdm


class CompVisTimestepsDenoiser(nn.Module):
    """Predicts the noise at a timestep."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.inner_model = model

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return self.inner_model.apply_model(x, timesteps, **kwargs)


class CFGDenoiserTimesteps(CFGDenoiser):
    def __init__(self, sampler: Any) -> None:
        super().__init__(sampler)
        self.alphas = shared.sd_model.alphas_cumprod

    @property
    def inner_model(self) -> Any:
        if self.model_wrap is None:
            self.model_wrap = CompVisTimestepsDenoiser(shared.sd_model)
        return self.model_wrap

    def timestep_of(self, sigma: torch.Tensor) -> float:
        return float(sigma.max())

    def get_pred_x0(self, x: torch.Tensor, out: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        signal = self.alphas[sigma.to(torch.int64)][:, None, None, None].to(x)
        return (x - (1 - signal).sqrt() * out) / signal.sqrt()


class CompVisSampler(sd_samplers_common.Sampler):
    eta_option = "eta_ddim"

    def __init__(self, config: Any) -> None:
        super().__init__(ddim, config)
        self.model_wrap_cfg = CFGDenoiserTimesteps(self)
        self.model_wrap = self.model_wrap_cfg.inner_model

    @staticmethod
    def get_timesteps(steps: int) -> torch.Tensor:
        """Returns evenly spaced timesteps of the thousand, ascending from 1."""
        return torch.tensor([min(timestep + 1, 999) for timestep in range(0, 1000, 1000 // steps)])

    def sample(self, p: Any, x: torch.Tensor, cond: Any, uncond: Any, steps: int | None = None) -> torch.Tensor:
        """Samples from noise `x` of variance 1."""
        timesteps = self.get_timesteps(steps or p.steps).to(x.device)
        return self.run(p, x, cond, uncond, steps or p.steps, timesteps=timesteps)

    def sample_img2img(
        self, p: Any, x: torch.Tensor, noise: torch.Tensor, cond: Any, uncond: Any, steps: int | None = None
    ) -> torch.Tensor:
        """Samples from latents `x`, after adding `noise` according to `p.denoising_strength`."""
        steps, taken = sd_samplers_common.img2img_steps(p, steps)
        timesteps = self.get_timesteps(steps).to(x.device)
        signal = shared.sd_model.alphas_cumprod[timesteps[taken]]  # one step noisier than the first step of the run
        noised = x * signal.sqrt() + noise * (1 - signal).sqrt()
        self.model_wrap_cfg.init_latent = x
        return self.run(p, noised, cond, uncond, taken + 1, timesteps=timesteps[:taken])


@torch.no_grad()
def ddim(
    model: Any, x: torch.Tensor, timesteps: torch.Tensor, extra_args: dict[str, Any], callback: Any, eta: float = 0.0
) -> torch.Tensor:
    """Samples by equation 12 of the paper, from the last and noisiest of the ascending `timesteps` down to the first."""
    signal_at = model.inner_model.inner_model.alphas_cumprod.double()
    downward = timesteps.flip(0).tolist()
    for step, (here, there) in enumerate(pairwise(tqdm(downward, total=len(downward) - 1))):
        signal, next_signal = signal_at[here].item(), signal_at[there].item()
        noise = model(x, x.new_full((len(x),), here), **extra_args)
        clean = (x - math.sqrt(1 - signal) * noise) / math.sqrt(signal)
        spread = eta * math.sqrt((1 - next_signal) / (1 - signal) * (1 - signal / next_signal))
        fresh = k_diffusion.sampling.torch.randn_like(x)  # drawn even if `eta` is 0, as in the WebUI
        x = math.sqrt(next_signal) * clean + math.sqrt(1 - next_signal - spread**2) * noise + spread * fresh
        callback({"i": step})
    return x
