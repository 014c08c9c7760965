"""What CameraCtrl adds in one motion layer (arXiv 2404.02101, section 3.3).

Reference: `PoseAdaptorAttnProcessor` in hehao13/CameraCtrl `cameractrl/models/attention_processor.py`. The input `h` of the
first attention, positional encoding included, becomes `h + strength × merge(h + features)`. Queries, keys and values are made
of that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class LayerCamera:
    """The camera as one layer sees it.

    `features`: those of the pose encoder at the layer's level, `(clips, frames, channels, pixels)`, or of a part of the pixels
    as `(pixels of all clips, frames, channels)`. `weight`, `bias`: of the linear layer that merges them.
    """

    features: Tensor
    weight: Tensor
    bias: Tensor
    strength: float

    def in_chunks(self, pixels: int, device: torch.device) -> Iterator[LayerCamera]:
        """Yields the camera for each chunk of pixels, as a layer divides its input."""
        weight, bias = self.weight.to(device), self.bias.to(device)
        for chunk in self.features.split(pixels, dim=3):
            features = chunk.permute(0, 3, 1, 2).reshape(-1, *chunk.shape[1:3]).to(device, weight.dtype)
            yield replace(self, features=features, weight=weight, bias=bias)

    def merged(self, hidden: Tensor) -> Tensor:
        """Returns the input of an attention, `(pixels, frames, channels)`, with the features merged into it."""
        return hidden + self.strength * F.linear(hidden + self.features, self.weight, self.bias)

    def merged_positions(self, encoding: Tensor) -> Tensor:
        """Returns what a positional encoding adds to `merged`: merging is linear, so it can be merged by itself."""
        return encoding + self.strength * F.linear(encoding, self.weight)
