"""Comparable digests of UNet weights in memory and in a checkpoint file."""

from __future__ import annotations

import torch
from safetensors.torch import load_file

from webui_probe import webuis
from webui_probe.identity import digest

PREFIX = "model.diffusion_model."


def unet_digests() -> dict[str, str]:
    """Returns name and SHA-256 of every tensor of the loaded UNet."""
    return {name: digest(tensor) for name, tensor in webuis.unet().state_dict().items()}


def checkpoint_digests(file: str) -> dict[str, str]:
    """Returns the same for a checkpoint file, with each tensor cast to the dtype of the loaded UNet."""
    dtypes = {name: tensor.dtype for name, tensor in webuis.unet().state_dict().items()}
    if file.endswith(".safetensors"):
        weights = load_file(file)
    else:
        weights = torch.load(file, weights_only=True)
        weights = weights.get("state_dict", weights)
    names = (name.removeprefix(PREFIX) for name in weights if name.startswith(PREFIX))
    return {name: digest(weights[PREFIX + name].to(dtypes[name])) for name in names}
