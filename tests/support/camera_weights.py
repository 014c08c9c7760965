"""Random weights in CameraCtrl's published layout, and an independent implementation of its authors' maths.

It follows hehao13/CameraCtrl `pose_adaptor.py`, `motion_module.py` and `inference.py` step by step, on
`(clips, channels, frames, height, width)`, so that it shares neither memory layout nor code with what it is held against.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from support.published_layouts import WIDTHS, sinusoids

POSITIONS = 16
SIXTEEN = 16
"""Poses in each of the authors' example files."""


def camera_weights(widths: tuple[int, ...] = WIDTHS) -> dict[str, Tensor]:
    """Returns the weights of the pose encoder and of the merging layers, by the authors' keys, none of them zero."""
    return {**encoder_weights(widths), **merge_weights(widths)}


def encoder_weights(widths: tuple[int, ...] = WIDTHS) -> dict[str, Tensor]:
    """Returns `pose_encoder_state_dict`."""
    weights: dict[str, Tensor] = {}

    def add(name: str, *shape: int, around: float = 0.0) -> None:
        if len(shape) > 1:
            weights[name + ".weight"] = torch.randn(*shape) / math.prod(shape[1:]) ** 0.5
        else:
            weights[name + ".weight"] = around + 0.1 * torch.randn(*shape)

    def add_bias(name: str, size: int) -> None:
        weights[name + ".bias"] = 0.1 * torch.randn(size)

    add("encoder_conv_in", widths[0], 384, 3, 3)
    add_bias("encoder_conv_in", widths[0])
    for i, width in enumerate(widths):
        before = widths[max(i - 1, 0)]
        for j in range(2):
            block = f"encoder_down_conv_blocks.{i}.{j}."
            if j == 0 and before != width:
                add(block + "in_conv", width, before, 1, 1)
                add_bias(block + "in_conv", width)
            add(block + "block1", width, width, 3, 3)
            add_bias(block + "block1", width)
            add(block + "block2", width, width, 1, 1)
            add_bias(block + "block2", width)
            block = f"encoder_down_attention_blocks.{i}.{j}."
            for name in ("to_q", "to_k", "to_v", "to_out.0"):
                add(f"{block}attention_blocks.0.{name}", width, width)
            add_bias(f"{block}attention_blocks.0.to_out.0", width)
            weights[f"{block}attention_blocks.0.pos_encoder.pe"] = sinusoids(POSITIONS, width).clone()
            for norm in ("norms.0", "ff_norm"):
                add(block + norm, width, around=1.0)
                add_bias(block + norm, width)
            add(f"{block}ff.net.0.proj", 8 * width, width)
            add_bias(f"{block}ff.net.0.proj", 8 * width)
            add(f"{block}ff.net.2", width, 4 * width)
            add_bias(f"{block}ff.net.2", width)
    return weights


def merge_weights(widths: tuple[int, ...] = WIDTHS) -> dict[str, Tensor]:
    """Returns `attention_processor_state_dict`."""
    places = {f"down_blocks.{i}.motion_modules.{j}": widths[i] for i in range(4) for j in range(2)}
    places |= {f"up_blocks.{i}.motion_modules.{j}": widths[-1 - i] for i in range(4) for j in range(3)}
    end = "temporal_transformer.transformer_blocks.0.attention_blocks.0.processor.qkv_merge"
    weights = {}
    for place, width in places.items():
        weights[f"{place}.{end}.weight"] = torch.randn(width, width) / width**0.5
        weights[f"{place}.{end}.bias"] = 0.1 * torch.randn(width)
    return weights


def nested(weights: dict[str, Tensor]) -> dict[str, object]:
    """Returns weights as the authors' training code saves them."""
    merging = {key: value for key, value in weights.items() if "qkv_merge" in key}
    encoding = {key: value for key, value in weights.items() if key not in merging}
    return {"epoch": 3, "global_step": 9, "pose_encoder_state_dict": encoding, "attention_processor_state_dict": merging}


def authors_rays(text: str, height: int, width: int, pose_width: float = 1280, pose_height: float = 720) -> Tensor:
    """Returns the Plücker embedding `(1, 6, frames, height, width)` of a pose file, as `inference.py` computes it."""
    entries = [[float(word) for word in line.split(" ")] for line in text.strip().splitlines()[1:]]
    to_camera = []
    for entry in entries:
        matrix = np.eye(4)
        matrix[:3] = np.array(entry[7:]).reshape(3, 4)
        to_camera.append(matrix)
    embedding = np.zeros((1, 6, len(entries), height, width))
    for frame, entry in enumerate(entries):
        fx, fy, cx, cy = entry[1:5]
        if pose_width / pose_height > width / height:
            fx = height * (pose_width / pose_height) * fx / width
        else:
            fy = width / (pose_width / pose_height) * fy / height
        relative = np.eye(4) if frame == 0 else to_camera[0] @ np.linalg.inv(to_camera[frame])
        for row in range(height):
            for column in range(width):
                ray = np.array([(column + 0.5 - cx * width) / (fx * width), (row + 0.5 - cy * height) / (fy * height), 1.0])
                ray = relative[:3, :3] @ (ray / np.sqrt((ray * ray).sum()))
                embedding[0, :3, frame, row, column] = np.cross(relative[:3, 3], ray)
                embedding[0, 3:, frame, row, column] = ray
    return torch.from_numpy(embedding).float()


def authors_features(weights: dict[str, Tensor], rays: Tensor) -> list[Tensor]:
    """Returns the features of the pose encoder at each level, `(clips, channels, frames, height, width)`."""
    clips, _, frames, height, width = rays.shape
    # PixelUnshuffle(8): channel c, row dy and column dx of a square become channel 64 c + 8 dy + dx
    squares = rays.reshape(clips, 6, frames, height // 8, 8, width // 8, 8)
    x = squares.permute(0, 1, 4, 6, 2, 3, 5).reshape(clips, 384, frames, height // 8, width // 8)
    x = _conv(weights, "encoder_conv_in", x)
    features = []
    for i in range(4):
        for j in range(2):
            block = f"encoder_down_conv_blocks.{i}.{j}."
            if i > 0 and j == 0:
                x = 0.25 * sum(x[..., dy::2, dx::2] for dy in (0, 1) for dx in (0, 1))
            if block + "in_conv.weight" in weights:
                x = _conv(weights, block + "in_conv", x)
            x = x + _conv(weights, block + "block2", torch.relu(_conv(weights, block + "block1", x)))
            x = _temporal_block(weights, f"encoder_down_attention_blocks.{i}.{j}.", x)
        features.append(x)
    return features


def _conv(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    kernel = weights[name + ".weight"]
    by_frame = [F.conv2d(x[:, :, k], kernel, weights[name + ".bias"], padding=kernel.shape[-1] // 2) for k in range(x.shape[2])]
    return torch.stack(by_frame, dim=2)


def _temporal_block(weights: dict[str, Tensor], prefix: str, x: Tensor) -> Tensor:
    """Returns the output of a `TemporalTransformerBlock` with one attention."""
    clips, channels, frames, height, width = x.shape
    tokens = x.permute(0, 3, 4, 2, 1).reshape(-1, frames, channels)  # "(b h w) f c"
    normed = _norm(weights, prefix + "norms.0", tokens) + weights[prefix + "attention_blocks.0.pos_encoder.pe"][:, :frames]
    query, key, value = (
        (normed @ weights[f"{prefix}attention_blocks.0.{name}.weight"].T).reshape(-1, frames, 8, channels // 8).transpose(1, 2)
        for name in ("to_q", "to_k", "to_v")
    )
    mixed = (query @ key.transpose(-1, -2) / math.sqrt(channels // 8)).softmax(-1) @ value
    tokens = tokens + _linear(weights, prefix + "attention_blocks.0.to_out.0", mixed.transpose(1, 2).flatten(2))
    inner, gate = _linear(weights, prefix + "ff.net.0.proj", _norm(weights, prefix + "ff_norm", tokens)).chunk(2, -1)
    gelu = 0.5 * gate * (1 + torch.erf(gate / math.sqrt(2)))
    tokens = tokens + _linear(weights, prefix + "ff.net.2", inner * gelu)
    return tokens.reshape(clips, height, width, frames, channels).permute(0, 4, 3, 1, 2)


def _norm(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    normed = (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, unbiased=False, keepdim=True) + 1e-5)
    return normed * weights[name + ".weight"] + weights[name + ".bias"]


def _linear(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ weights[name + ".weight"].T + weights[name + ".bias"]


def pose_file(frames: int = SIXTEEN, seed: int = 0, size: tuple[float, float] = (0.0, 0.0)) -> str:
    """Returns a pose file of a camera that turns and moves at random, somewhere in the world."""
    random = np.random.default_rng(seed)
    lines = ["https://www.example.com/watch?v=0"]
    for frame in range(frames):
        angles = random.normal(size=3) * 0.3
        turned = _turned(angles)
        shift = random.normal(size=3)
        row = [1000 * frame, 0.45 + 0.01 * frame, 0.8, 0.5, 0.48, *size]
        row += [number for three, one in zip(turned, shift) for number in (*three, one)]
        lines.append(" ".join(f"{number:.9f}" for number in row))
    return "\n".join(lines) + "\n"


def _turned(angles: np.ndarray) -> np.ndarray:
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        one, other = [number for number in range(3) if number != axis]
        turn = np.eye(3)
        turn[one, one] = turn[other, other] = math.cos(angle)
        turn[one, other], turn[other, one] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ turn
    return matrix
