"""The `.yaml` file beside a checkpoint, from which the WebUI builds its model: Stable Diffusion 1's, with other widths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from demo.clip_text_encoder import write_if_changed
from motion_module.training.image_model import STABLE_DIFFUSION_1


def config_params(text_folder: Path, unet: dict[str, Any], autoencoder: dict[str, Any]) -> dict[str, Any]:
    """Returns the `params` of a model whose UNet and autoencoder differ from the published ones in these arguments.

    `text_folder`: the folder with the configuration and the tokenizer of its text encoder.
    """
    parts = {key: STABLE_DIFFUSION_1[key]["params"] for key in ("unet_config", "first_stage_config")}
    return {
        **STABLE_DIFFUSION_1,
        "num_timesteps_cond": 1,
        "first_stage_key": "jpg",
        "cond_stage_key": "txt",
        "image_size": 64,
        "channels": 4,
        "cond_stage_trainable": False,
        "conditioning_key": "crossattn",
        "use_ema": False,
        "unet_config": {
            "target": "ldm.modules.diffusionmodules.openaimodel.UNetModel",
            "params": {**parts["unet_config"], **unet, "use_checkpoint": False},
        },
        "first_stage_config": {
            "target": "ldm.models.autoencoder.AutoencoderKL",
            "params": {
                **parts["first_stage_config"],
                "ddconfig": {**parts["first_stage_config"]["ddconfig"], **autoencoder},
                "lossconfig": {"target": "torch.nn.Identity"},
            },
        },
        "cond_stage_config": {
            "target": "ldm.modules.encoders.modules.FrozenCLIPEmbedder",
            "params": {"version": str(text_folder)},
        },
    }


def write_config(checkpoint: Path, params: dict[str, Any]) -> None:
    """Writes the file as JSON, which is valid YAML, so that no YAML library is needed."""
    model = {"target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": params}
    write_if_changed(checkpoint.with_suffix(".yaml"), json.dumps({"model": model}, indent=2))
