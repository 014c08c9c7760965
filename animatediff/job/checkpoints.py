"""Tells which kind of Stable Diffusion a checkpoint is: the loaded one, and files that a job will load later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from motion_module.checkpoint_keys import kind_of_checkpoint
from motion_module.weight_files import CheckpointError, open_weights

SDXL_BLOCKS = 9
"""The number of input blocks of its UNet."""
REFINER = "the SDXL refiner"


def kind_of(model: Any) -> str:
    """Returns the kind of a loaded checkpoint. The WebUI takes SDXL's refiner for SDXL, but its UNet has one more level."""
    if getattr(model, "is_sdxl", False) and len(model.model.diffusion_model.input_blocks) > SDXL_BLOCKS:
        return REFINER
    flags = {"is_sdxl": "SDXL", "is_sd2": "Stable Diffusion 2", "is_sd3": "Stable Diffusion 3", "is_sd1": "SD 1.5"}
    return next((kind for flag, kind in flags.items() if getattr(model, flag, False)), "of an unknown kind")


def kind_of_file(path: str) -> str | None:
    """Returns the kind of a checkpoint file without reading its weights; None if its keys do not tell."""
    try:
        return kind_of_checkpoint(open_weights(Path(path)).entries)
    except CheckpointError:
        return None
