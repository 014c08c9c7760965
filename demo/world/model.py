"""The world's image model: a narrow UNet in the layout of Stable Diffusion 1.5, and a small autoencoder.

No layer has fewer than 64 channels: the group norms of this layout have 32 groups, and normalising a group of one channel would
remove its mean, which is all that a flat picture has.
"""

from __future__ import annotations

import filecmp
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from demo.checkpoint_config import config_params, write_config
from demo.clip_text_encoder import text_config, write_text_folder
from motion_module.training.image_model import ImageModel, named_weights
from motion_module.training.latent_cache import replacing

WEIGHTS = Path(__file__).resolve().parent / "weights"
CHECKPOINTS, LORAS, MOTION_MODULE = WEIGHTS / "checkpoints", WEIGHTS / "loras", WEIGHTS / "motion" / "motion.safetensors"
SPARSE_CTRL = WEIGHTS / "motion" / "small_world_sparsectrl_rgb.safetensors"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
"""Where the world's models are trained and used. Random numbers are drawn on the CPU, and so are the same everywhere."""
TEXT_WIDTH, TEXT_HEADS, TEXT_LAYERS = 28, 2, 2
UNET = {"model_channels": 64, "channel_mult": [1, 1, 2, 2], "num_heads": 2, "context_dim": TEXT_WIDTH}
AUTOENCODER = {"ch": 64, "ch_mult": [1, 1, 1, 1], "num_res_blocks": 0}


def text_folder(cache: Path) -> Path:
    """Writes and returns the folder of the text encoder's configuration and tokenizer, which a `.yaml` names."""
    return write_text_folder(cache / "text", text_config(TEXT_WIDTH, TEXT_HEADS, TEXT_LAYERS))


def new_model(cache: Path) -> ImageModel:
    """Returns an untrained model."""
    return ImageModel(config_params(text_folder(cache), UNET, AUTOENCODER)).to(DEVICE)


def write_checkpoint(model: ImageModel, path: Path, header: dict[str, str]) -> None:
    """Writes a checkpoint in half precision. `checkpoint_in` writes its `.yaml`, in the folder where it is used."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.half().contiguous() for key, tensor in named_weights(model)}, path, header)


def made_by(command: str, seed: int) -> dict[str, str]:
    """Returns the header of a committed file."""
    return {"made_by": command, "seed": str(seed), "licence": "Apache-2.0"}


def checkpoint_in(folder: Path, name: str = "base") -> Path:
    """Copies a committed checkpoint, and writes its `.yaml`, which names a folder of this machine. Returns the copy."""
    path = _copied(CHECKPOINTS / f"{name}.safetensors", folder)
    write_config(path, config_params(text_folder(folder), UNET, AUTOENCODER))
    return path


def world_in(folder: Path) -> tuple[Path, Path, Path]:
    """Copies all committed weights. Returns the base checkpoint, the motion module and the folder of LoRAs.

    They are copies, since a WebUI writes to the folders of its models.
    """
    for checkpoint in CHECKPOINTS.glob("*.safetensors"):
        checkpoint_in(folder / "checkpoints", checkpoint.stem)
    for lora in LORAS.glob("*.safetensors"):
        _copied(lora, folder / "loras")
    _copied(SPARSE_CTRL, folder / "motion")
    return folder / "checkpoints" / "base.safetensors", _copied(MOTION_MODULE, folder / "motion"), folder / "loras"


def _copied(file: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file.name
    if not path.exists() or not filecmp.cmp(file, path, shallow=False):
        with replacing(path) as part:
            shutil.copyfile(file, part)
    return path
