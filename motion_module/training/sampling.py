"""Pictures and clips from a model in training: deterministic DDIM with classifier-free guidance, and nothing else.

The WebUI has the samplers that people use; validation and experiments need one that is short and always the same.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..noise_schedule import NoiseSchedule

Predict = Callable[[Tensor, Tensor], Tensor]
"""The noise in latents `(rows, 4, height, width)` at timesteps `(rows,)`."""
CLEAN = -1
"""The timestep of latents without noise."""


def timesteps(schedule: NoiseSchedule, steps: int) -> list[int]:
    """From the last timestep to `CLEAN`, evenly spread."""
    return [round((schedule.steps - 1) * (1 - step / steps)) for step in range(steps)] + [CLEAN]


@torch.no_grad()
def ddim(predict: Predict, latents: Tensor, schedule: NoiseSchedule, times: list[int]) -> Tensor:
    """Takes latents from the first of `times` to the last one, by DDIM with eta 0 (arXiv 2010.02502, equation 12)."""
    left = [*schedule.alphas_cumprod().tolist(), 1.0]  # the last is that of CLEAN
    for time, after in pairwise(times):
        epsilon = predict(latents, torch.full((len(latents),), time, device=latents.device))
        clean = (latents - (1 - left[time]) ** 0.5 * epsilon) / left[time] ** 0.5
        latents = left[after] ** 0.5 * clean + (1 - left[after]) ** 0.5 * epsilon
    return latents


def guided(unet: nn.Module, conditions: Tensor, unconditional: Tensor, scale: float) -> Predict:
    """Classifier-free guidance (arXiv 2207.12598) in one call of twice the rows, those of the prompts first.

    `conditions`: `(rows, tokens, width)`, a row each. `unconditional`: `(1, tokens, width)`.
    """
    context = torch.cat([conditions, unconditional.expand_as(conditions)])

    def predict(latents: Tensor, times: Tensor) -> Tensor:
        with_prompt, without = unet(latents.repeat(2, 1, 1, 1), times.repeat(2), context=context).chunk(2)
        return without + scale * (with_prompt - without)

    return predict
