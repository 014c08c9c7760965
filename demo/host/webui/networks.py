"""A stand-in for `networks` of the WebUI's built-in extension Lora, from which we look LoRAs up.

It applies LoRAs in kohya's layout to the attention of the UNet and to the text encoder.
"""

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

from motion_module.attach import blocks_by_name
from motion_module.lora import kohya_name


class UnusableNetwork(ValueError):
    """A LoRA is missing, or cannot be used. The text is for the user."""


class NetworkOnDisk:
    def __init__(self, file: Path) -> None:
        self.name, self.filename = file.stem, str(file)
        self.shorthash = ""

    def read_hash(self) -> None:
        """Reads the hash that kohya's trainer wrote into the header, otherwise computes the file's."""
        in_header = None
        if self.filename.endswith(".safetensors"):
            with safe_open(self.filename, "pt") as stored:
                in_header = (stored.metadata() or {}).get("sshs_model_hash")
        self.shorthash = (in_header or hashlib.sha256(Path(self.filename).read_bytes()).hexdigest())[:12]


forbidden_network_aliases: dict[str, int] = {}
available_networks: dict[str, NetworkOnDisk] = {}
available_network_aliases = available_networks


def update_available_networks_by_names(names: list[str]) -> None:
    """Adds files of these names that are new in the folder."""
    files = (file for file in Path(shared.cmd_opts.lora_dir).glob("*") if file.suffix in sd_models.SUFFIXES)
    available_networks.update({file.stem: NetworkOnDisk(file) for file in files if file.stem in names})


@contextmanager
def applied(tags: list[Any]) -> Iterator[None]:
    """Applies the LoRAs of a prompt's `<lora:…>` tags to the loaded model while open. Its weights do not change.

    A hires pass or a refiner whose checkpoint has another `.yaml` runs another model, without the LoRAs.
    Raises UnusableNetwork.
    """
    with ExitStack() as undo:
        for entry in tags:
            strengths = _strengths(entry)
            for layer, prefix, matrices in _layers_of(_file(entry)):
                undo.callback(layer.register_forward_hook(_adding(strengths[prefix], **matrices)).remove)
        yield


def _strengths(entry: Any) -> dict[str, float]:
    """Reads strengths as the WebUI does: `<lora:name:text encoder:unet>`, also as `te=` and `unet=`; one number is for both."""
    try:
        numbers = [float(number) for number in entry.positional[1:3]]
        text = float(entry.named.get("te", numbers[0] if numbers else 1.0))
        return {"lora_te": text, "lora_unet": float(entry.named.get("unet", numbers[1] if len(numbers) > 1 else text))}
    except ValueError:
        raise UnusableNetwork(f"The strength in <lora:{':'.join(entry.items)}> must be a number.") from None


def _file(entry: Any) -> Path:
    name = entry.positional[0] if entry.positional else ""
    update_available_networks_by_names([name])
    if name not in available_networks:
        raise UnusableNetwork(f"There is no LoRA {name!r} in {shared.cmd_opts.lora_dir}.")
    return Path(available_networks[name].filename)


def _layers_of(file: Path) -> list[tuple[nn.Module, str, dict[str, Tensor]]]:
    """Returns, for each layer that a file changes: the layer, its key's prefix, and its `lora_down`, `lora_up` and `alpha`."""
    by_layer: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in sd_models.read_state_dict(str(file), str(shared.device)).items():
        name, _, part = key.partition(".")
        by_layer[name][part.removesuffix(".weight")] = tensor.float()
    known, usable = _known_layers(), []
    for name, parts in by_layer.items():
        if name in known and set(parts) - {"alpha"} == {"lora_down", "lora_up"}:
            _require_fit(file, name, known[name], parts)
            usable.append((known[name], "lora_te" if name.startswith("lora_te_") else "lora_unet", parts))
    if len(usable) < len(by_layer):
        print(
            f"{file.name}: {len(by_layer) - len(usable)} of {len(by_layer)} matrices are of a kind that this host cannot apply."
        )
    return usable


def _require_fit(file: Path, name: str, layer: nn.Module, parts: dict[str, Tensor]) -> None:
    weight = layer.weight
    if (len(parts["lora_up"]), parts["lora_down"].flatten(1).shape[1]) != (weight.shape[0], weight.flatten(1).shape[1]):
        raise UnusableNetwork(f"{file.name} is made for another model: {name} does not fit this checkpoint.")


def _known_layers() -> dict[str, nn.Module]:
    """Returns the layers that a LoRA can change, by kohya's names for them."""
    model = shared.sd_model
    text, places = model.cond_stage_model.transformer, blocks_by_name(model.model.diffusion_model)
    layers = {f"lora_te_{name}".replace(".", "_"): layer for name, layer in text.named_modules()}
    for place, block in places.items():
        layers |= {kohya_name(place, name): layer for name, layer in block.named_modules()}
    return {name: layer for name, layer in layers.items() if isinstance(layer, nn.Linear | nn.Conv2d)}


def _adding(strength: float, lora_down: Tensor, lora_up: Tensor, alpha: Tensor | None = None) -> Callable[..., Tensor]:
    scale = strength * (1.0 if alpha is None else float(alpha) / len(lora_down))
    down, up = lora_down.flatten(1), lora_up.flatten(1)

    def add(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        along = "...i,ri,or->...o" if isinstance(layer, nn.Linear) else "bihw,ri,or->bohw"
        return output + scale * torch.einsum(along, inputs[0], down.to(output), up.to(output))

    return add
