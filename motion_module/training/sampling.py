"""Pictures and clips from a model in training: deterministic DDIM with classifier-free guidance, and nothing else.

The WebUI has the samplers that people use; validation and experiments need one that is short and always the same.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..noise import NoiseSchedule

Predict = Callable[[Tensor, Tensor], Tensor]
"""The noise in latents `(rows, 4, height, width)` at timesteps `(rows,)`."""


@torch.no_grad()
def ddim(predict: Predict, noise: Tensor, schedule: NoiseSchedule, steps: int) -> Tensor:
    """DDIM with eta 0 (arXiv 2010.02502, equation 12): latents like `noise`. Steps are spread evenly, from the last one on."""
    alphas = schedule.alphas_cumprod().to(noise.device)
    times = torch.linspace(schedule.steps - 1, 0, steps + 1, device=noise.device)[:-1].round().long()
    left = [*alphas[times].tolist(), 1.0]
    latents = noise
    for index, time in enumerate(times):
        epsilon = predict(latents, time.expand(len(latents)))
        clean = (latents - (1 - left[index]) ** 0.5 * epsilon) / left[index] ** 0.5
        latents = left[index + 1] ** 0.5 * clean + (1 - left[index + 1]) ** 0.5 * epsilon
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
