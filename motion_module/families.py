"""What is known of each published family of motion modules, and what no file says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .noise import ANIMATEDIFF, NoiseSchedule


@dataclass(frozen=True)
class Family:
    """One record per family.

    `unet_norms`: whether the group norms of the UNet's ResBlocks and of its output take their statistics from one frame
    or from all frames of a clip together. The authors' v1 UNet is inflated with plain `nn.GroupNorm` over five dimensions
    (`use_inflated_groupnorm: false` in inference-v1.yaml), so it was trained with the latter.
    `frames`: the length of the clips it was trained on, and so the best one.
    """

    key: str
    base: Literal["SD 1.5", "SDXL"] = "SD 1.5"
    schedule: NoiseSchedule = ANIMATEDIFF
    unet_norms: Literal["per frame", "over frames"] = "per frame"
    frames: int = 16


V1 = Family("v1", unet_norms="over frames")
V2 = Family("v2")
V3 = Family("v3")
