"""Stands in for `modules.sd_samplers_kdiffusion`: k-diffusion's samplers, which work with sigmas."""

from __future__ import annotations

from typing import Any

import k_diffusion.external
import torch
from modules import sd_samplers_common, shared
from modules.sd_samplers_cfg_denoiser import CFGDenoiser

SCHEDULERS = {
    "karras": k_diffusion.sampling.get_sigmas_karras,
    "exponential": k_diffusion.sampling.get_sigmas_exponential,
}


class CFGDenoiserKDiffusion(CFGDenoiser):
    @property
    def inner_model(self) -> Any:
        if self.model_wrap is None:
            self.model_wrap = k_diffusion.external.CompVisDenoiser(shared.sd_model)
        return self.model_wrap

    def timestep_of(self, sigma: torch.Tensor) -> float:
        return float((self.inner_model.sigmas.to(sigma) - sigma.max()).abs().argmin())


class KDiffusionSampler(sd_samplers_common.Sampler):
    def __init__(self, config: Any) -> None:
        super().__init__(getattr(k_diffusion.sampling, config.function), config)
        self.model_wrap_cfg = CFGDenoiserKDiffusion(self)
        self.model_wrap = self.model_wrap_cfg.inner_model

    def get_sigmas(self, p: Any, steps: int) -> torch.Tensor:
        name = (p.scheduler or "Automatic").lower()
        name = self.config.scheduler if name == "automatic" else name
        if name is None or name == "uniform":
            return self.model_wrap.get_sigmas(steps).cpu()
        least, most = (self.model_wrap.sigmas[end].item() for end in (0, -1))
        return SCHEDULERS[name](n=steps, sigma_min=least, sigma_max=most, device="cpu")

    def sample(self, p: Any, x: torch.Tensor, cond: Any, uncond: Any, steps: int | None = None) -> torch.Tensor:
        """Samples from noise `x` of variance 1."""
        sigmas = self.get_sigmas(p, steps or p.steps).to(x.device)
        return self.run(p, x * sigmas[0], cond, uncond, len(sigmas) - 1, sigmas=sigmas)

    def sample_img2img(
        self, p: Any, x: torch.Tensor, noise: torch.Tensor, cond: Any, uncond: Any, steps: int | None = None
    ) -> torch.Tensor:
        """Samples from latents `x`, after adding `noise` according to `p.denoising_strength`."""
        steps, taken = sd_samplers_common.img2img_steps(p, steps)
        sigmas = self.get_sigmas(p, steps)[steps - taken - 1 :].to(x.device)
        self.model_wrap_cfg.init_latent = x
        return self.run(p, x + noise * sigmas[0], cond, uncond, taken + 1, sigmas=sigmas)
