"""The condition image of PIA, which the UNet takes in addition to the noise (arXiv 2312.13964, section 3).

Reference: open-mmlab/PIA `animatediff/utils/util.py` (the curves) and `animatediff/pipelines/i2v_pipeline.py`. There the UNet's
first convolution takes nine channels: the noise, a mask, and the latents of the image. Its weights for the noise are those of
the checkpoint. A convolution is linear, so here the contribution of the other five channels is computed separately and added.
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
"""How similar each frame is to the condition image, by its distance from it; the last value is for all further frames."""


@dataclass(frozen=True)
class ConditionImage:
    """The image that a clip starts from.

    `latents`: `(1, 4, height, width)`, scaled as the UNet's are. `similarity`: of each frame to the image, from 0 to 1.
    """

    latents: Tensor
    similarity: Sequence[float]

    def convolved(self, kernel: Tensor) -> Tensor:
        """Returns what mask and image add to the output of the first convolution: `(frames, channels, height, width)`.

        `kernel`: `(channels, 5, 3, 3)`.
        """
        frames = len(self.similarity)
        latents = self.latents.to(kernel).expand(frames, -1, -1, -1)
        height, width = latents.shape[2:]
        mask = torch.tensor(self.similarity).to(kernel)[:, None, None, None].expand(frames, 1, height, width)
        return F.conv2d(torch.cat([mask, latents], dim=1), kernel, padding=1)


def similarity(curve: str, frames: int) -> list[float]:
    """Returns the similarity of each frame to the condition image, which is at the first frame. `curve`: a name in `CURVES`."""
    values = CURVES[curve]
    return [values[min(frame, len(values) - 1)] for frame in range(frames)]
