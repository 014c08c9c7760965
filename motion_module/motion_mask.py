"""A mask of where motion acts: motion layers add less, or nothing, to the pixels where it is dark."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .row_layout import RowLayout


class MotionMask:
    """The share of its effect that a motion layer has at each pixel: at 1 it acts as without a mask, at 0 it is off.

    `shares`: `(1, height, width)` for all frames, or one for each: `(frames, height, width)`. Each layer of a UNet has its own
    resolution, and gets the mean over the area of each of its pixels.
    """

    def __init__(self, shares: Tensor) -> None:
        self._shares = shares.float()
        self._by_size: dict[tuple[int, int], Tensor] = {}

    def of_rows(self, x: Tensor, layout: RowLayout) -> Tensor:
        """Returns the share at each pixel of `x`, `(rows, channels, height, width)`: `(rows or 1, 1, height, width)`."""
        shares = self._as_large_as(x)
        return shares if len(shares) == 1 else layout.to_rows(layout.of_video(shares))

    def _as_large_as(self, x: Tensor) -> Tensor:
        """Returns the masks at the resolution of `x`, like it in device and dtype: `(masks, 1, height, width)`."""
        size = (x.shape[2], x.shape[3])
        if size not in self._by_size:
            self._by_size[size] = F.interpolate(self._shares[:, None], size, mode="area")
        self._by_size[size] = shares = self._by_size[size].to(x)
        return shares
