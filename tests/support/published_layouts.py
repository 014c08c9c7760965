"""Random weights in the authors' published layout, and an independent implementation of the authors' maths.

It follows guoyww/AnimateDiff `motion_module.py` step by step, on `(clips, channels, frames, height, width)`, so that it shares
neither memory layout nor code with the implementation under test.
"""

from __future__ import annotations

import io
import math
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

WIDTHS = (32, 64, 128, 128)


@cache
def sinusoids(length: int, channels: int) -> Tensor:
    """Returns `pe[0, position, 2i] = sin(position / 10000^(2i/channels))`, with the cosine at channel 2i + 1."""
    table = torch.zeros(1, length, channels, device="cpu")  # it is kept, also for those who ask on another device
    for position in range(length):
        for i in range(0, channels, 2):
            angle = position * math.exp(-math.log(10_000.0) * i / channels)
            table[0, position, i], table[0, position, i + 1] = math.sin(angle), math.cos(angle)
    return table


def layer_weights(channels: int, length: int) -> dict[str, Tensor]:
    """Returns the weights of one motion layer by published key, none of them zero. `length` 0: no positional encodings."""

    def matrix(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns) / columns**0.5

    def vector(size: int, around: float = 0.0) -> Tensor:
        return around + 0.1 * torch.randn(size)

    middle = "transformer_blocks.0."
    weights = {"norm.weight": vector(channels, 1), "norm.bias": vector(channels)}
    for name in ("proj_in", "proj_out"):
        weights |= {f"{name}.weight": matrix(channels, channels), f"{name}.bias": vector(channels)}
    for block in (0, 1):
        attention = f"{middle}attention_blocks.{block}."
        weights |= {f"{attention}{name}.weight": matrix(channels, channels) for name in ("to_q", "to_k", "to_v", "to_out.0")}
        weights[f"{attention}to_out.0.bias"] = vector(channels)
        if length:
            weights[f"{attention}pos_encoder.pe"] = sinusoids(length, channels).clone()
        weights |= {f"{middle}norms.{block}.weight": vector(channels, 1), f"{middle}norms.{block}.bias": vector(channels)}
    weights |= {f"{middle}ff_norm.weight": vector(channels, 1), f"{middle}ff_norm.bias": vector(channels)}
    weights |= {f"{middle}ff.net.0.proj.weight": matrix(8 * channels, channels)}
    weights |= {f"{middle}ff.net.0.proj.bias": vector(8 * channels)}
    weights |= {f"{middle}ff.net.2.weight": matrix(channels, 4 * channels), f"{middle}ff.net.2.bias": vector(channels)}
    return weights


@dataclass(frozen=True)
class Published:
    """The facts in the authors' configurations of a family.

    `positions`: rows of the positional encoding in its file. `mid`: a layer in the middle block. `over_frames`,
    `motion_over_frames`: norms of ResBlocks and of motion layers over all frames. `takes_image`: nine input channels.
    `encodes_image`: an image encoder.
    """

    positions: int
    mid: bool = False
    over_frames: bool = False
    motion_over_frames: bool = False
    frames: int = 16
    takes_image: bool = False
    encodes_image: bool = False
    name: str = "module"

    @property
    def starts_from_image(self) -> bool:
        return self.takes_image or self.encodes_image


FAMILIES = {
    "v1": Published(24, over_frames=True),
    "temporaldiff": Published(24, over_frames=True, name="temporaldiff-v1-animatediff"),
    "stabilized": Published(24, over_frames=True, name="mm-Stabilized_mid"),
    "v2": Published(32, mid=True),
    "v3": Published(32),
    "long-32": Published(64, mid=True, frames=32),
    "long-64": Published(128, mid=True, frames=64),
    "lcm": Published(0, mid=True),
    "lcm-i2v": Published(0, mid=True, encodes_image=True, name="AnimateLCM_sd15_i2v"),
    "lightning-1": Published(32, mid=True, name="animatediff_lightning_1step_comfyui"),
    "lightning-2": Published(32, mid=True, name="animatediff_lightning_2step_comfyui"),
    "lightning-4": Published(32, mid=True, name="animatediff_lightning_4step_comfyui"),
    "lightning-8": Published(32, mid=True, name="animatediff_lightning_8step_comfyui"),
    "pia": Published(32, over_frames=True, takes_image=True),
}

XL_WIDTHS = WIDTHS[:3]
XL_FAMILIES = {
    "xl-beta": Published(32, motion_over_frames=True, name="mm_sdxl_v10_beta"),
    "hotshot": Published(24, over_frames=True, frames=8, name="hsxl_temporal_layers"),
}


def module_weights(family: str, widths: tuple[int, ...] | None = None) -> dict[str, Tensor]:
    """Returns the weights of a motion module of a family by the authors' keys."""
    facts = {**FAMILIES, **XL_FAMILIES}[family]
    widths = widths or (XL_WIDTHS if family in XL_FAMILIES else WIDTHS)
    blocks = {f"down_blocks.{i}.motion_modules.{j}": widths[i] for i in range(len(widths)) for j in range(2)}
    blocks |= {f"up_blocks.{i}.motion_modules.{j}": widths[-1 - i] for i in range(len(widths)) for j in range(3)}
    if facts.mid:
        blocks["mid_block.motion_modules.0"] = widths[-1]
    weights = {
        f"{block}.temporal_transformer.{key}": value
        for block, width in blocks.items()
        for key, value in layer_weights(width, facts.positions).items()
    }
    if facts.takes_image:
        weights["conv_in.weight"] = torch.randn(widths[0], 9, 3, 3) / 9
        weights["conv_in.bias"] = torch.randn(widths[0])
    if facts.encodes_image:
        weights |= encoder_weights(widths)
    return weights


def encoder_weights(widths: tuple[int, ...]) -> dict[str, Tensor]:
    """Returns the weights of AnimateLCM-I2V's image encoder by the authors' keys: two blocks for each width."""
    shapes = {"conv_in": (widths[0], 4, 3, 3)}
    for index in range(2 * len(widths)):
        width, before = widths[index // 2], widths[max(index - 1, 0) // 2]
        if width != before:
            shapes[f"body.{index}.in_conv"] = (width, before, 1, 1)
        shapes[f"body.{index}.block1"] = (width, width, 3, 3)
        shapes[f"body.{index}.block2"] = (width, width, 1, 1)
    weights = {}
    for name, shape in shapes.items():
        weights[f"img_encoder.{name}.weight"] = torch.randn(shape) / math.sqrt(math.prod(shape[1:]))
        weights[f"img_encoder.{name}.bias"] = torch.randn(shape[0]) / 4
    return weights


def authors_features(weights: dict[str, Tensor], picture: Tensor, frames: int, drift: float = 0.8) -> list[Tensor]:
    """Returns what AnimateLCM-I2V's image encoder makes of a picture for all frames, at each level of the UNet.

    `weights`: those of `encoder_weights`. `picture`: its latents, (1, 4, height, width). The features are
    (1, channels, frames, height, width), as the authors have them.
    """

    def convolved(x: Tensor, name: str, padding: int) -> Tensor:
        rows = x.transpose(1, 2).flatten(0, 1)
        kernel, bias = (weights[f"img_encoder.{name}.{kind}"] for kind in ("weight", "bias"))
        return torch.conv2d(rows, kernel, bias, padding=padding).unflatten(0, (1, frames)).transpose(1, 2)

    def halved(x: Tensor) -> Tensor:
        """Returns the means of squares of two by two pixels; the last row or column counts twice if their number is odd."""
        for axis in (3, 4):
            last = x.shape[axis] - 1
            pairs = [[2 * index, min(2 * index + 1, last)] for index in range((last + 2) // 2)]
            x = torch.stack([x.index_select(axis, torch.tensor(pair)).mean(axis) for pair in pairs], dim=axis)
        return x

    x = convolved(picture[:, :, None].expand(-1, -1, frames, -1, -1), "conv_in", 1)
    x = x + drift * sinusoids(frames, x.shape[1])[0].T[None, :, :, None, None]
    features = []
    for level in range(4):
        x = halved(x) if level else x
        for block in (2 * level, 2 * level + 1):
            if f"img_encoder.body.{block}.in_conv.weight" in weights:
                x = convolved(x, f"body.{block}.in_conv", 0)
            x = x + convolved(convolved(x, f"body.{block}.block1", 1).clamp(min=0), f"body.{block}.block2", 0)
        features.append(x)
    return features


def with_tables(weights: dict[str, Tensor], length: int = 64) -> dict[str, Tensor]:
    """Returns weights with the positional encodings that a file of AnimateLCM does not have."""
    tables = {}
    for key, value in weights.items():
        if key.endswith("to_q.weight"):
            tables[key.replace("to_q.weight", "pos_encoder.pe")] = sinusoids(length, value.shape[1])
    return {**tables, **weights}


def _renamed(weights: dict[str, Tensor], renames: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    renamed = {}
    for key, value in weights.items():
        for authors, theirs in renames:
            key = key.replace(authors, theirs)
        renamed[key] = value
    return renamed


def in_hotshots_layout(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns weights with the keys of HotShot-XL's own file."""
    renames = (
        ("motion_modules", "temporal_attentions"),
        (".temporal_transformer", ""),
        ("pos_encoder.pe", "pos_encoder.positional_encoding"),
    )
    return _renamed(weights, renames)


def save_as_the_beta(weights: dict[str, Tensor], path: Path) -> None:
    """Writes a `.ckpt` like that of AnimateDiff-XL beta: its folder has a comma in the name, and there is an entry
    `byteorder`, which older versions of the WebUI refuse as unsafe.
    """
    saved = io.BytesIO()
    torch.save(weights, saved)
    with zipfile.ZipFile(saved) as before, zipfile.ZipFile(path, "w") as archive:
        for name in (name for name in before.namelist() if not name.endswith("byteorder")):
            archive.writestr(f"mm_sdxl_nightly,ckpt/{name.partition('/')[2]}", before.read(name))
        archive.writestr("mm_sdxl_nightly,ckpt/byteorder", "little")


def in_diffusers_layout(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns weights with the keys of diffusers' `MotionAdapter`, which has one positional encoding per layer."""
    renames = (
        (".temporal_transformer", ""),
        ("attention_blocks.0.pos_encoder", "pos_embed"),
        ("attention_blocks.1.pos_encoder", "pos_embed"),
        ("attention_blocks.0", "attn1"),
        ("attention_blocks.1", "attn2"),
        ("norms.0", "norm1"),
        ("norms.1", "norm2"),
        ("ff_norm", "norm3"),
    )
    return _renamed(weights, renames)


def authors_layer(
    weights: dict[str, Tensor],
    x: Tensor,
    windows: list[tuple[list[int], list[float]]] | None = None,
    *,
    over_frames: bool = False,
    scales: list[float] | None = None,
    changes: dict[str, Tensor] | None = None,
    strengths: list[float] | None = None,
    pose: tuple[Tensor, float] | None = None,
) -> Tensor:
    """Returns the output of one motion layer for `(clips, channels, frames, height, width)`.

    `pose`: CameraCtrl's features for the layer, of the shape of `x`, and their scale; `weights` then has its `qkv_merge`.
    `over_frames`: whether its norm is over all frames, as in the authors' branch for SDXL (`self.norm` before the rearrange).
    `windows`: the frames and weights of each context window that attention is limited to, as in FreeNoise.
    `scales`: what multiplies the scores with which each frame attends to others. `changes`: of matrices by their names, as by a
    LoRA whose strength in each frame is in `strengths`.
    """
    layer = _Layer(weights, changes or {}, scales or [1.0] * x.shape[2], strengths or [0.0] * x.shape[2])
    clips, channels, frames, height, width = x.shape
    if over_frames:
        normed = _group_norm(weights, x.flatten(2)).reshape(x.shape)
    else:
        normed = torch.stack([_group_norm(weights, x[:, :, frame].flatten(2)) for frame in range(frames)], dim=2).reshape(
            x.shape
        )
    tokens = normed.permute(0, 2, 3, 4, 1).reshape(clips * frames, height * width, channels)  # "(b f) d c"
    tokens = layer.linear("proj_in", tokens)
    middle = "transformer_blocks.0."
    if pose is not None:
        layer.pose = pose[0].permute(0, 3, 4, 2, 1).flatten(1, 2), pose[1]  # "b (h w) f c"
    if windows is None:
        tokens = _attended(layer, tokens)
    else:
        by_frame = tokens.reshape(clips, frames, *tokens.shape[1:])
        fused = torch.zeros_like(by_frame)
        for blocks, shares in windows:
            part = by_frame[:, blocks].reshape(-1, *tokens.shape[1:])
            attended = _attended(layer.of(blocks), part).reshape(clips, len(blocks), *tokens.shape[1:])
            for index, (block, share) in enumerate(zip(blocks, shares)):
                fused[:, block] += share * attended[:, index]
        tokens = fused.reshape(tokens.shape)
    value, gate = layer.linear(f"{middle}ff.net.0.proj", _layer_norm(weights, f"{middle}ff_norm", tokens)).chunk(2, -1)
    gelu = 0.5 * gate * (1 + torch.erf(gate / math.sqrt(2)))
    tokens = tokens + layer.linear(f"{middle}ff.net.2", value * gelu)
    tokens = layer.linear("proj_out", tokens)
    return x + tokens.reshape(clips, frames, height, width, channels).permute(0, 4, 1, 2, 3)


@dataclass
class _Layer:
    """The weights of a layer, and what belongs to each of the frames that pass it."""

    weights: dict[str, Tensor]
    changes: dict[str, Tensor]
    scales: list[float]
    strengths: list[float]
    pose: tuple[Tensor, float] | None = None
    """CameraCtrl's features, `(clips, pixels, frames, channels)`, and their scale: only the first attention has them."""

    def of(self, frames: list[int]) -> _Layer:
        """Returns the layer for some of the frames."""
        chosen = ([numbers[frame] for frame in frames] for numbers in (self.scales, self.strengths))
        pose = None if self.pose is None else (self.pose[0][:, :, frames], self.pose[1])
        return _Layer(self.weights, self.changes, *chosen, pose)

    def linear(self, name: str, x: Tensor) -> Tensor:
        """Returns the linear layer of `(b f) d c`."""
        by_frame = x.unflatten(0, (-1, len(self.strengths))).transpose(1, 2)
        return self.matrix(name, by_frame).transpose(1, 2).flatten(0, 1) + self.weights[f"{name}.bias"]

    def matrix(self, name: str, x: Tensor) -> Tensor:
        """Returns the product of `(…, f, c)` with a matrix, which differs from frame to frame."""
        product = x @ self.weights[f"{name}.weight"].T
        if name in self.changes:
            product = product + torch.tensor(self.strengths)[:, None] * (x @ self.changes[name].T)
        return product


def _attended(layer: _Layer, tokens: Tensor) -> Tensor:
    """Returns the output of both attentions, or of one where SparseCtrl has one, `(b f) d c` in and out."""
    for block in (0, 1):
        if f"transformer_blocks.0.attention_blocks.{block}.to_q.weight" not in layer.weights:
            continue
        normed = _layer_norm(layer.weights, f"transformer_blocks.0.norms.{block}", tokens)
        tokens = tokens + _temporal_attention(layer, block, normed)
    return tokens


def _group_norm(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """Returns the group norm of `(clips, channels, pixels)` with 32 groups and epsilon 1e-6."""
    grouped = x.reshape(x.shape[0], 32, -1)
    normed = (grouped - grouped.mean(-1, keepdim=True)) / torch.sqrt(grouped.var(-1, unbiased=False, keepdim=True) + 1e-6)
    return normed.reshape(x.shape) * weights["norm.weight"][:, None] + weights["norm.bias"][:, None]


def _temporal_attention(layer: _Layer, block: int, tokens: Tensor) -> Tensor:
    """Returns the temporal attention with eight heads: `(b f) d c` to `(b d) f c` with positional encoding, and back."""
    clip_frames, pixels, channels = tokens.shape
    frames, heads = len(layer.scales), 8
    clips = clip_frames // frames
    key = f"transformer_blocks.0.attention_blocks.{block}."
    sequence = tokens.reshape(clips, frames, pixels, channels).transpose(1, 2).reshape(clips * pixels, frames, channels)
    sequence = sequence + layer.weights[key + "pos_encoder.pe"][:, :frames]
    if layer.pose is not None and block == 0:
        features, scale = layer.pose[0].reshape(sequence.shape), layer.pose[1]
        merge = f"{key}processor.qkv_merge"
        sequence = sequence + scale * (
            (sequence + features) @ layer.weights[f"{merge}.weight"].T + layer.weights[f"{merge}.bias"]
        )
    query, keys, values = (
        layer.matrix(f"{key}{name}", sequence).reshape(-1, frames, heads, channels // heads).transpose(1, 2)
        for name in ("to_q", "to_k", "to_v")
    )
    scores = query @ keys.transpose(-1, -2) / math.sqrt(channels // heads) * torch.tensor(layer.scales)[:, None]
    mixed = (scores.softmax(-1) @ values).transpose(1, 2).reshape(-1, frames, channels)
    out = layer.matrix(key + "to_out.0", mixed) + layer.weights[key + "to_out.0.bias"]
    return out.reshape(clips, pixels, frames, channels).transpose(1, 2).reshape(clip_frames, pixels, channels)


def _layer_norm(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    normed = (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, unbiased=False, keepdim=True) + 1e-5)
    return normed * weights[f"{name}.weight"] + weights[f"{name}.bias"]
