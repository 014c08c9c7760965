"""Noise: every picture of a batch has a generator of its own, so that it does not matter which batch it is in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from modules import devices


class ImageRNG:
    def __init__(self, shape: Sequence[int], seeds: Sequence[int]) -> None:
        """`shape`: (channels, height, width) of the latents of one picture."""
        self._shape = tuple(shape)
        self._generators = [torch.Generator(devices.device).manual_seed(int(seed)) for seed in seeds]

    def next(self) -> torch.Tensor:
        """Normal noise `(pictures, channels, height, width)`."""
        noises = [torch.randn(self._shape, generator=generator, device=devices.device) for generator in self._generators]
        return torch.stack(noises)
