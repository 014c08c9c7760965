"""How weight files name what is in a motion module: in the authors' grammar, in that of diffusers, and in HotShot-XL's.

The authors' (guoyww/AnimateDiff) is `{down_blocks.I|mid_block|up_blocks.I}.motion_modules.J.temporal_transformer.…`; names
below that point are used for all layouts here. diffusers (`MotionAdapter`) leaves out `temporal_transformer`, calls the
attentions and norms `attn1`, `norm1`, …, and keeps one position table where the authors keep one for each attention. HotShot-XL
has `temporal_attentions.J` in place of `motion_modules.J.temporal_transformer`, and calls its tables otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

Layout = Literal["original", "diffusers", "hotshot"]

BLOCK = "transformer_blocks.0."
TABLES = tuple(f"{BLOCK}attention_blocks.{index}.pos_encoder.pe" for index in (0, 1))
"""The position tables of a layer, one for each attention."""

_BLOCK_OF_UNET = r"(?:(?P<side>down|up)_blocks\.(?P<level>\d+)|(?P<mid>mid)_block)\."
_PLACE = rf"{_BLOCK_OF_UNET}motion_modules\.(?P<index>\d+)\."
_KEYS: dict[Layout, re.Pattern[str]] = {
    "original": re.compile(rf"(?:module\.)?{_PLACE}temporal_transformer\.(?P<rest>.+)"),
    "diffusers": re.compile(rf"(?:module\.)?(?:unet\.)?{_PLACE}(?P<rest>(?!temporal_transformer\.).+)"),
    "hotshot": re.compile(rf"(?:module\.)?(?:unet\.)?{_BLOCK_OF_UNET}temporal_attentions\.(?P<index>\d+)\.(?P<rest>.+)"),
}
_DIFFUSERS_NAMES = (
    ("attention_blocks.0.", "attn1."),
    ("attention_blocks.1.", "attn2."),
    ("norms.0.", "norm1."),
    ("norms.1.", "norm2."),
    ("ff_norm.", "norm3."),
)
_DIFFUSERS_TABLE = BLOCK + "pos_embed.pe"
_TABLE, _HOTSHOT_TABLE = "pos_encoder.pe", "pos_encoder.positional_encoding"

Layers = dict[str, dict[str, str]]
"""place -> {the authors' name below the layer: key in the file}."""


def layers_of(keys: Iterable[str]) -> tuple[Layout, Layers]:
    """The layout of a file, and its motion layers by place (`"down_0_1"`, `"mid_0"`, `"up_3_2"`); none if it has none."""
    keys = list(keys)
    for layout, pattern in _KEYS.items():
        layers: Layers = {}
        for key in keys:
            if match := pattern.fullmatch(key):
                place = place_of(match)
                for name in _authors_names(match["rest"], layout):
                    layers.setdefault(place, {})[name] = key
        if layers:
            return layout, layers
    return "original", {}


def place_of(match: re.Match[str]) -> str:
    """From a match with the groups side, level, mid and index."""
    return "_".join(part for part in (match["side"] or match["mid"], match["level"], match["index"]) if part)


def key_of(place: str, name: str, layout: Layout) -> str:
    """The key in a file of the weight that the authors call `name` below the layer at `place`."""
    side, *numbers = place.split("_")
    block = f"{side}_blocks.{numbers[0]}" if len(numbers) == 2 else f"{side}_block"
    if layout == "hotshot":
        return f"{block}.temporal_attentions.{numbers[-1]}.{name.replace(_TABLE, _HOTSHOT_TABLE)}"
    prefix = f"{block}.motion_modules.{numbers[-1]}."
    if layout == "original":
        return f"{prefix}temporal_transformer.{name}"
    if name in TABLES:
        return prefix + _DIFFUSERS_TABLE
    for authors, theirs in _DIFFUSERS_NAMES:
        name = name.replace(BLOCK + authors, BLOCK + theirs)
    return prefix + name


def _authors_names(rest: str, layout: Layout) -> tuple[str, ...]:
    if layout == "hotshot":
        return (rest.replace(_HOTSHOT_TABLE, _TABLE),)
    if layout == "original":
        # Copies of AnimateLCM that keep their tables name them otherwise.
        return (rest.replace("pos_encoder.pos_encoding", _TABLE),)
    if rest == _DIFFUSERS_TABLE:
        return TABLES
    for authors, theirs in _DIFFUSERS_NAMES:
        rest = rest.replace(BLOCK + theirs, BLOCK + authors)
    return (rest,)


def expected_places(levels: int, mid: bool) -> list[str]:
    """Where the motion layers of a UNet with this many levels are, in the order of its blocks."""
    places = [f"down_{level}_{index}" for level in range(levels) for index in range(2)]
    places += ["mid_0"] if mid else []
    return places + [f"up_{level}_{index}" for level in range(levels) for index in range(3)]


def expected_shapes(channels: int, positions: int) -> dict[str, tuple[int, ...]]:
    """The weights of one layer by the authors' names, with the shapes they must have.

    `positions`: rows of the position tables; 0 where the file has none.
    """
    wide = 4 * channels
    shapes: dict[str, tuple[int, ...]] = {}
    for name in ("norm", "proj_in", "proj_out", BLOCK + "ff_norm"):
        shapes[name + ".bias"] = (channels,)
        shapes[name + ".weight"] = (channels, channels) if name.startswith("proj") else (channels,)
    for index, table in enumerate(TABLES):
        attention = f"{BLOCK}attention_blocks.{index}."
        shapes.update({f"{attention}{name}.weight": (channels, channels) for name in ("to_q", "to_k", "to_v")})
        shapes[attention + "to_out.0.weight"] = (channels, channels)
        shapes[attention + "to_out.0.bias"] = (channels,)
        shapes[f"{BLOCK}norms.{index}.weight"] = shapes[f"{BLOCK}norms.{index}.bias"] = (channels,)
        if positions:
            shapes[table] = (1, positions, channels)
    shapes[BLOCK + "ff.net.0.proj.weight"] = (2 * wide, channels)
    shapes[BLOCK + "ff.net.0.proj.bias"] = (2 * wide,)
    shapes[BLOCK + "ff.net.2.weight"] = (channels, wide)
    shapes[BLOCK + "ff.net.2.bias"] = (channels,)
    return shapes
