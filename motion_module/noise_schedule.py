"""Noise schedules that motion modules were trained with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class NoiseSchedule:
    """Variances of the forward diffusion (DDPM, arXiv 2006.11239, section 2).

    The curves are named by their mathematics, since LDM and diffusers use the same names for different curves: `betas` is
    linear in beta (diffusers `linear`, LDM `sqrt_linear`); `sqrt_betas` is linear in the square root of beta (diffusers
    `scaled_linear`, LDM `linear`), and is the schedule that Stable Diffusion itself was trained with.
    """

    straight_in: Literal["betas", "sqrt_betas"] = "betas"
    first: float = 0.00085
    last: float = 0.012
    steps: int = 1000

    def alphas_cumprod(self) -> Tensor:
        """Returns the cumulative product of 1 − beta after each step, `(steps,)` in float32; a new tensor at each call."""
        if self.straight_in == "betas":
            betas = np.linspace(self.first, self.last, self.steps, dtype=np.float64)
        else:
            betas = np.linspace(self.first**0.5, self.last**0.5, self.steps, dtype=np.float64) ** 2
        return torch.from_numpy(np.cumprod(1.0 - betas)).to(torch.float32)

    def sigmas(self) -> Tensor:
        """Returns the noise level after each step as k-diffusion measures it (arXiv 2206.00364): `(steps,)`."""
        alphas = self.alphas_cumprod()
        return ((1 - alphas) / alphas) ** 0.5


FAINTEST = 4.8973451890853435e-08
"""The signal that the WebUIs leave at the last timestep of zero terminal SNR, so that its noise level is finite."""


def to_zero_terminal_snr(alphas_cumprod: Tensor) -> Tensor:
    """Returns a schedule `(steps,)` whose last timestep is noise alone: its square root, shifted to end at 0 and scaled to
    begin as before (arXiv 2305.08891, algorithm 1).
    """
    signal = alphas_cumprod.sqrt()
    first, last = signal[0].clone(), signal[-1].clone()
    rescaled = ((signal - last) * (first / (first - last))) ** 2
    rescaled[-1] = FAINTEST
    return rescaled


STABLE_DIFFUSION = NoiseSchedule("sqrt_betas")
ANIMATEDIFF = NoiseSchedule("betas")
