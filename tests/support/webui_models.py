"""Small models of random weights for what the WebUI itself adds to a checkpoint: it finds them in its data folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

TEXT_WIDTH = 64
"""Of the text encoder of the checkpoints that are called tiny."""
VAE = "first_stage_model."


def make_models(data_dir: Path, checkpoints: Path) -> None:
    """Makes a textual inversion `gizmo`, a hypernetwork `random`, the VAE of another checkpoint and a TAESD."""
    random = torch.Generator().manual_seed(1)
    inversion = _made(data_dir / "embeddings" / "gizmo.safetensors")
    save_file({"emb_params": torch.randn(2, TEXT_WIDTH, generator=random)}, inversion)
    network = [_linear(TEXT_WIDTH, random) for _ in ("keys", "values")]
    _save({"name": "random", TEXT_WIDTH: network}, data_dir / "models" / "hypernetworks" / "random.pt")
    checkpoint = load_file(checkpoints / "tiny-b.safetensors")
    vae = {name.removeprefix(VAE): value for name, value in checkpoint.items() if name.startswith(VAE)}
    save_file(vae, _made(data_dir / "models" / "VAE" / "other.safetensors"))
    for name, weights in (("decoder", _taesd_decoder(random)), ("encoder", _taesd_encoder(random))):
        _save(weights, data_dir / "models" / "VAE-taesd" / f"taesd_{name}.pth")


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _save(weights: dict[Any, Any], path: Path) -> None:
    """The WebUI distrusts what a later torch puts into its archives."""
    torch.save(weights, _made(path), _use_new_zipfile_serialization=False)


def _linear(width: int, random: torch.Generator) -> dict[str, Tensor]:
    weights = {}
    for layer, (inputs, outputs) in enumerate([(width, 2 * width), (2 * width, width)]):
        weights[f"linear.{layer}.weight"] = torch.randn(outputs, inputs, generator=random) * inputs**-0.5
        weights[f"linear.{layer}.bias"] = torch.zeros(outputs)
    return weights


def _taesd_decoder(random: torch.Generator) -> dict[str, Tensor]:
    weights = _convolution("1", 4, 64, random) | _convolution("19", 64, 3, random)
    for up in (7, 12, 17):
        weights |= _convolution(str(up), 64, 64, random, bias=False)
    return weights | _blocks([3, 4, 5, 8, 9, 10, 13, 14, 15, 18], random)


def _taesd_encoder(random: torch.Generator) -> dict[str, Tensor]:
    weights = _convolution("0", 3, 64, random) | _convolution("14", 64, 4, random)
    for down in (2, 6, 10):
        weights |= _convolution(str(down), 64, 64, random, bias=False)
    return weights | _blocks([1, 3, 4, 5, 7, 8, 9, 11, 12, 13], random)


def _blocks(places: list[int], random: torch.Generator) -> dict[str, Tensor]:
    names = [f"{place}.conv.{layer}" for place in places for layer in (0, 2, 4)]
    return {name: value for each in names for name, value in _convolution(each, 64, 64, random).items()}


def _convolution(name: str, inputs: int, outputs: int, random: torch.Generator, bias: bool = True) -> dict[str, Tensor]:
    weight = torch.randn(outputs, inputs, 3, 3, generator=random) * (9 * inputs) ** -0.5
    return {f"{name}.weight": weight, **({f"{name}.bias": torch.zeros(outputs)} if bias else {})}
