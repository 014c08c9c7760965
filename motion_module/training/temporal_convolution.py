"""Convolutions along the frames in place of temporal transformers: the other design of the paper's ablation (section 5.3).

Not for use: the paper finds that it makes frames alike and lets nothing move, and so it is only here to be measured.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..network import NORM_GROUPS
from ..row_layout import RowLayout
from .config import Config
from .subjects import MotionModuleSubject

LAYERS, REACH = 6, 3
"""Convolutions one behind the other, and over how many frames each: with the one at the end, 21 weights for every 22 of a
temporal transformer, and seven frames to either side in sight."""


class TemporalConvolution(nn.Module):
    """Takes the place of a `TemporalTransformer`. A new one changes nothing either."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(NORM_GROUPS, channels, eps=1e-6)
        self.convolutions = nn.ModuleList(nn.Conv1d(channels, channels, REACH, padding=REACH // 2) for _ in range(LAYERS))
        self.proj_out = nn.Conv1d(channels, channels, REACH, padding=REACH // 2)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)  # type: ignore[arg-type]

    def residual(self, x: Tensor, layout: RowLayout, scale: float = 1.0) -> Tensor:
        """What it adds to `x`, `(rows, channels, height, width)`."""
        height, width = x.shape[2:]
        clips = layout.to_clips(self.norm(x))  # (clips, frames, channels, height, width)
        count, frames, channels = clips.shape[:3]
        hidden = clips.permute(0, 3, 4, 2, 1).reshape(-1, channels, frames)
        for convolution in self.convolutions:
            hidden = hidden + F.silu(convolution(hidden))
        hidden = self.proj_out(hidden)
        return layout.to_rows(hidden.view(count, height, width, channels, frames).permute(0, 4, 3, 1, 2))


class TemporalConvolutions(MotionModuleSubject):
    """A motion module of them. It has no published layout, and is kept under its own names."""

    def __init__(self, unet: nn.Module, config: Config) -> None:
        super().__init__(unet, config)
        assert self.motion is not None
        self.motion.layers = nn.ModuleDict({place: TemporalConvolution(width) for place, width in self.motion.channels.items()})

    def published(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:  # type: ignore[override]
        return dict(weights)
