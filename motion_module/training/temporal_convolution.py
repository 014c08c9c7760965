"""Temporal convolutions instead of temporal transformers: the alternative in the paper's ablation (section 5.3).

They are here only to repeat the experiment: the paper finds that frames become the same and nothing moves.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..network import NORM_GROUPS
from ..row_layout import RowLayout
from .config import Config
from .trained_parts import MotionModuleSubject

LAYERS, KERNEL = 6, 3
"""The number of consecutive convolutions, and their kernel size in frames. With the output projection, there are 21 weights for
every 22 of a temporal transformer, and the receptive field is seven frames to either side."""


class TemporalConvolution(nn.Module):
    """A motion layer that can replace a `TemporalTransformer`. A new one is the identity, too."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(NORM_GROUPS, channels, eps=1e-6)
        self.convolutions = nn.ModuleList(nn.Conv1d(channels, channels, KERNEL, padding=KERNEL // 2) for _ in range(LAYERS))
        self.proj_out = nn.Conv1d(channels, channels, KERNEL, padding=KERNEL // 2)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)  # type: ignore[arg-type]

    def residual(self, x: Tensor, layout: RowLayout, scale: float = 1.0) -> Tensor:
        """Returns what the layer adds to `x`, `(rows, channels, height, width)`."""
        height, width = x.shape[2:]
        clips = layout.to_clips(self.norm(x))  # (clips, frames, channels, height, width)
        count, frames, channels = clips.shape[:3]
        hidden = clips.permute(0, 3, 4, 2, 1).reshape(-1, channels, frames)
        for convolution in self.convolutions:
            hidden = hidden + F.silu(convolution(hidden))
        hidden = self.proj_out(hidden)
        return layout.to_rows(hidden.view(count, height, width, channels, frames).permute(0, 4, 3, 1, 2))


class TemporalConvolutions(MotionModuleSubject):
    """A motion module of temporal convolutions. It has no published layout; its file has the names of its own weights."""

    def __init__(self, unet: nn.Module, config: Config) -> None:
        super().__init__(unet, config)
        assert self.motion is not None
        self.motion.layers = nn.ModuleDict({block: TemporalConvolution(count) for block, count in self.motion.channels.items()})

    def published(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:  # type: ignore[override]
        return dict(weights)
