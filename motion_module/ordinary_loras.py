"""LoRAs for the image model, in kohya's layout: those that the WebUI loads itself.

Their keys begin with `lora_unet_`, and go on with the name of a layer, in which dots are underscores. It is LDM's name, as in
files for SDXL, or diffusers'.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from torch import nn

from .lora import Lora, Target, kinds_of, low_rank_of, target_of
from .weight_files import CheckpointError, open_weights

_PREFIX = "lora_unet_"
_OF_TEXT = ("lora_te", "bundle_emb")
"""What keys for the text encoder begin with, embeddings included: the WebUI reads them."""
_PARTS = {"lora_down.weight": "down", "lora_up.weight": "up", "alpha": "alpha"}
_IN_BLOCK = re.compile(r"(?P<side>input|output)_blocks\.(?P<number>\d+)\.(?P<part>\d)\.(?P<rest>.+)")
_IN_MIDDLE = re.compile(r"middle_block\.(?P<part>[012])\.(?P<rest>.+)")
_OTHERS = {
    "input_blocks.0.0": "conv_in",
    "out.2": "conv_out",
    "time_embed.0": "time_embedding_linear_1",
    "time_embed.2": "time_embedding_linear_2",
}
_IN_RESNET = {
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
"""diffusers' names for LDM's, where they differ in more than the block."""


def load_ordinary(path: Path) -> Lora:
    """Reads what a LoRA changes in the UNet of the image model. Raises CheckpointError for changes of other kinds.

    Of a file that also has motion layers or a domain adapter, `load_lora` names the keys that nobody reads.
    """
    file = open_weights(path)
    is_ours = bool(kinds_of(file.entries))
    keys: dict[str, dict[str, str]] = defaultdict(dict)
    for key in file.entries:
        name, _, part = key.partition(".")
        if target_of(key) or name.startswith(_OF_TEXT):
            continue
        if not name.startswith(_PREFIX):
            if is_ours:
                continue
            raise CheckpointError(
                f"{path.name} cannot differ from frame to frame: its key {key} is not in kohya's layout. Give it one "
                f"strength, such as <lora:{path.stem}:0.8>."
            )
        if part not in _PARTS:
            raise CheckpointError(
                f"{path.name} cannot differ from frame to frame, since it is no plain LoRA: it has the key {key}. Give it one "
                f"strength, such as <lora:{path.stem}:0.8>."
            )
        keys[name.removeprefix(_PREFIX)][_PARTS[part]] = key
    if not keys and not is_ours:
        raise CheckpointError(
            f"{path.name} changes only the text encoder, which has no frames. Give it one strength, such as "
            f"<lora:{path.stem}:0.8>."
        )
    parts = {Target("unet", "", name): low_rank_of(path, file, of_layer, kernels=True) for name, of_layer in keys.items()}
    return Lora(path, parts)


def layers_by_name(unet: Any) -> dict[str, nn.Module]:
    """Returns the layers of an LDM UNet that a LoRA can change, by their names in kohya's files.

    They are those with a matrix or a kernel: some WebUIs have classes of their own for them.
    """
    layers = {name: layer for name, layer in unet.named_modules() if getattr(layer, "weight", None) is not None}
    layers = {name: layer for name, layer in layers.items() if layer.weight.ndim in (2, 4)}
    both: dict[str, nn.Module] = {}
    for name, layer in layers.items():
        both[name.replace(".", "_")] = layer
        if theirs := _in_diffusers(name):
            both[theirs.replace(".", "_")] = layer
    return both


def _in_diffusers(name: str) -> str | None:
    """Returns diffusers' name for a layer of LDM's UNet; None where LoRAs name it as LDM does."""
    if name in _OTHERS:
        return _OTHERS[name]
    if match := _IN_MIDDLE.fullmatch(name):
        part, rest = int(match["part"]), match["rest"]
        return f"mid_block.attentions.0.{rest}" if part == 1 else f"mid_block.resnets.{part // 2}.{_IN_RESNET.get(rest, rest)}"
    if not (match := _IN_BLOCK.fullmatch(name)):
        return None
    side = "down" if match["side"] == "input" else "up"
    level, index = divmod(int(match["number"]) - (side == "down"), 3)
    block, rest = f"{side}_blocks.{level}", match["rest"]
    if rest in ("op", "conv"):
        return f"{block}.{side}samplers.0.conv"
    kind = "resnets" if match["part"] == "0" else "attentions"
    return f"{block}.{kind}.{index}.{_IN_RESNET.get(rest, rest)}"
