"""The image model of the world: the layout of Stable Diffusion 1.5, narrow, and a small autoencoder.

No layer is less than 64 channels wide: the group norms of this layout have 32 groups, and a group of one channel would lose
what every flat picture is made of, its mean.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from demo.clip import text_config, write_text_folder
from motion_module.training.image_model import STABLE_DIFFUSION_1, ImageModel, named_weights

WEIGHTS = Path(__file__).resolve().parent / "weights"
TEXT_WIDTH, TEXT_HEADS, TEXT_LAYERS = 28, 2, 2


def description(text_folder: Path) -> dict[str, Any]:
    """The `params` of the model's description: SD 1.5's, but for widths, heads and the autoencoder's depth."""
    unet = {**STABLE_DIFFUSION_1["unet_config"]["params"], "model_channels": 64, "channel_mult": [1, 1, 2, 2]}
    unet = {**unet, "num_heads": 2, "context_dim": TEXT_WIDTH}
    ddconfig = STABLE_DIFFUSION_1["first_stage_config"]["params"]["ddconfig"]
    ddconfig = {**ddconfig, "ch": 64, "ch_mult": [1, 1, 1, 1], "num_res_blocks": 0}
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


def write_checkpoint(model: ImageModel, path: Path, header: dict[str, str]) -> None:
    """A checkpoint in half precision. Its description is written by `describe`, where it is used."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.half().contiguous() for key, tensor in named_weights(model)}, path, header)


def made_by(command: str, seed: int) -> dict[str, str]:
    """What the header of a committed file says."""
    return {"made_by": command, "seed": str(seed), "licence": "Apache-2.0"}


def base_in(runs: Path) -> Path:
    """The committed base, as a checkpoint with its description, in the folder of trainings that begin with it."""
    path = runs / "base.safetensors"
    shutil.copyfile(WEIGHTS / path.name, path)
    describe(path, runs)
    return path


def describe(checkpoint: Path, cache: Path) -> None:
    """Writes a checkpoint's description beside it: it names the folder of the tokenizer, another one on each machine."""
    model = {"target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": description(text_folder(cache))}
    checkpoint.with_suffix(".yaml").write_text(json.dumps({"model": model}, indent=2))
