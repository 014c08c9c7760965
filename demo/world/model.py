"""The image model of the world: the layout of Stable Diffusion 1.5, a tenth as wide, and a small autoencoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from demo.clip import text_config, write_text_folder
from motion_module.training.image_model import STABLE_DIFFUSION_1, ImageModel

WEIGHTS = Path(__file__).resolve().parent / "weights"
TEXT_WIDTH, TEXT_HEADS, TEXT_LAYERS = 40, 4, 2


def description(text_folder: Path) -> dict[str, Any]:
    """The `params` of the model's description: SD 1.5's, but for widths, heads and the autoencoder's depth."""
    unet = {**STABLE_DIFFUSION_1["unet_config"]["params"], "model_channels": 32, "num_heads": 2, "context_dim": TEXT_WIDTH}
    ddconfig = STABLE_DIFFUSION_1["first_stage_config"]["params"]["ddconfig"]
    ddconfig = {**ddconfig, "ch": 32, "ch_mult": [1, 1, 2, 2], "num_res_blocks": 1}
    return {
        **STABLE_DIFFUSION_1,
        "unet_config": {"params": unet},
        "first_stage_config": {"params": {"embed_dim": 4, "ddconfig": ddconfig}},
        "cond_stage_config": {"params": {"version": str(text_folder)}},
    }


def text_folder(cache: Path) -> Path:
    """The folder of configuration and tokenizer that a description names."""
    return write_text_folder(cache / "text", text_config(TEXT_WIDTH, TEXT_HEADS, TEXT_LAYERS))


def new_model(cache: Path) -> ImageModel:
    """An untrained one."""
    return ImageModel(description(text_folder(cache)))
