"""What kind of Stable Diffusion a checkpoint is, in words: the loaded one, and files that a job will load later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from motion_module.weight_files import CheckpointError, open_weights

SDXL_BLOCKS = 9
"""On the way down in its UNet."""
REFINER = "the SDXL refiner"
KINDS = {
    "model.diffusion_model.x_embedder.": "Stable Diffusion 3",
    "conditioner.embedders.1.model.": "SDXL",
    "conditioner.embedders.0.model.": REFINER,
    "cond_stage_model.model.": "Stable Diffusion 2",
    "cond_stage_model.transformer.": "SD 1.5",
}
"""By what keys begin with; a file of the first kind may have keys of the others too."""


def kind_of(model: Any) -> str:
    """Of a loaded checkpoint. SDXL's refiner is SDXL to the WebUI, but its UNet has a level more."""
    if getattr(model, "is_sdxl", False) and len(model.model.diffusion_model.input_blocks) > SDXL_BLOCKS:
        return REFINER
    flags = {"is_sdxl": "SDXL", "is_sd2": "Stable Diffusion 2", "is_sd3": "Stable Diffusion 3", "is_sd1": "SD 1.5"}
    return next((kind for flag, kind in flags.items() if getattr(model, flag, False)), "of an unknown kind")


def kind_of_file(path: str) -> str | None:
    """Without reading weights; None where that does not tell."""
    try:
        keys = open_weights(Path(path)).entries
    except CheckpointError:
        return None
    return next((kind for start, kind in KINDS.items() if any(key.startswith(start) for key in keys)), None)
