"""FreeInit (Wu et al., arXiv 2312.07537): makes a clip several times, each time from the low frequencies of the one before.

Reference: TianxingWu/FreeInit `freeinit_utils.py`. The filters are the same; what is three loops there is one expression here.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Filter = Literal["butterworth", "gaussian", "box", "ideal"]
ORDER = 4
"""The order of the Butterworth filter."""


def low_pass(shape: tuple[int, int, int], kind: Filter, spatial: float, temporal: float) -> Tensor:
    """Returns the response of a low-pass filter, `(frames, height, width)` like `shape`; the lowest frequency is in the middle.

    `spatial`, `temporal`: the cutoff frequencies, from 0, which keeps nothing, to 1, the highest frequency.
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
        return (squared <= 2 * spatial).float()  # not its square, as in the reference
    frames, height, _ = shape
    reaches = round(frames // 2 * temporal), round(height // 2 * spatial), round(height // 2 * spatial)
    response = torch.zeros(shape)
    response[tuple(slice(max(0, size // 2 - reach), size // 2 + reach) for size, reach in zip(shape, reaches))] = 1
    return response


def with_low_frequencies_of(clip: Tensor, noise: Tensor, response: Tensor) -> Tensor:
    """Returns `noise` with the low frequencies of `clip` instead of its own, both `(frames, channels, height, width)`.

    `response`: that of `low_pass`.
    """
    axes = (0, 2, 3)
    low, high = (torch.fft.fftshift(torch.fft.fftn(part.float(), dim=axes), dim=axes) for part in (clip, noise))
    weight = response[:, None].to(low.device)
    mixed = low * weight + high * (1 - weight)
    return torch.fft.ifftn(torch.fft.ifftshift(mixed, dim=axes), dim=axes).real.to(noise.dtype)
