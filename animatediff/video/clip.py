"""What is encoded, and how well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

PATTERN, DIFFUSION, NO_DITHERING = "Pattern", "Error diffusion", "No dithering"
DITHERINGS = (PATTERN, DIFFUSION, NO_DITHERING)


@dataclass(frozen=True)
class Sound:
    """That of a file, from a time in seconds on."""

    file: Path
    start: float = 0.0


@dataclass(frozen=True)
class Clip:
    """Frames of one size. `plays`: how often it is shown, 0 for ever. `infotext`: how it was made, empty to keep that out.
    `sound`: what is heard with them, for as long as they last; MP4 and WebM have it.
    """

    frames: Sequence[Image.Image]
    fps: float
    plays: int = 0
    infotext: str = ""
    sound: Sound | None = None

    @property
    def rgb(self) -> list[Image.Image]:
        """The frames without transparency or palettes, which no two formats treat alike."""
        return [frame if frame.mode == "RGB" else frame.convert("RGB") for frame in self.frames]


@dataclass(frozen=True)
class Quality:
    """Settings of encoders, with the defaults of the established extension."""

    gif_dithering: str = PATTERN
    """How the 256 colours of a GIF stand in for more: one of DITHERINGS."""
    optimize_gif_gifsicle: bool = False
    """Whether the program gifsicle makes GIFs smaller, without loss."""
    mp4_crf: int = 23
    """H.264's constant rate factor: 0 loses nothing, 51 is worst."""
    mp4_preset: str = ""
    """How long H.264 may take to make the file small; empty for its own default."""
    mp4_tune: str = ""
    """What H.264 is tuned for: film, animation or grain; empty for nothing."""
    webp_quality: int = 80
    webp_lossless: bool = False
