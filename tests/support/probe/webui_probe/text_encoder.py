"""Registers the tiny text encoder of the tests' SDXL checkpoints with OpenCLIP, which looks architectures up by name."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def register() -> None:
    """Registers it with the WebUI's OpenCLIP. The embedded host has no OpenCLIP."""
    if importlib.util.find_spec("open_clip") is not None:
        import open_clip

        open_clip.add_model_config(Path(__file__).parent / "architectures")
