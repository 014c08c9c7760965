"""What the encoders get: the clip, and their quality settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

PATTERN, DIFFUSION, NO_DITHERING = "Pattern", "Error diffusion", "No dithering"
DITHERINGS = (PATTERN, DIFFUSION, NO_DITHERING)


@dataclass(frozen=True)
class Sound:
    """The sound of a file, from `start` seconds on."""

    file: Path
    start: float = 0.0


@dataclass(frozen=True)
class Clip:
    """Frames of one size, and how they are played."""

    frames: Sequence[Image.Image]
    fps: float
    plays: int = 0
    """How many times the clip plays; 0 for an endless loop."""
    infotext: str = ""
    """The generation parameters that are written into the file; empty to leave them out."""
    sound: Sound | None = None
    """Cut to the length of the clip. Only MP4 and WebM carry sound."""

    @property
    def rgb(self) -> list[Image.Image]:
        """The frames without transparency and palettes, which every format treats differently."""
        return [frame if frame.mode == "RGB" else frame.convert("RGB") for frame in self.frames]


@dataclass(frozen=True)
class Quality:
    """Settings of the encoders, with the defaults of sd-webui-animatediff."""

    gif_dithering: str = PATTERN
    """How a GIF imitates more than its 256 colours: one of DITHERINGS."""
    optimize_gif_gifsicle: bool = False
    """Whether the program gifsicle makes GIFs smaller without loss."""
    mp4_crf: int = 23
    """The constant rate factor of H.264: 0 is lossless, 51 is worst."""
    mp4_preset: str = ""
    """The preset of H.264: slower presets make smaller files. Empty for x264's default."""
    mp4_tune: str = ""
    """The tune of H.264: film, animation or grain; empty for none."""
    webp_quality: int = 80
    webp_lossless: bool = False
