"""The choices of parameters that code asks for. The others are written only in the table of parameters (`params.py`)."""

from __future__ import annotations

from ..video.formats import VIDEO_FORMATS

FORMATS = (*VIDEO_FORMATS, "PNG", "TXT")
API_FORMATS = (*FORMATS, "Frame")
DEFAULT_MODULE = "mm_sd15_v3.safetensors"
NO_MODULE = ("", "None")
AS_FOUND = "auto"
"""The family that the file is found to be of."""
MIX, RAMP = "blend with noise", "strength ramp"
WHOLE, IN_ATTENTION = "whole UNet", "motion attention"
RIFE = "RIFE"
EXACT, FAST, FAST_DEEP, FAST_NEGATIVE = "Exact", "Fast", "Fast (deep blocks)", "Fast (negative prompt)"
NO_DETAIL, FACES, DRAWN_BOX = "Off", "faces", "box"
DETECTED = (FACES, "upper bodies", "eyes")
"""What OpenCV's cascades find."""
DETECTOR_SUFFIX = ".pt"
"""Of a detector in a file, which finds what it was trained for."""
