"""Stands in for `modules.rng`: each picture of a batch has its own generator, so its noise does not depend on the batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from modules import devices


class ImageRNG:
    def __init__(
        self, shape: Sequence[int], seeds: Sequence[int], subseeds: Sequence[int] = (), subseed_strength: float = 0.0
    ) -> None:
        """`shape`: `(channels, height, width)` of one picture's latents. A subseed changes only the first noise."""
        self._shape = tuple(shape)
        self._generators = _generators(seeds)
        self._others = _generators(subseeds) if subseed_strength else []
        self._strength = subseed_strength

    def next(self) -> torch.Tensor:
        """Returns normal noise `(pictures, channels, height, width)`."""
        noise = self._drawn(self._generators)
        if self._others:
            noise, self._others = _turned(noise, self._drawn(self._others), self._strength), []
        return noise

    def _drawn(self, generators: list[torch.Generator]) -> torch.Tensor:
        return torch.stack([torch.randn(self._shape, generator=generator, device=devices.device) for generator in generators])


def _generators(seeds: Sequence[int]) -> list[torch.Generator]:
    return [torch.Generator(devices.device).manual_seed(int(seed)) for seed in seeds]


def _turned(noise: torch.Tensor, other: torch.Tensor, part: float) -> torch.Tensor:
    """Returns the spherical interpolation between two noises, for each column of each channel, as in the WebUI."""
    cosine = torch.nn.functional.cosine_similarity(noise, other, dim=2).unsqueeze(2)
    angle = cosine.clamp(-1 + 1e-6, 1 - 1e-6).acos()
    return (torch.sin((1 - part) * angle) * noise + torch.sin(part * angle) * other) / torch.sin(angle)
