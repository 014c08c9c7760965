"""CameraCtrl: a camera that moves as it is told (arXiv 2404.02101, section 3).

Reference: hehao13/CameraCtrl, `cameractrl/models/pose_adaptor.py` with the values of
`configs/train_cameractrl/adv3_256_384_cameractrl_relora.yaml`. A pose encoder computes features of the camera's rays
(`camera_poses.py`) at each level of the UNet, once for a clip. Motion layers merge them into their first attention
(`camera_layer.py`). A file has the weights of both, and none of a motion module: they were trained beside AnimateDiff v3's.

The authors' file nests its weights in two dictionaries, that of ComfyUI-AnimateDiff-Evolved has the same keys in one.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .camera_layer import LayerCamera
from .camera_poses import Trajectory
from .context_windows import ContextWindows
from .families import SIDE_OF_LATENT
from .key_layouts import expected_blocks, key_of
from .network import HEADS, FeedForward, TemporalAttention, pixels_per_pass
from .row_layout import RowLayout
from .weight_files import CheckpointError, Entry, open_weights, weights_of

LEVELS, BLOCKS = 4, 2
"""The levels of the UNet, and the blocks of the encoder at each."""
RAYS = 6 * SIDE_OF_LATENT**2
"""The channels of the encoder's input: the rays of the pixels of one element of the latents."""
_MERGE = "transformer_blocks.0.attention_blocks.0.processor.qkv_merge."


class PoseBlock(nn.Module):
    """One block of the pose encoder, `(frames, channels, height, width)` in and out: convolutions, then temporal attention."""

    def __init__(self, inputs: int, channels: int, length: int) -> None:
        super().__init__()
        self.widen = nn.Conv2d(inputs, channels, 1) if inputs != channels else nn.Identity()
        self.convolve = nn.Conv2d(channels, channels, 3, padding=1)
        self.narrow = nn.Conv2d(channels, channels, 1)
        self.attention = TemporalAttention(channels, length)
        self.attention_norm = nn.LayerNorm(channels)
        self.feed_forward = FeedForward(channels)
        self.feed_forward_norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.widen(x)
        x = x + self.narrow(F.relu(self.convolve(x)))
        frames, channels, *size = x.shape
        pixels = x.flatten(2).permute(2, 0, 1)
        at_once = pixels_per_pass(x.device, channels, frames)
        mixed = torch.cat([self._mix_frames(some) for some in pixels.split(at_once)])
        return mixed.permute(1, 2, 0).reshape(frames, channels, *size)

    def _mix_frames(self, hidden: Tensor) -> Tensor:
        hidden = hidden + self.attention(self.attention_norm(hidden))
        return hidden + self.feed_forward(self.feed_forward_norm(hidden))


class PoseEncoder(nn.Module):
    """Computes the features of a camera: `widths` channels at each level of the UNet. `length`: the most frames at once."""

    def __init__(self, widths: tuple[int, ...], length: int) -> None:
        super().__init__()
        self.length = length
        self.conv_in = nn.Conv2d(RAYS, widths[0], 3, padding=1)
        self.levels = nn.ModuleList(
            nn.Sequential(PoseBlock(before, width, length), *(PoseBlock(width, width, length) for _ in range(BLOCKS - 1)))
            for before, width in zip((widths[0], *widths), widths)
        )

    def forward(self, rays: Tensor) -> list[Tensor]:
        """Returns the features at each level, `(frames, channels, height, width)`. `rays`: `(frames, 6, height, width)`."""
        x = self.conv_in(F.pixel_unshuffle(rays, SIDE_OF_LATENT))
        features: list[Tensor] = []
        for level in self.levels:
            x = level(F.avg_pool2d(x, 2) if features else x)
            features.append(x)
        return features


class CameraModule(nn.Module):
    """All weights of one file. `merges`: the layer that merges features, by the UNet block that its motion layer follows."""

    def __init__(self, widths: tuple[int, ...], length: int) -> None:
        super().__init__()
        self.encoder = PoseEncoder(widths, length)
        blocks = {block: widths[level_of(block)] for block in expected_blocks(LEVELS, mid=False)}
        self.merges = nn.ModuleDict({block: nn.Linear(width, width) for block, width in blocks.items()})

    def encode(self, trajectory: Trajectory, height: int, width: int, device: torch.device) -> list[Tensor]:
        """Returns the features of all frames at each level for latents of this size, in float32.

        A clip that is longer than the encoder's positional encoding is encoded in windows, which are blended; its features are
        in RAM, and those of other clips on `device`. The encoder is there only while it computes.
        """
        length = self.encoder.length
        windows = ContextWindows(trajectory.frames, length, length // 2, uniform=False).at(0)
        encoder = copy.deepcopy(self.encoder).to(device, torch.float32)
        totals: list[Tensor] = []
        # Without norms, numbers become large: half precision is not enough.
        with torch.no_grad(), torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled() else nullcontext():
            for frames, weights in zip(windows.frames, windows.weights):
                features = encoder(trajectory.rays(SIDE_OF_LATENT * height, SIDE_OF_LATENT * width, frames).to(device))
                if len(windows.frames) == 1:
                    return cast(list[Tensor], features)
                totals = totals or [torch.zeros(trajectory.frames, *level.shape[1:]) for level in features]
                for total, level in zip(totals, features):
                    total[frames] += weights.view(-1, 1, 1, 1) * level.cpu()
        return totals


class Camera:
    """The camera of one clip. `strength`: 1 is as trained, at 0 the camera has no effect.

    It has features and copies of weights on the device until `leave_device`; `module` itself never leaves the CPU.
    """

    def __init__(self, module: CameraModule, trajectory: Trajectory, strength: float = 1.0) -> None:
        self._module = module
        self._trajectory = trajectory
        self._strength = strength
        self._size: tuple[int, int] | None = None
        self._features: list[Tensor] = []
        self._merges: dict[str, tuple[Tensor, Tensor]] = {}

    def prepare(self, height: int, width: int, device: torch.device) -> None:
        """Encodes the camera for latents of this size, unless that is done."""
        if self._strength and self._size != (height, width):
            self._features = self._module.encode(self._trajectory, height, width, device)
            self._size = height, width

    def in_layer(self, block: str, x: Tensor, layout: RowLayout) -> LayerCamera | None:
        """Returns the camera for the motion layer after a block whose output is `x`; None if it has no effect there."""
        if not self._strength or block not in self._module.merges:
            return None
        level = level_of(block)
        if self._features[level].dtype != x.dtype:
            self._features[level] = self._features[level].to(x.dtype)
        clips = layout.of_video(self._features[level])
        if clips.shape[3:] != x.shape[2:]:  # sides that are not multiples of 64, and extensions that shrink levels
            clips = F.interpolate(clips.flatten(0, 1), x.shape[2:], mode="bilinear").unflatten(0, clips.shape[:2])
        return LayerCamera(clips.flatten(3), *self._merge(block, x), self._strength)

    def _merge(self, block: str, x: Tensor) -> tuple[Tensor, Tensor]:
        weight, bias = self._merges.get(block) or (None, None)
        if weight is None or bias is None or (weight.device, weight.dtype) != (x.device, x.dtype):
            layer = cast(nn.Linear, self._module.merges[block])
            weight, bias = layer.weight.to(x.device, x.dtype), layer.bias.to(x.device, x.dtype)
            self._merges[block] = weight, bias
        return weight, bias

    def leave_device(self) -> None:
        """Forgets what was computed and copied."""
        self._size = None
        self._features = []
        self._merges = {}


def level_of(block: str) -> int:
    """Returns the level of a UNet block with a motion layer, from 0 at full resolution."""
    side, level, _index = block.split("_")
    return int(level) if side == "down" else LEVELS - 1 - int(level)


def channels_in(path: Path) -> dict[str, int]:
    """Returns the number of channels of each UNet block that a file is made for, without reading weights.

    Raises CheckpointError if it cannot be opened, or is not a complete file of CameraCtrl.
    """
    path = weights_of(path)
    widths, _length = _facts(path, open_weights(path).entries)
    return {block: widths[level_of(block)] for block in expected_blocks(LEVELS, mid=False)}


def load_camera(path: Path) -> CameraModule:
    """Reads a file on the CPU, in the dtype of the file. Raises CheckpointError."""
    path = weights_of(path)
    file = open_weights(path)
    widths, length = _facts(path, file.entries)
    weights = {ours: _joined([file.weight(key) for key in keys], ours) for ours, keys in _keys(widths).items()}
    with torch.device("meta"):  # without memory, since every weight is replaced below
        module = CameraModule(widths, length)
    module.load_state_dict(weights, strict=True, assign=True)
    return module.eval().requires_grad_(False)


def _joined(tensors: list[Tensor], name: str) -> Tensor:
    if name.endswith(".positional_encoding"):
        return tensors[0][0].clone()  # a copy: a view would keep the whole file mapped
    return torch.cat(tensors) if len(tensors) > 1 else tensors[0]


def _facts(path: Path, entries: Mapping[str, Entry]) -> tuple[tuple[int, ...], int]:
    """Returns the channels of each level and the rows of the positional encodings. Raises CheckpointError."""
    firsts = [f"encoder_down_conv_blocks.{level}.0.block1.bias" for level in range(LEVELS)]
    table = "encoder_down_attention_blocks.0.0.attention_blocks.0.pos_encoder.pe"
    missing = [key for key in (*firsts, table) if key not in entries]
    if not missing:
        widths = tuple(entries[key].shape[0] if len(entries[key].shape) == 1 else 0 for key in firsts)
        length = entries[table].shape[1] if len(entries[table].shape) == 3 else 0
        if all(width and width % HEADS == 0 for width in widths) and length > 0:
            shapes = _shapes(widths, length)
            missing = [key for key in shapes if key not in entries]
            missing += [
                f"{key} with the shape {list(shape)}"
                for key, shape in shapes.items()
                if key in entries and entries[key].shape != shape
            ]
            if not missing:
                return widths, length
        else:
            missing = ["layers of usable sizes"]
    more = f", and {len(missing) - 3} more" if len(missing) > 3 else ""
    raise CheckpointError(
        f"{path.name} is not a complete CameraCtrl file: it lacks {'; '.join(missing[:3])}{more}. Download it again, or choose "
        "CameraCtrl.ckpt (hehao13/CameraCtrl, Hugging Face)."
    )


def _shapes(widths: tuple[int, ...], length: int) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of all weights in a file, by key."""
    with torch.device("meta"):
        ours = CameraModule(widths, length).state_dict()
    shapes: dict[str, tuple[int, ...]] = {}
    for name, keys in _keys(widths).items():
        shape = tuple(ours[name].shape)
        if name.endswith(".positional_encoding"):
            shape = (1, *shape)
        shapes.update(dict.fromkeys(keys, (shape[0] // len(keys), *shape[1:])))
    return shapes


def _keys(widths: tuple[int, ...]) -> dict[str, tuple[str, ...]]:
    """Returns the keys in a file of each weight of a `CameraModule`; queries, keys and values are apart there."""
    keys: dict[str, tuple[str, ...]] = {f"encoder.conv_in.{kind}": (f"encoder_conv_in.{kind}",) for kind in ("weight", "bias")}
    for level, (before, width) in enumerate(zip((widths[0], *widths), widths)):
        for index in range(BLOCKS):
            ours, place = f"encoder.levels.{level}.{index}.", f"{level}.{index}."
            convolutions, attention = f"encoder_down_conv_blocks.{place}", f"encoder_down_attention_blocks.{place}"
            names = {
                "convolve": "block1",
                "narrow": "block2",
                **({"widen": "in_conv"} if index == 0 and before != width else {}),
            }
            parts = {name: convolutions + theirs for name, theirs in names.items()}
            parts |= {name: attention + theirs for name, theirs in _IN_ATTENTION_BLOCK.items()}
            keys.update(
                {f"{ours}{name}.{kind}": (f"{key}.{kind}",) for name, key in parts.items() for kind in ("weight", "bias")}
            )
            keys[f"{ours}attention.to_qkv.weight"] = tuple(
                f"{attention}attention_blocks.0.{name}.weight" for name in ("to_q", "to_k", "to_v")
            )
            keys[f"{ours}attention.positional_encoding"] = (f"{attention}attention_blocks.0.pos_encoder.pe",)
    for block in expected_blocks(LEVELS, mid=False):
        for kind in ("weight", "bias"):
            keys[f"merges.{block}.{kind}"] = (key_of(block, _MERGE + kind, "original"),)
    return keys


_IN_ATTENTION_BLOCK = {
    "attention.to_out": "attention_blocks.0.to_out.0",
    "attention_norm": "norms.0",
    "feed_forward.widen": "ff.net.0.proj",
    "feed_forward.narrow": "ff.net.2",
    "feed_forward_norm": "ff_norm",
}
"""What a `PoseBlock` calls the parts of its attention, and what the authors do."""
