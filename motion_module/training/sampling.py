"""Sampling from a model in training: deterministic DDIM with classifier-free guidance.

The WebUI has the samplers for users; validation and experiments need one that is short and deterministic.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..noise_schedule import NoiseSchedule

Predict = Callable[[Tensor, Tensor], Tensor]
"""Predicts the noise in latents `(rows, 4, height, width)` at timesteps `(rows,)`."""
CLEAN = -1
"""The timestep of latents without noise."""


def timesteps(schedule: NoiseSchedule, steps: int) -> list[int]:
    """Returns evenly spaced timesteps, from the last one of the schedule to `CLEAN`."""
    return [round((schedule.steps - 1) * (1 - step / steps)) for step in range(steps)] + [CLEAN]


@torch.no_grad()
def ddim(predict: Predict, latents: Tensor, schedule: NoiseSchedule, times: list[int]) -> Tensor:
    """Denoises latents from the first of `times` to the last one by DDIM with eta 0 (arXiv 2010.02502, equation 12)."""
    alphas = [*schedule.alphas_cumprod().tolist(), 1.0]  # the last is that of CLEAN
    for time, after in pairwise(times):
        epsilon = predict(latents, torch.full((len(latents),), time, device=latents.device))
        clean = (latents - (1 - alphas[time]) ** 0.5 * epsilon) / alphas[time] ** 0.5
        latents = alphas[after] ** 0.5 * clean + (1 - alphas[after]) ** 0.5 * epsilon
    return latents


def guided(unet: nn.Module, conditions: Tensor, unconditional: Tensor, scale: float) -> Predict:
    """Returns a function that predicts noise with classifier-free guidance (arXiv 2207.12598).

    `conditions`: `(rows, tokens, width)`. `unconditional`: `(1, tokens, width)`. One UNet call has both, `conditions` first.
    """
    context = torch.cat([conditions, unconditional.expand_as(conditions)])

    def predict(latents: Tensor, times: Tensor) -> Tensor:
        with_prompt, without = unet(latents.repeat(2, 1, 1, 1), times.repeat(2), context=context).chunk(2)
        return without + scale * (with_prompt - without)

    return predict


def noise_of(velocity: Predict, schedule: NoiseSchedule) -> Predict:
    """Returns a function that predicts noise with one that predicts v (arXiv 2202.00512, appendix D)."""
    alphas = schedule.alphas_cumprod()

    def predict(latents: Tensor, times: Tensor) -> Tensor:
        alpha = alphas.to(latents.device)[times].view(-1, 1, 1, 1)
        return alpha**0.5 * velocity(latents, times) + (1 - alpha) ** 0.5 * latents

    return predict
