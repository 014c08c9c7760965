"""FreeInit: the first pass of txt2img is sampled in several rounds (imports no WebUI)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor

from motion_module.free_init import Filter, low_pass, with_low_frequencies_of
from motion_module.initial_noise import noise_for_seeds
from motion_module.patching import patched

from ..request.params import Params

Sample = Callable[..., Any]
"""`sample` of one of the WebUI's samplers: from `p`, noise `(frames, channels, height, width)` and conditions to latents."""


@dataclass(frozen=True)
class Rounds:
    """`begins` is called with the number of each round, from 0. `interrupted`: whether the user wants no more rounds.

    `signal_left`: the fraction of the variance that the running schedule leaves of a clip at its last timestep.
    """

    params: Params
    begins: Callable[[int], None]
    interrupted: Callable[[], bool]
    signal_left: Callable[[], Tensor]

    def of(self, sample: Sample) -> Sample:
        """Returns a `sample` that returns the result of its last round.

        A round begins with the low frequencies of the one before, noised to the last timestep with the noise of the first, and
        with new noise above them. With `freeinit_fast`, rounds before the last one take fewer steps.
        """
        params = self.params

        def sample_in_rounds(p: Any, first: Tensor, *conditions: Any, steps: int | None = None, **settings: Any) -> Any:
            noise, steps, last = first, steps or p.steps, params.freeinit_iters - 1
            size = len(first), *first.shape[2:]
            kept = low_pass(size, cast(Filter, params.freeinit_filter), params.freeinit_ds, params.freeinit_dt)
            for number in range(params.freeinit_iters):
                self.begins(number)
                taken = max(1, steps * (number + 1) // (last + 1)) if params.freeinit_fast else steps
                with nullcontext() if number == last else _without_refiner(p):
                    result = sample(p, noise, *conditions, steps=taken, **settings)
                if number > 0 and self.interrupted():
                    break  # the clip of the round before is finished, this one is not
                latents = result
                if number == last or self.interrupted():
                    break
                left = self.signal_left().to(latents)
                again = left.sqrt() * latents + (1 - left).sqrt() * first.to(latents)
                noise = with_low_frequencies_of(again, noise_for_seeds(first, p.seeds, number), kept).to(first)
            return latents

        return sample_in_rounds


def _without_refiner(p: Any) -> AbstractContextManager[None]:
    """While open, sampling does not change to the refiner: the next round would begin on it, with the base model's prompts."""
    return patched(p, "refiner_checkpoint_info", None)
