"""FreeInit in the WebUI: the first pass of txt2img is sampled several times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from modules import shared

from motion_module.free_init import low_pass, with_low_frequencies_of

from .params import Params

Sample = Callable[..., Any]
"""`sample` of one of the WebUI's samplers: of `p`, noise `(frames, channels, height, width)` and conditions, latents."""


def in_rounds(sample: Sample, params: Params, tell: Callable[[int], None]) -> Sample:
    """A `sample` that goes on until its last round, or until it is interrupted. `tell` hears which round it is, from 0.

    A round begins with the low frequencies of the one before, taken to the last timestep again with the noise of the first, and
    with new noise above them. With `freeinit_fast`, rounds before the last one take fewer steps.
    """

    def sample_in_rounds(p: Any, first: torch.Tensor, *conditions: Any, steps: int | None = None, **settings: Any) -> Any:
        noise, steps = first, steps or p.steps
        kept = low_pass((len(first), *first.shape[2:]), params.freeinit_filter, params.freeinit_ds, params.freeinit_dt)  # type: ignore[arg-type]
        for number in range(params.freeinit_iters):
            tell(number)
            taken = max(1, steps * (number + 1) // params.freeinit_iters) if params.freeinit_fast else steps
            latents = sample(p, noise, *conditions, steps=taken, **settings)
            if number == params.freeinit_iters - 1 or shared.state.interrupted or shared.state.skipped:
                break
            left = shared.sd_model.alphas_cumprod[-1].to(latents)
            again = left.sqrt() * latents + (1 - left).sqrt() * first.to(latents)
            noise = with_low_frequencies_of(again, _new_noise(first, p.seeds, number), kept).to(first)
        return latents

    return sample_in_rounds


def _new_noise(like: torch.Tensor, seeds: list[int], number: int) -> torch.Tensor:
    """Another one for each round, the same each time; of the WebUI's own noise nothing is used up."""
    draws = [torch.Generator().manual_seed((int(seed) + (number + 1) * 1_000_003) % 2**63) for seed in seeds]
    return torch.stack([torch.randn(like.shape[1:], generator=draw) for draw in draws]).to(like)
