"""Conversion of motion modules, and LoRAs for them, between the published layouts. No number changes.

Reference for diffusers' layout: `MotionAdapter` in `models/unets/unet_motion_model.py`, and its `config.json`.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, equal, uint8

from .checkpoint import TRAINING, Description, conv_in, describe
from .image_encoder import PREFIX, keys_of
from .key_layouts import TABLES, Layers, Layout, key_of, layers_of
from .lora import key_of as key_of_lora
from .lora import load_lora
from .network import HEADS, NORM_GROUPS, sinusoidal_positions
from .weight_files import CheckpointError, WeightFile, open_weights

ADDED_TABLES = "position tables added"
"""The entry of a file's header which says that its positional encodings were added: diffusers needs them, AnimateLCM has none.
"""


def convert_file(source: Path, target: Path, to: Layout) -> Path:
    """Writes the motion module or LoRA `source` in another layout, and returns the path of the weights.

    `target` is a `.safetensors` file, or, for diffusers, a folder; a motion module there gets a `config.json` too. Existing
    files are replaced. Raises CheckpointError if the source or the target is something else.
    """
    description = describe(source)
    if description.is_lora:
        return _convert_lora(description, target, to)
    description.require_motion_module()
    weights_path = _weights_path(target, to)
    file = open_weights(description.path)
    _, layers = layers_of(file.entries)
    tensors, header = (_as_original if to == "original" else _as_diffusers)(description, file, layers)
    if encoder := keys_of(file.entries):
        if to == "diffusers":
            raise CheckpointError(
                f"{description.path.name} cannot be converted to diffusers, which has no image encoder. Use the file as it is."
            )
        tensors |= {PREFIX + name: file.read(key) for name, key in encoder.items()}
    elif description.family and description.family.takes_image:
        weight = conv_in(file.entries)
        tensors |= {f"conv_in.{part}": file.read(weight.replace("weight", part)) for part in ("weight", "bias")}
    weights_path.parent.mkdir(parents=True, exist_ok=True)
    if description.training:
        header[TRAINING] = json.dumps(description.training)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, weights_path, header)
    if weights_path != target:  # the target is a folder
        (weights_path.parent / "config.json").write_text(json.dumps(_config(description), indent=2) + "\n", encoding="utf-8")
    return weights_path


def _convert_lora(description: Description, target: Path, to: Layout) -> Path:
    """Converts a LoRA. Its scales are multiplied into the matrices, since the authors' layout has no key for them."""
    lora = load_lora(description.path)
    path = _weights_path(target, to, "pytorch_lora_weights.safetensors")
    tensors: dict[str, Tensor] = {}
    for changed, part in lora.parts.items():
        scaled = part.up if part.scale == 1 else (part.scale * part.up.float()).to(part.up.dtype)
        tensors |= {key_of_lora(changed, "down", to): part.down, key_of_lora(changed, "up", to): scaled}
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {TRAINING: json.dumps(description.training)} if description.training else {}
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, header)
    return path


def _weights_path(target: Path, to: Layout, in_folder: str = "diffusion_pytorch_model.safetensors") -> Path:
    if target.suffix == ".safetensors":
        return target
    if target.suffix or to == "original":
        raise CheckpointError(f"{target.name} cannot be written. Give it a name that ends with .safetensors.")
    return target / in_folder


def _as_original(_description: Description, file: WeightFile, layers: Layers) -> tuple[dict[str, Tensor], dict[str, str]]:
    left_out = TABLES if file.header_json(ADDED_TABLES) else ()
    tensors = {
        key_of(block, name, "original"): file.read(key).clone()  # diffusers' one positional encoding becomes two
        for block, keys in layers.items()
        for name, key in keys.items()
        if name not in left_out
    }
    return tensors, {}


def _as_diffusers(description: Description, file: WeightFile, layers: Layers) -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors: dict[str, Tensor] = {}
    added = False
    for block, keys in layers.items():
        for name, key in keys.items():
            tensor, new_key = file.read(key), key_of(block, name, "diffusers")
            if new_key in tensors and not equal(tensors[new_key].view(uint8), tensor.view(uint8)):
                raise CheckpointError(
                    f"{description.path.name} cannot be converted to diffusers: the two attentions at {block} have different "
                    "positional encodings, and diffusers has only one for both. Use the file as it is."
                )
            tensors[new_key] = tensor
        if TABLES[0] not in keys:
            added = True
            table = sinusoidal_positions(description.length, (description.channels or {})[block])[None]
            tensors[key_of(block, TABLES[0], "diffusers")] = table.to(file.read(keys["norm.weight"]).dtype)
    return tensors, {ADDED_TABLES: json.dumps({"rows": description.length})} if added else {}


def _config(description: Description) -> dict[str, object]:
    channels = description.channels or {}
    takes_image = description.family is not None and description.family.takes_image
    return {
        "_class_name": "MotionAdapter",
        "block_out_channels": [
            count for block, count in channels.items() if block.startswith("down_") and block.endswith("_0")
        ],
        "conv_in_channels": 9 if takes_image else None,
        "motion_layers_per_block": 2,
        "motion_max_seq_length": description.length,
        "motion_mid_block_layers_per_block": 1,
        "motion_norm_num_groups": NORM_GROUPS,
        "motion_num_attention_heads": HEADS,
        "use_motion_mid_block": "mid_0" in channels,
    }
