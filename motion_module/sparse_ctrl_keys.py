"""The keys of SparseCtrl networks (arXiv 2311.16933) in weight files: of the authors and diffusers, and of sd-webui-controlnet.

A SparseCtrl network is a copy of the UNet's encoder with motion layers in it. The authors (guoyww/AnimateDiff) and diffusers
(`SparseControlNetModel`) name the encoder alike, and these are the names here. Files made for sd-webui-controlnet have LDM's
names. Motion layers are named as in motion modules (`key_layouts.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

Kind = Literal["RGB", "scribble"]
"""What a network is made for: pictures, which it takes as latents, or white lines on black, which it takes as they are."""

EMBEDDING = "controlnet_cond_embedding."
_LDM_EMBEDDING = "input_hint_block.0."
_PREFIX = re.compile(r"^(?:module\.)?(?:controlnet\.|control_model\.)?")
OF_MOTION = "motion_modules."
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_FIXED = {
    "time_embed.0.": "time_embedding.linear_1.",
    "time_embed.2.": "time_embedding.linear_2.",
    "input_blocks.0.0.": "conv_in.",
    _LDM_EMBEDDING: EMBEDDING,
    "middle_block_out.0.": "controlnet_mid_block.",
    "middle_block.0.": "mid_block.resnets.0.",
    "middle_block.1.": "mid_block.attentions.0.",
    "middle_block.2.": "mid_block.resnets.1.",
}
_INPUT_BLOCK = re.compile(r"input_blocks\.(\d+)\.([01])\.(.+)")
_SKIP = re.compile(r"zero_convs\.(\d+)\.0\.")


def kind_of(keys: Iterable[str]) -> Kind | None:
    """Returns what a SparseCtrl network with these keys is made for; None if they are those of something else."""
    names = {_own_name(key) for key in keys}
    if not any(OF_MOTION in name for name in names):
        return None
    if EMBEDDING + "weight" in names:
        return "RGB"
    return "scribble" if EMBEDDING + "conv_in.weight" in names else None


def own_names(keys: Iterable[str]) -> dict[str, str]:
    """Returns the keys of a file, without those of motion layers, by the names of the authors and diffusers."""
    names = {_own_name(key): key for key in keys}
    return {name: key for name, key in names.items() if OF_MOTION not in name}


def _own_name(key: str) -> str:
    name = _PREFIX.sub("", key)
    if OF_MOTION in name:
        return name
    for theirs, ours in _FIXED.items():
        if name.startswith(theirs):
            return _of_resnet(ours + name[len(theirs) :])
    if match := _SKIP.match(name):
        return f"controlnet_down_blocks.{match[1]}.{name[match.end() :]}"
    if match := _INPUT_BLOCK.fullmatch(name):
        level, index = divmod(int(match[1]) - 1, 3)
        if index == 2:
            return f"down_blocks.{level}.downsamplers.0.conv.{match[3].removeprefix('op.')}"
        part = "attentions" if match[2] == "1" else "resnets"
        return _of_resnet(f"down_blocks.{level}.{part}.{index}.{match[3]}")
    return name


def _of_resnet(name: str) -> str:
    for theirs, ours in _RESNET.items():
        name = name.replace(f".{theirs}.", f".{ours}.")
    return name
