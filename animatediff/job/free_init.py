"""FreeInit: the first pass of txt2img is sampled several times. Nothing of the WebUI is imported here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from motion_module.free_init import low_pass, with_low_frequencies_of
from motion_module.initial_noise import noise_for_seeds

from ..request.params import Params

Sample = Callable[..., Any]
"""`sample` of one of the WebUI's samplers: of `p`, noise `(frames, channels, height, width)` and conditions, latents."""


@dataclass(frozen=True)
class Rounds:
    """`begins` hears which round it is, from 0. `interrupted`: whether the user wants no more. `signal_left`: the part of the
    variance that the running schedule leaves of a clip at its last timestep.
    """

    params: Params
    begins: Callable[[int], None]
    interrupted: Callable[[], bool]
    signal_left: Callable[[], torch.Tensor]

    def of(self, sample: Sample) -> Sample:
        """A `sample` that returns what its last round has made.

        A round begins with the low frequencies of the one before, taken to the last timestep with the noise of the first, and
        with new noise above them. With `freeinit_fast`, rounds before the last one take fewer steps.
        """
        params = self.params

        def sample_in_rounds(p: Any, first: torch.Tensor, *conditions: Any, steps: int | None = None, **settings: Any) -> Any:
            noise, steps, last = first, steps or p.steps, params.freeinit_iters - 1
            size = len(first), *first.shape[2:]
            kept = low_pass(size, params.freeinit_filter, params.freeinit_ds, params.freeinit_dt)  # type: ignore[arg-type]
            for number in range(params.freeinit_iters):
                self.begins(number)
                taken = max(1, steps * (number + 1) // (last + 1)) if params.freeinit_fast else steps
                latents = sample(p, noise, *conditions, steps=taken, **settings)
                if number == last or self.interrupted():
                    break
                left = self.signal_left().to(latents)
                again = left.sqrt() * latents + (1 - left).sqrt() * first.to(latents)
                noise = with_low_frequencies_of(again, noise_for_seeds(first, p.seeds, number), kept).to(first)
            return latents

        return sample_in_rounds
