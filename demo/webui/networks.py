"""LoRAs in kohya's layout, for the attention of the UNet and for the text encoder; under the name of the WebUI's own loader."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from modules import sd_models, shared
from safetensors import safe_open
from torch import Tensor, nn

from motion_module.attach import blocks_by_place


class NoSuchNetwork(ValueError):
    """The text is for the user."""


class NetworkOnDisk:
    def __init__(self, file: Path) -> None:
        self.name, self.filename = file.stem, str(file)
        self.shorthash = ""

    def read_hash(self) -> None:
        """What kohya's trainer wrote into the header, else that of the file."""
        stated = None
        if self.filename.endswith(".safetensors"):
            with safe_open(self.filename, "pt") as stored:
                stated = (stored.metadata() or {}).get("sshs_model_hash")
        self.shorthash = (stated or hashlib.sha256(Path(self.filename).read_bytes()).hexdigest())[:12]


forbidden_network_aliases: dict[str, int] = {}
available_networks: dict[str, NetworkOnDisk] = {}
available_network_aliases = available_networks


def update_available_networks_by_names(names: list[str]) -> None:
    """Looks for files that are new."""
    files = (file for file in Path(shared.cmd_opts.lora_dir).glob("*") if file.suffix in sd_models.SUFFIXES)
    available_networks.update({file.stem: NetworkOnDisk(file) for file in files if file.stem in names})


@contextmanager
def applied(asked: list[Any]) -> Iterator[None]:
    """While open, the model computes with the LoRAs that a prompt asks for. Its weights stay as they are.

    A refiner of another shape, which is another model, goes without. Raises NoSuchNetwork.
    """
    with ExitStack() as undo:
        for entry in asked:
            name, *numbers = entry.positional
            text = float(numbers[0]) if numbers else 1.0
            strengths = {"lora_te": text, "lora_unet": float(numbers[1]) if len(numbers) > 1 else text}
            for layer, prefix, matrices in _layers_of(_file(name)):
                undo.callback(layer.register_forward_hook(_adding(strengths[prefix], **matrices)).remove)
        yield


def _file(name: str) -> Path:
    update_available_networks_by_names([name])
    if name not in available_networks:
        raise NoSuchNetwork(f"There is no LoRA {name!r} in {shared.cmd_opts.lora_dir}.")
    return Path(available_networks[name].filename)


def _layers_of(file: Path) -> list[tuple[nn.Module, str, dict[str, Tensor]]]:
    """For each layer that a file changes: the layer, the prefix of its key, and its `lora_down`, `lora_up` and `alpha`."""
    by_layer: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in sd_models.read_state_dict(str(file), str(shared.device)).items():
        name, part = key.split(".", 1)
        by_layer[name][part.removesuffix(".weight")] = tensor.float()
    known = _known_layers()
    used = {name: parts for name, parts in by_layer.items() if name in known and {"lora_down", "lora_up"} <= set(parts)}
    if len(used) < len(by_layer):
        print(f"{file.name}: {len(by_layer) - len(used)} of {len(by_layer)} matrices are not of a kind that this host applies.")
    return [(known[name], "lora_te" if name.startswith("lora_te_") else "lora_unet", parts) for name, parts in used.items()]


def _known_layers() -> dict[str, nn.Module]:
    """By the names that kohya gives them, which follow diffusers."""
    model = shared.sd_model
    layers = {f"lora_te_{name}": layer for name, layer in model.cond_stage_model.transformer.named_modules()}
    for place, block in blocks_by_place(model.model.diffusion_model).items():
        side, *numbers = place.split("_")
        level = f"{side}_blocks_{numbers[0]}" if len(numbers) == 2 else f"{side}_block"
        layers |= {f"lora_unet_{level}_attentions_{numbers[-1]}_{name}": layer for name, layer in block.named_modules()}
    return {name.replace(".", "_"): layer for name, layer in layers.items() if isinstance(layer, nn.Linear | nn.Conv2d)}


def _adding(strength: float, lora_down: Tensor, lora_up: Tensor, alpha: Tensor | None = None) -> Callable[..., Tensor]:
    scale = strength * (1.0 if alpha is None else float(alpha) / len(lora_down))
    down, up = lora_down.flatten(1), lora_up.flatten(1)

    def add(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        x = inputs[0]
        along = "...i,ri,or->...o" if isinstance(layer, nn.Linear) else "bihw,ri,or->bohw"
        return output + scale * torch.einsum(along, x, down.to(x), up.to(x))

    return add
