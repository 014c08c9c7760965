"""Clips that begin with a given image, and may end with another: how far each frame may depart from them.

There are two ways. That of sd-webui-animatediff mixes noise into the initial latents, more with every frame. The other gives
each frame its own denoising strength: a frame keeps its initial latents until as many steps are left as its strength needs,
as if it had entered the sampler there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

MOST_OF_STEPS = 0.999
"""The WebUI's limit on a denoising strength, so that a sampler does not begin before its first step."""


def faded(frames: int, power: float, scale: float) -> Tensor:
    """Returns the weight of the first image in each frame's initial latents, `(frames,)`: 1 − i^power / scale, at least 0."""
    return (1 - torch.arange(float(frames)) ** power / scale).clamp(min=0)


def faded_between(frames: int, first: tuple[float, float], last: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Returns the weights `(frames,)` of a first and of a last image, each with its power and scale; their sum is at most 1.

    The first frame has only the first image, and the last frame only the last one.
    """
    of_first, of_last = faded(frames, *first), faded(frames, *last).flip(0)
    both = (of_first + of_last).clamp(min=1)
    of_first, of_last = of_first / both, of_last / both
    of_first[[0, -1]], of_last[[0, -1]] = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    return of_first, of_last


def mixed(first: Tensor, of_first: Tensor, last: Tensor, of_last: Tensor, noise: Tensor) -> Tensor:
    """Returns the weighted sum of two images and noise, `(frames, 4, height, width)`.

    `first`, `last`: latents `(1, 4, height, width)`. `of_first`, `of_last`: their weights `(frames,)`; noise has the rest.
    """
    a, b = (part.to(noise).view(-1, 1, 1, 1) for part in (of_first, of_last))
    return first * a + last * b + noise * (1 - a - b)


def shares(frames: int, reach: float, *, last: bool = False, closed: bool = False) -> Tensor:
    """Returns which fraction of the denoising strength each frame has, `(frames,)`: 0 at a given image, then rising to 1.

    `reach`: the fraction of the clip after which it is 1; at 0 every frame has 1. `last`: whether an image is given for the
    last frame too. `closed`: whether the first frame follows the last one.
    """
    if reach == 0:
        return torch.ones(frames)
    distance = torch.arange(float(frames))
    if last:
        distance = torch.minimum(distance, distance.flip(0))
    elif closed:
        distance = torch.minimum(distance, frames - distance)
    return (distance / max(reach * (frames - 1), 1)).clamp(max=1)


def shares_of(strengths: Sequence[float], steps: int, more: int) -> Tensor:
    """Returns which fraction of the sampler's steps each frame takes with a denoising strength of its own, `(frames,)`.

    A sampler takes as many of `steps` as a strength says, rounded down, and `more`. Here it takes those of the largest one.
    """
    taken = [max(int(min(strength, MOST_OF_STEPS) * steps) + more, 0) if strength else 0 for strength in strengths]
    return torch.tensor(taken) / max(*taken, 1)


def free(shares: Tensor, progress: float) -> Tensor:
    """Returns which frames are denoised when a fraction `progress` of the sampler's steps is done: `(frames,)` of bool."""
    return (progress + 1e-6 >= 1 - shares) & (shares > 0)


def between(first: Tensor, last: Tensor, frames: int) -> Tensor:
    """Returns the linear interpolation of two latents `(1, 4, height, width)`: `(frames, 4, height, width)`."""
    weights = torch.linspace(0, 1, frames).to(first).view(-1, 1, 1, 1)
    return first + weights * (last - first)
