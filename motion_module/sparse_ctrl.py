"""SparseCtrl (arXiv 2311.16933): pictures at some frames of a clip steer all of them.

Reference: `SparseControlNetModel` in guoyww/AnimateDiff, with `configs/inference/sparsectrl/*.yaml`. The network is a copy of
the UNet's encoder with motion layers of one attention after its blocks. Its first input is zero instead of the noise, plus an
embedding of the pictures and of a mask that is 1 at frames with a picture. So the noise is no input of it, and the embedding
is computed once for all steps.

Everything is `(rows, channels, height, width)`; `RowLayout` says which row is which frame.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checkpoint import describe, to_authors_layout, to_our_layout
from .context_windows import StepWindows
from .key_layouts import TABLES, expected_shapes, key_of, layers_of
from .network import HEADS, NORM_GROUPS, TemporalTransformer
from .row_layout import RowLayout
from .sparse_ctrl_keys import EMBEDDING, OF_MOTION, Kind, kind_of, own_names
from .weight_files import CheckpointError, WeightFile, open_weights, weights_of

LEVELS, LAYERS = 4, 2
"""The resolution levels of Stable Diffusion 1's UNet, and its blocks in each."""
MOST_FRAMES = 32
"""The most frames that attend to each other: the rows of positional encodings, which are computed and not read from files."""
CHANNELS: dict[Kind, int] = {"RGB": 4, "scribble": 3}
"""The channels of a picture as the network takes it. One for the mask follows them."""


@dataclass(frozen=True)
class Shape:
    """What the weights of a file say about a network. `widths`: the channels of each level. `text_width`: of a token.

    `embedding`: the channels between the layers of a convolutional embedding of the pictures; empty if it is one convolution.
    """

    kind: Kind
    widths: tuple[int, ...]
    text_width: int
    embedding: tuple[int, ...] = ()


class SparseCtrl(nn.Module):
    """The network of one file. Its weights have the authors' names, except for motion layers, which are this package's."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        widths, self.shape = shape.widths, shape
        first, time = widths[0], 4 * widths[0]
        channels = CHANNELS[shape.kind] + 1
        self.conv_in = nn.Conv2d(4, first, 3, padding=1)
        self.controlnet_cond_embedding: nn.Module = (
            _PictureEmbedding(channels, shape.embedding, first)
            if shape.kind == "scribble"
            else nn.Conv2d(channels, first, 3, padding=1)
        )
        self.time_embedding = _TimeEmbedding(first, time)
        inputs = (first, *widths)
        self.down_blocks = nn.ModuleList(
            _Level(inputs[level], width, time, shape.text_width, is_last=level == len(widths) - 1)
            for level, width in enumerate(widths)
        )
        self.mid_block = _MiddleBlock(widths[-1], time, shape.text_width)
        skips = [first]
        for level, width in enumerate(widths):
            skips += [width] * (LAYERS + (level < len(widths) - 1))
        self.controlnet_down_blocks = nn.ModuleList(nn.Conv2d(width, width, 1) for width in skips)
        self.controlnet_mid_block = nn.Conv2d(widths[-1], widths[-1], 1)

    @property
    def kind(self) -> Kind:
        return self.shape.kind

    def embedded(self, pictures: Tensor) -> Tensor:
        """Returns the embedding of pictures: `(count + 1, width, height, width)`; the first is that of a frame without one.

        `pictures`: `(count, 4, …)`, latents scaled as the UNet's, or `(count, 3, …)` of eight times their size, from 0 to 1.
        """
        shown = torch.cat([torch.zeros_like(pictures[:1]), pictures])
        mask = torch.ones_like(shown[:, :1])
        mask[0] = 0
        return self.embedded_with_mask(torch.cat([shown, mask], dim=1))

    def embedded_with_mask(self, pictures: Tensor) -> Tensor:
        """Returns the embedding of pictures whose last channel is the mask: 1 for a picture, 0 where the others are 0 too."""
        embedded: Tensor = self.controlnet_cond_embedding(pictures)
        bias = self.conv_in.bias
        assert bias is not None
        return embedded + bias.view(1, -1, 1, 1)  # what the first convolution makes of zeros

    def forward(
        self,
        embedded: Tensor,
        timesteps: Tensor,
        context: Tensor,
        layout: RowLayout,
        windows: StepWindows | None = None,
    ) -> list[Tensor]:
        """Returns what is added to the UNet: to its skip connections, first to last, and to its middle block.

        `embedded`: of each row, from `embedded()`. `timesteps`: `(rows,)`. `context`: `(rows, tokens, text width)`. `windows`
        limits the motion layers to context windows.
        """
        time = self.time_embedding(timesteps.expand(len(embedded)), embedded.dtype)
        features = [embedded]
        for level in self.down_blocks:
            features += level(features[-1], time, context, layout, windows)
        middle = self.mid_block(features[-1], time, context)
        added = [convolution(x) for convolution, x in zip(self.controlnet_down_blocks, features)]
        return [*added, self.controlnet_mid_block(middle)]


class _PictureEmbedding(nn.Module):
    """Brings pictures from pixels to latents, `(count, channels, 8·height, 8·width)` to `(count, width, height, width)`."""

    def __init__(self, channels: int, widths: Sequence[int], out: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for before, after in pairwise(widths):
            self.blocks.extend([nn.Conv2d(before, before, 3, padding=1), nn.Conv2d(before, after, 3, padding=1, stride=2)])
        self.conv_out = nn.Conv2d(widths[-1], out, 3, padding=1)

    def forward(self, pictures: Tensor) -> Tensor:
        x = F.silu(self.conv_in(pictures))
        for block in self.blocks:
            x = F.silu(block(x))
        return self.conv_out(x)


class _TimeEmbedding(nn.Module):
    def __init__(self, width: int, time: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width, time)
        self.linear_2 = nn.Linear(time, time)

    def forward(self, timesteps: Tensor, dtype: torch.dtype) -> Tensor:
        """Returns the embedding of timesteps `(rows,)`: cosines, then sines, through two layers."""
        half = self.linear_1.in_features // 2
        rates = torch.exp(torch.arange(half, device=timesteps.device, dtype=torch.float32) * (-math.log(10_000) / half))
        angles = timesteps.float()[:, None] * rates
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1).to(dtype)
        return self.linear_2(F.silu(self.linear_1(waves)))


class _ResBlock(nn.Module):
    def __init__(self, before: int, after: int, time: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(NORM_GROUPS, before, eps=1e-5)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.time_emb_proj = nn.Linear(time, after)
        self.norm2 = nn.GroupNorm(NORM_GROUPS, after, eps=1e-5)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x))) + self.time_emb_proj(F.silu(time))[:, :, None, None]
        return self.conv_shortcut(x) + self.conv2(F.silu(self.norm2(hidden)))


class _Attention(nn.Module):
    def __init__(self, width: int, context_width: int) -> None:
        super().__init__()
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context_width, width, bias=False)
        self.to_v = nn.Linear(context_width, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        query, key, value = (
            layer(source).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for layer, source in ((self.to_q, x), (self.to_k, context), (self.to_v, context))
        )
        return self.to_out[0](F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class _FeedForward(nn.Module):
    """GEGLU (arXiv 2002.05202), under the names of published files."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widen = nn.Module()
        widen.proj = nn.Linear(width, 8 * width)
        self.net = nn.ModuleList([widen, nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.net[0].proj(x).chunk(2, dim=-1)  # type: ignore[operator]
        return self.net[2](value * F.gelu(gate))


class _TransformerBlock(nn.Module):
    def __init__(self, width: int, text_width: int) -> None:
        super().__init__()
        self.attn1, self.attn2 = _Attention(width, width), _Attention(width, text_width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.ff = _FeedForward(width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = x + self.attn1(normed, normed)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class _SpatialTransformer(nn.Module):
    def __init__(self, width: int, text_width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(NORM_GROUPS, width, eps=1e-6)
        self.proj_in = nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList([_TransformerBlock(width, text_width)])
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        tokens = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)
        mixed = self.transformer_blocks[0](tokens, context)
        return x + self.proj_out(mixed.transpose(1, 2).reshape(x.shape))


class _Level(nn.Module):
    """The blocks of one resolution. The last level has no cross-attention, and nothing follows it."""

    def __init__(self, before: int, width: int, time: int, text_width: int, *, is_last: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([_ResBlock(before, width, time), _ResBlock(width, width, time)])
        self.attentions = nn.ModuleList([] if is_last else (_SpatialTransformer(width, text_width) for _ in range(LAYERS)))
        self.motion_modules = nn.ModuleList(TemporalTransformer(width, MOST_FRAMES, attention_blocks=1) for _ in range(LAYERS))
        self.downsamplers = nn.ModuleList([] if is_last else [_Downsampler(width)])

    def forward(self, x: Tensor, time: Tensor, context: Tensor, layout: RowLayout, windows: StepWindows | None) -> list[Tensor]:
        features = []
        for index, (resnet, motion) in enumerate(zip(self.resnets, self.motion_modules)):
            x = resnet(x, time)
            if self.attentions:
                x = self.attentions[index](x, context)
            assert isinstance(motion, TemporalTransformer)
            x = x + motion.residual(x, layout, windows=windows)
            features.append(x)
        return features + [downsample(x) for downsample in self.downsamplers]


class _Downsampler(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class _MiddleBlock(nn.Module):
    """The middle block, which has no motion layer."""

    def __init__(self, width: int, time: int, text_width: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(_ResBlock(width, width, time) for _ in range(2))
        self.attentions = nn.ModuleList([_SpatialTransformer(width, text_width)])

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        return self.resnets[1](self.attentions[0](self.resnets[0](x, time), context), time)


# --- files ---


def describe_sparse_ctrl(path: Path) -> Shape:
    """Returns what a file says about its network, without reading weights. Raises CheckpointError if it cannot be used."""
    path = weights_of(path)
    return _checked(path, open_weights(path))[0]


def load_sparse_ctrl(path: Path) -> SparseCtrl:
    """Reads a network on the CPU, in the dtype of its file. Raises CheckpointError if the file is not one that can be used."""
    path = weights_of(path)
    file = open_weights(path)
    shape, keys = _checked(path, file)
    with torch.device("meta"):  # without memory, since every weight is replaced below
        network = SparseCtrl(shape)
    sizes = {name: weight.shape for name, weight in network.state_dict().items()}
    weights = {name: file.weight(key).reshape(sizes[name]) for name, key in keys.items() if OF_MOTION not in name}
    for block, names in layers_of(file.entries)[1].items():
        _, level, index = block.split("_")
        tensors = {name: file.weight(key) for name, key in names.items() if name not in TABLES}
        ours = to_our_layout(tensors, MOST_FRAMES, attentions=1)
        weights |= {f"down_blocks.{level}.{OF_MOTION}{index}.{name}": tensor for name, tensor in ours.items()}
    network.load_state_dict(weights, strict=True, assign=True)
    return network.eval().requires_grad_(False)


def published_sparse_ctrl(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns weights, whose names are those of `SparseCtrl`, under the authors' keys; undoes what `load_sparse_ctrl` does."""
    tensors = {name: tensor for name, tensor in weights.items() if OF_MOTION not in name}
    layers: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name in weights.keys() - tensors.keys():
        _, level, _, index, own = name.split(".", 4)
        layers[f"down_{level}_{index}"][own] = weights[name]
    for block, layer in sorted(layers.items()):
        theirs = to_authors_layout(layer, attentions=1)
        tensors |= {key_of(block, name, "original"): tensor for name, tensor in theirs.items() if name not in TABLES}
    return tensors


def _checked(path: Path, file: WeightFile) -> tuple[Shape, dict[str, str]]:
    """Returns the shape of the network in a file, and its keys by the authors' names. Raises CheckpointError."""
    if (kind := kind_of(file.entries)) is None:
        raise CheckpointError(
            f"{path.name} is not a SparseCtrl network: it is {describe(path).kind}. Choose one, such as "
            "v3_sd15_sparsectrl_rgb.ckpt."
        )
    keys = own_names(file.entries)
    for block, names in layers_of(file.entries)[1].items():
        keys |= {key_of(block, name, "original"): key for name, key in names.items() if name not in TABLES}
    shapes = {name: file.entries[key].shape for name, key in keys.items()}
    if (shape := _shape(kind, shapes)) is None:
        raise _changed(path, ["its layers are not those of Stable Diffusion 1"])
    expected = _expected_shapes(shape)
    faults = [f"{name} is missing" for name in expected if name not in keys]
    faults += [f"{keys[name]} is unknown" for name in keys if name not in expected]
    faults += [
        f"{keys[name]} has the shape {list(shapes[name])}, not {list(size)}"
        for name, size in expected.items()
        if name in shapes and _plain(shapes[name]) != _plain(size)
    ]
    if faults:
        raise _changed(path, faults)
    return shape, keys


def _shape(kind: Kind, shapes: Mapping[str, tuple[int, ...]]) -> Shape | None:
    """Returns what the shapes of weights, by the authors' names, say about a network; None if they make none."""

    def size(name: str, axis: int = 0) -> int:
        found = shapes.get(name + ".weight", ())
        return found[axis] if axis < len(found) else 0

    widths = tuple(size(f"down_blocks.{level}.resnets.0.conv1") for level in range(LEVELS))
    text_width = size("mid_block.attentions.0.transformer_blocks.0.attn2.to_k", axis=1)
    places = ("conv_in", "blocks.1", "blocks.3", "blocks.5") if kind == "scribble" else ()
    embedding = tuple(size(EMBEDDING + place) for place in places)
    if not all((*widths, text_width, *embedding)) or any(width % NORM_GROUPS or width % HEADS for width in widths):
        return None
    return Shape(kind, widths, text_width, embedding)


def _expected_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of all weights of a network by the authors' names, without positional encodings."""
    with torch.device("meta"):
        weights = SparseCtrl(shape).state_dict()
    expected = {name: tuple(weight.shape) for name, weight in weights.items() if OF_MOTION not in name}
    for level, width in enumerate(shape.widths):
        for index in range(LAYERS):
            layer = expected_shapes(width, 0, attentions=1)
            expected |= {key_of(f"down_{level}_{index}", name, "original"): size for name, size in layer.items()}
    return expected


def _plain(shape: Sequence[int]) -> tuple[int, ...]:
    """Returns a shape as that of a matrix, if it is that of a 1×1 convolution: files have either."""
    return tuple(shape[:2]) if len(shape) == 4 and tuple(shape[2:]) == (1, 1) else tuple(shape)


def _changed(path: Path, faults: list[str]) -> CheckpointError:
    more = f", and {len(faults) - 3} more" if len(faults) > 3 else ""
    return CheckpointError(
        f"{path.name} is an incomplete or changed SparseCtrl network: {'; '.join(faults[:3])}{more}. Download it again."
    )
