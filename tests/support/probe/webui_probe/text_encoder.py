"""The tiny text encoder of the tests' SDXL checkpoints. OpenCLIP knows architectures by name, and has to be told this one."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def make_known() -> None:
    """To the OpenCLIP of the WebUI; the embedded host has none."""
    if importlib.util.find_spec("open_clip") is not None:
        import open_clip

        open_clip.add_model_config(Path(__file__).parent / "architectures")
