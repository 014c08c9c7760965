"""FreeInit (Wu et al., arXiv 2312.07537): a clip is made several times, each time from what was slow in the one before.

Reference: TianxingWu/FreeInit `freeinit_utils.py`. The filters are those of its table; what it fills in three loops is one
expression here.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Filter = Literal["butterworth", "gaussian", "box", "ideal"]
ORDER = 4
"""Of the Butterworth filter."""


def low_pass(shape: tuple[int, int, int], kind: Filter, spatial: float, temporal: float) -> Tensor:
    """How much of each frequency is kept, `(frames, height, width)` like `shape`, the lowest in the middle.

    `spatial`, `temporal`: where the filter stops, from 0, where nothing is kept, to 1, the highest frequency.
    """
    if spatial == 0 or temporal == 0:
        return torch.zeros(shape)
    along, down, across = torch.meshgrid(*(2 * torch.arange(size) / size - 1 for size in shape), indexing="ij")
    squared = (spatial / temporal * along) ** 2 + down**2 + across**2
    if kind == "butterworth":
        return 1 / (1 + (squared / spatial**2) ** ORDER)
    if kind == "gaussian":
        return torch.exp(-squared / (2 * spatial**2))
    if kind == "ideal":
        return (squared <= 2 * spatial).float()  # and not its square: so the reference has it
    frames, height, _ = shape
    reaches = round(frames // 2 * temporal), round(height // 2 * spatial), round(height // 2 * spatial)
    kept = torch.zeros(shape)
    kept[tuple(slice(max(0, size // 2 - reach), size // 2 + reach) for size, reach in zip(shape, reaches))] = 1
    return kept


def with_low_frequencies_of(clip: Tensor, noise: Tensor, kept: Tensor) -> Tensor:
    """`noise` with the low frequencies of `clip` in place of its own, both `(frames, channels, height, width)`.

    `kept`: of `low_pass`.
    """
    axes = (0, 2, 3)
    slow, fast = (torch.fft.fftshift(torch.fft.fftn(part.float(), dim=axes), dim=axes) for part in (clip, noise))
    share = kept[:, None].to(slow.device)
    mixed = slow * share + fast * (1 - share)
    return torch.fft.ifftn(torch.fft.ifftshift(mixed, dim=axes), dim=axes).real.to(noise.dtype)
