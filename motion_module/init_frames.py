"""Clips that begin, and perhaps end, with a given picture: how far each frame may go from it.

Two ways. The established extension's mixes noise into what the frames start from, more with every frame. The other one gives
each frame its own denoising strength: a frame stays at what it starts from until as many steps are left as its strength asks
for, as if it had entered the sampler there.
"""

from __future__ import annotations

import torch
from torch import Tensor


def faded(frames: int, power: float, scale: float) -> Tensor:
    """How much of the first picture is in what each frame starts from, `(frames,)`: 1 − i^power / scale, and never below 0."""
    return (1 - torch.arange(float(frames)) ** power / scale).clamp(min=0)


def faded_between(frames: int, first: tuple[float, float], last: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Likewise of a first and of a last picture, each with its power and scale; never more than 1 of both together.

    The first frame has only the first picture, and the last frame only the last one.
    """
    of_first, of_last = faded(frames, *first), faded(frames, *last).flip(0)
    both = (of_first + of_last).clamp(min=1)
    of_first, of_last = of_first / both, of_last / both
    of_first[[0, -1]], of_last[[0, -1]] = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    return of_first, of_last


def mixed(first: Tensor, of_first: Tensor, last: Tensor, of_last: Tensor, noise: Tensor) -> Tensor:
    """`(frames, 4, height, width)`: of two pictures `(1, …)` parts `(frames,)`, and of noise `(frames, …)` the rest."""
    a, b = (part.to(noise).view(-1, 1, 1, 1) for part in (of_first, of_last))
    return first * a + last * b + noise * (1 - a - b)


def shares(frames: int, reach: float, *, last: bool = False, closed: bool = False) -> Tensor:
    """Which part of the denoising strength each frame has, `(frames,)`: 0 at a given picture, 1 from `reach` of the clip on.

    `reach`: 0 to 1; at 0 every frame has all of it. `last`: whether a picture is given for the last frame too. `closed`:
    whether the first frame comes again behind the last one.
    """
    if reach == 0:
        return torch.ones(frames)
    distance = torch.arange(float(frames))
    if last:
        distance = torch.minimum(distance, distance.flip(0))
    elif closed:
        distance = torch.minimum(distance, frames - distance)
    return (distance / max(reach * (frames - 1), 1)).clamp(max=1)


def free(shares: Tensor, progress: float) -> Tensor:
    """Which frames are denoised when so much of the sampler's steps, 0 to 1, is done: `(frames,)` of bool."""
    return (progress + 1e-6 >= 1 - shares) & (shares > 0)


def between(first: Tensor, last: Tensor, frames: int) -> Tensor:
    """From one picture `(1, 4, height, width)` along a line to another: `(frames, 4, height, width)`."""
    way = torch.linspace(0, 1, frames).to(first).view(-1, 1, 1, 1)
    return first + way * (last - first)
