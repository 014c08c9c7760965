"""The keys of motion modules in weight files: in the authors' layout, in that of diffusers, and in that of HotShot-XL.

The authors' keys (guoyww/AnimateDiff) are `{down_blocks.I|mid_block|up_blocks.I}.motion_modules.J.temporal_transformer.…`; the
names after that are used for all layouts here. diffusers (`MotionAdapter`) leaves out `temporal_transformer`, calls attentions
and norms `attn1`, `norm1`, …, and has one positional encoding where the authors have one per attention. HotShot-XL has
`temporal_attentions.J` instead of `motion_modules.J.temporal_transformer`, and another name for positional encodings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

Layout = Literal["original", "diffusers", "hotshot"]

TRANSFORMER_BLOCK = "transformer_blocks.0."
TABLES = tuple(f"{TRANSFORMER_BLOCK}attention_blocks.{index}.pos_encoder.pe" for index in (0, 1))
"""The positional encodings of a layer, one for each attention."""

_BLOCK_OF_UNET = r"(?:(?P<side>down|up)_blocks\.(?P<level>\d+)|(?P<mid>mid)_block)\."
_LAYER = rf"{_BLOCK_OF_UNET}motion_modules\.(?P<index>\d+)\."
_KEYS: dict[Layout, re.Pattern[str]] = {
    "original": re.compile(rf"(?:module\.)?{_LAYER}temporal_transformer\.(?P<rest>.+)"),
    "diffusers": re.compile(rf"(?:module\.)?(?:unet\.)?{_LAYER}(?P<rest>(?!temporal_transformer\.).+)"),
    "hotshot": re.compile(rf"(?:module\.)?(?:unet\.)?{_BLOCK_OF_UNET}temporal_attentions\.(?P<index>\d+)\.(?P<rest>.+)"),
}
_DIFFUSERS_NAMES = (
    ("attention_blocks.0.", "attn1."),
    ("attention_blocks.1.", "attn2."),
    ("norms.0.", "norm1."),
    ("norms.1.", "norm2."),
    ("ff_norm.", "norm3."),
)
_DIFFUSERS_TABLE = TRANSFORMER_BLOCK + "pos_embed.pe"
_TABLE, _HOTSHOT_TABLE = "pos_encoder.pe", "pos_encoder.positional_encoding"

Layers = dict[str, dict[str, str]]
"""By block: for the authors' name of each weight of its layer, the key in the file."""


def layers_of(keys: Iterable[str]) -> tuple[Layout, Layers]:
    """Returns the layout of a file, and its motion layers by block (`"down_0_1"`, `"mid_0"`, `"up_3_2"`), if it has any."""
    keys = list(keys)
    for layout, pattern in _KEYS.items():
        layers: Layers = {}
        for key in keys:
            if match := pattern.fullmatch(key):
                block = block_name(match)
                for name in _authors_names(match["rest"], layout):
                    layers.setdefault(block, {})[name] = key
        if layers:
            return layout, layers
    return "original", {}


def block_name(match: re.Match[str]) -> str:
    """Returns the name of a UNet block from a match with the groups side, level, mid and index."""
    return "_".join(part for part in (match["side"] or match["mid"], match["level"], match["index"]) if part)


def key_of(block: str, name: str, layout: Layout) -> str:
    """Returns the key in a file of the weight that the authors call `name` in the motion layer of a UNet block."""
    side, *numbers = block.split("_")
    path = f"{side}_blocks.{numbers[0]}" if len(numbers) == 2 else f"{side}_block"
    if layout == "hotshot":
        return f"{path}.temporal_attentions.{numbers[-1]}.{name.replace(_TABLE, _HOTSHOT_TABLE)}"
    prefix = f"{path}.motion_modules.{numbers[-1]}."
    if layout == "original":
        return f"{prefix}temporal_transformer.{name}"
    if name in TABLES:
        return prefix + _DIFFUSERS_TABLE
    for authors, theirs in _DIFFUSERS_NAMES:
        name = name.replace(TRANSFORMER_BLOCK + authors, TRANSFORMER_BLOCK + theirs)
    return prefix + name


def _authors_names(rest: str, layout: Layout) -> tuple[str, ...]:
    if layout == "hotshot":
        return (rest.replace(_HOTSHOT_TABLE, _TABLE),)
    if layout == "original":
        # Copies of AnimateLCM that have positional encodings use another name for them.
        return (rest.replace("pos_encoder.pos_encoding", _TABLE),)
    if rest == _DIFFUSERS_TABLE:
        return TABLES
    for authors, theirs in _DIFFUSERS_NAMES:
        rest = rest.replace(TRANSFORMER_BLOCK + theirs, TRANSFORMER_BLOCK + authors)
    return (rest,)


def expected_blocks(levels: int, mid: bool) -> list[str]:
    """Returns the blocks with motion layers of a UNet with this many levels, in order. `mid`: with the middle block."""
    blocks = [f"down_{level}_{index}" for level in range(levels) for index in range(2)]
    blocks += ["mid_0"] if mid else []
    return blocks + [f"up_{level}_{index}" for level in range(levels) for index in range(3)]


def expected_shapes(channels: int, positions: int, attentions: int = 2) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the weights of one layer, by the authors' names.

    `positions`: rows of the positional encodings; 0 if the file has none. `attentions`: how many the layer has.
    """
    wide = 4 * channels
    shapes: dict[str, tuple[int, ...]] = {}
    for name in ("norm", "proj_in", "proj_out", TRANSFORMER_BLOCK + "ff_norm"):
        shapes[name + ".bias"] = (channels,)
        shapes[name + ".weight"] = (channels, channels) if name.startswith("proj") else (channels,)
    for index, table in enumerate(TABLES[:attentions]):
        attention = f"{TRANSFORMER_BLOCK}attention_blocks.{index}."
        shapes.update({f"{attention}{name}.weight": (channels, channels) for name in ("to_q", "to_k", "to_v")})
        shapes[attention + "to_out.0.weight"] = (channels, channels)
        shapes[attention + "to_out.0.bias"] = (channels,)
        shapes[f"{TRANSFORMER_BLOCK}norms.{index}.weight"] = shapes[f"{TRANSFORMER_BLOCK}norms.{index}.bias"] = (channels,)
        if positions:
            shapes[table] = (1, positions, channels)
    shapes[TRANSFORMER_BLOCK + "ff.net.0.proj.weight"] = (2 * wide, channels)
    shapes[TRANSFORMER_BLOCK + "ff.net.0.proj.bias"] = (2 * wide,)
    shapes[TRANSFORMER_BLOCK + "ff.net.2.weight"] = (channels, wide)
    shapes[TRANSFORMER_BLOCK + "ff.net.2.bias"] = (channels,)
    return shapes
