"""A picture to start from, seen by the UNet beside the noise: PIA (arXiv 2312.13964, section 3).

Reference: open-mmlab/PIA `animatediff/utils/util.py` (the curves) and `animatediff/pipelines/i2v_pipeline.py`. There the UNet's
first convolution takes nine channels: the noise, a mask, and the latents of the picture. Its part for the noise is that of the
checkpoint. A convolution is linear, so here the other part is computed apart and added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

CURVES: dict[str, tuple[float, ...]] = {
    "small motion": (1.0, 0.9, 0.85, 0.85, 0.85, 0.8),
    "moderate motion": (1.0, 0.8, 0.8, 0.8, 0.79, 0.78, 0.75),
    "large motion": (1.0, 0.8, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.6, 0.5, 0.5),
    "small motion, loop": (1.0, 0.9, 0.85, 0.85, 0.85, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.85, 0.85, 0.9, 1.0),
    "moderate motion, loop": (1.0, 0.8, 0.8, 0.8, 0.79, 0.78, 0.75, 0.75, 0.75, 0.75, 0.75, 0.78, 0.79, 0.8, 0.8, 1.0),
    "large motion, loop": (1.0, 0.8, 0.7, 0.7, 0.7, 0.7, 0.6, 0.5, 0.5, 0.6, 0.7, 0.7, 0.7, 0.7, 0.8, 1.0),
    "small motion, new style": (0.5, 0.4, 0.4, 0.4, 0.35, 0.3),
    "moderate motion, new style": (0.5, 0.4, 0.4, 0.4, 0.35, 0.35, 0.3, 0.25, 0.2),
    "large motion, new style": (0.5, 0.2),
}
"""How much each frame is to be like the picture, by its distance from it; the last value holds from there on."""


@dataclass(frozen=True)
class Picture:
    """`latents`: `(1, 4, height, width)` of the picture, scaled as the UNet's are. `likeness`: of each frame to it."""

    latents: Tensor
    likeness: Sequence[float]

    def seen_through(self, kernel: Tensor) -> Tensor:
        """What the mask and the picture add to the first convolution, `(frames, channels, height, width)`."""
        frames = len(self.likeness)
        latents = self.latents.to(kernel).expand(frames, -1, -1, -1)
        height, width = latents.shape[2:]
        mask = torch.tensor(self.likeness).to(kernel)[:, None, None, None].expand(frames, 1, height, width)
        return F.conv2d(torch.cat([mask, latents], dim=1), kernel, padding=1)


def likeness(curve: str, frames: int) -> list[float]:
    """A curve for a clip that starts from the picture."""
    values = CURVES[curve]
    return [values[min(frame, len(values) - 1)] for frame in range(frames)]
