"""SparseCtrl in the authors' layout: random weights by their keys, and an independent implementation of their maths.

It follows guoyww/AnimateDiff `sparse_controlnet.py`, `unet_blocks.py`, `pipeline_animation.py` and the configurations
`latent_condition.yaml` (RGB) and `image_condition.yaml` (scribble), on `(clips, channels, frames, height, width)`.
"""

from __future__ import annotations

import re
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from support.authors_unet import AuthorsUNet, Weights
from support.published_layouts import WIDTHS, authors_layer, in_diffusers_layout, layer_weights, sinusoids

EMBEDDING_WIDTHS = (16, 32, 96, 256)
MOST_FRAMES = 32


class AuthorsSparseCtrl(AuthorsUNet):
    """The authors' network. `weights`: by their keys."""

    def __init__(self, weights: Weights) -> None:
        self.w = weights
        self.head_width = None
        self.over_frames = False
        self.takes_latents = "controlnet_cond_embedding.weight" in weights

    def added(
        self,
        pictures: Tensor,
        frames: list[int],
        length: int,
        timestep: float,
        context: Tensor,
        *,
        mask_at: list[int] | None = None,
    ) -> list[Tensor]:
        """Returns what is added to the UNet: 12 skip connections, then the middle block.

        `pictures`: (clips, channels, pictures, height, width). `frames`: theirs. `length`: frames of the clip. `context`:
        (clips, frames, tokens, width). `mask_at`: where the mask is 1, if not at `frames`.
        """
        clips, channels, _, height, width = pictures.shape
        shown = torch.zeros(clips, channels, length, height, width)
        mask = torch.zeros(clips, 1, length, height, width)
        shown[:, :, frames] = pictures
        mask[:, :, frames if mask_at is None else mask_at] = 1
        self.context = context
        self.embedding = self._time(timestep, clips)[:, None].expand(-1, length, -1)
        scale = 1 if self.takes_latents else 8
        noise = torch.zeros(clips, 4, length, height // scale, width // scale)  # set_noisy_sample_input_to_zero
        x = self._conv(noise, "conv_in.") + self._embedded(torch.cat([shown, mask], dim=1))
        features = [x]
        for level in range(4):
            for index in range(2):
                x = self._res(x, f"down_blocks.{level}.resnets.{index}.")
                x = self._transformer(x, f"down_blocks.{level}.attentions.{index}.")
                x = self._motion(x, f"down_blocks.{level}.motion_modules.{index}.temporal_transformer.")
                features.append(x)
            if level < 3:
                x = self._conv(x, f"down_blocks.{level}.downsamplers.0.conv.", stride=2)
                features.append(x)
        x = self._res(x, "mid_block.resnets.0.")
        x = self._transformer(x, "mid_block.attentions.0.")
        x = self._res(x, "mid_block.resnets.1.")
        skips = [self._conv(feature, f"controlnet_down_blocks.{i}.", padding=0) for i, feature in enumerate(features)]
        return [*skips, self._conv(x, "controlnet_mid_block.", padding=0)]

    def _embedded(self, shown: Tensor) -> Tensor:
        name = "controlnet_cond_embedding."
        if self.takes_latents:
            return self._conv(shown, name)
        x = F.silu(self._conv(shown, name + "conv_in."))
        for index in range(6):
            x = F.silu(self._conv(x, f"{name}blocks.{index}.", stride=1 + index % 2))
        return self._conv(x, name + "conv_out.")

    def _time(self, timestep: float, clips: int) -> Tensor:
        width = self.w["time_embedding.linear_1.weight"].shape[1]
        exponent = torch.arange(width // 2, dtype=torch.float32) / (width // 2)
        angles = float(timestep) / 10_000**exponent
        waves = torch.cat([angles.cos(), angles.sin()])[None].expand(clips, -1)  # flip_sin_to_cos
        hidden = F.silu(self._linear(waves, "time_embedding.linear_1."))
        return self._linear(hidden, "time_embedding.linear_2.")

    def _res(self, x: Tensor, prefix: str) -> Tensor:
        hidden = self._conv(F.silu(self._res_norm(x, prefix + "norm1.")), prefix + "conv1.")
        embedded = self._linear(F.silu(self.embedding), prefix + "time_emb_proj.")
        hidden = hidden + embedded.transpose(1, 2)[:, :, :, None, None]
        hidden = self._conv(F.silu(self._res_norm(hidden, prefix + "norm2.")), prefix + "conv2.")
        if prefix + "conv_shortcut.weight" in self.w:
            x = self._conv(x, prefix + "conv_shortcut.", padding=0)
        return x + hidden

    def _motion(self, x: Tensor, prefix: str) -> Tensor:
        layer = {key[len(prefix) :]: value for key, value in self.w.items() if key.startswith(prefix)}
        table = "transformer_blocks.0.attention_blocks.0.pos_encoder.pe"
        return authors_layer({**layer, table: sinusoids(MOST_FRAMES, x.shape[1])}, x)


class _Drawn:
    """Random weights of layers, by their keys."""

    def __init__(self) -> None:
        self.weights: Weights = {}

    def layer(self, name: str, after: int, before: int, kernel: int = 0, *, bias: bool = True) -> None:
        shape = (after, before, kernel, kernel) if kernel else (after, before)
        self.weights[name + ".weight"] = torch.randn(shape) / (before * max(kernel, 1) ** 2) ** 0.5
        if bias:
            self.weights[name + ".bias"] = 0.1 * torch.randn(after)

    def norm(self, name: str, width: int) -> None:
        self.weights[name + ".weight"] = 1 + 0.1 * torch.randn(width)
        self.weights[name + ".bias"] = 0.1 * torch.randn(width)

    def resnet(self, name: str, before: int, after: int, time: int) -> None:
        self.norm(f"{name}.norm1", before)
        self.layer(f"{name}.conv1", after, before, 3)
        self.layer(f"{name}.time_emb_proj", after, time)
        self.norm(f"{name}.norm2", after)
        self.layer(f"{name}.conv2", after, after, 3)
        if before != after:
            self.layer(f"{name}.conv_shortcut", after, before, 1)

    def transformer(self, name: str, width: int, text_width: int) -> None:
        self.norm(f"{name}.norm", width)
        self.layer(f"{name}.proj_in", width, width, 1)
        block = f"{name}.transformer_blocks.0"
        for attention, source in (("attn1", width), ("attn2", text_width)):
            self.layer(f"{block}.{attention}.to_q", width, width, bias=False)
            self.layer(f"{block}.{attention}.to_k", width, source, bias=False)
            self.layer(f"{block}.{attention}.to_v", width, source, bias=False)
            self.layer(f"{block}.{attention}.to_out.0", width, width)
        for index in (1, 2, 3):
            self.norm(f"{block}.norm{index}", width)
        self.layer(f"{block}.ff.net.0.proj", 8 * width, width)
        self.layer(f"{block}.ff.net.2", width, 4 * width)
        self.layer(f"{name}.proj_out", width, width, 1)

    def embedding(self, kind: str, width: int) -> None:
        name = "controlnet_cond_embedding"
        if kind == "RGB":
            self.layer(name, width, 4 + 1, 3)
            return
        self.layer(f"{name}.conv_in", EMBEDDING_WIDTHS[0], 3 + 1, 3)
        for index, (before, after) in enumerate(pairwise(EMBEDDING_WIDTHS)):
            self.layer(f"{name}.blocks.{2 * index}", before, before, 3)
            self.layer(f"{name}.blocks.{2 * index + 1}", after, before, 3)
        self.layer(f"{name}.conv_out", width, EMBEDDING_WIDTHS[-1], 3)

    def motion(self, place: str, width: int) -> None:
        for name, tensor in layer_weights(width, MOST_FRAMES).items():
            if "attention_blocks.1." not in name and ".norms.1." not in name:
                self.weights[f"{place}.temporal_transformer.{name}"] = tensor


def sparse_weights(kind: str, widths: tuple[int, ...] = WIDTHS, text_width: int = 24) -> Weights:
    """Returns random weights of a network by the authors' keys. `kind`: "RGB" or "scribble"."""
    drawn, time = _Drawn(), 4 * widths[0]
    drawn.layer("conv_in", widths[0], 4, 3)
    drawn.embedding(kind, widths[0])
    drawn.layer("time_embedding.linear_1", time, widths[0])
    drawn.layer("time_embedding.linear_2", time, time)
    before, skips = widths[0], [widths[0]]
    for level, width in enumerate(widths):
        place = f"down_blocks.{level}"
        for index in range(2):
            drawn.resnet(f"{place}.resnets.{index}", before, width, time)
            before = width
            if level < 3:
                drawn.transformer(f"{place}.attentions.{index}", width, text_width)
            drawn.motion(f"{place}.motion_modules.{index}", width)
        if level < 3:
            drawn.layer(f"{place}.downsamplers.0.conv", width, width, 3)
        skips += [width] * (3 if level < 3 else 2)
    for index in range(2):
        drawn.resnet(f"mid_block.resnets.{index}", before, before, time)
    drawn.transformer("mid_block.attentions.0", before, text_width)
    for index, width in enumerate(skips):
        drawn.layer(f"controlnet_down_blocks.{index}", width, width, 1)
    drawn.layer("controlnet_mid_block", before, before, 1)
    return drawn.weights


def in_diffusers_form(weights: Weights) -> Weights:
    """Returns weights with the keys of diffusers' `SparseControlNetModel`."""
    return in_diffusers_layout(weights)


def in_ldm_form(weights: Weights) -> Weights:
    """Returns weights with the keys of files that were made for sd-webui-controlnet."""
    return {_ldm_key(key): value for key, value in weights.items()}


_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def _ldm_key(key: str) -> str:
    if "motion_modules" in key:
        return key
    if match := re.fullmatch(r"down_blocks\.(\d)\.(resnets|attentions|downsamplers)\.(\d)\.(.+)", key):
        level, part, index, rest = int(match[1]), match[2], int(match[3]), match[4]
        if part == "downsamplers":
            return f"input_blocks.{3 * level + 3}.0.op.{rest.removeprefix('conv.')}"
        place = f"input_blocks.{3 * level + 1 + index}.{int(part == 'attentions')}"
        return f"{place}.{rest}" if part == "attentions" else f"{place}.{_in_resnet(rest)}"
    if match := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", key):
        if match[1] == "attentions":
            return f"middle_block.1.{match[3]}"
        return f"middle_block.{2 * int(match[2])}.{_in_resnet(match[3])}"
    renames = (
        (r"^controlnet_down_blocks\.(\d+)\.", r"zero_convs.\1.0."),
        (r"^controlnet_mid_block\.", "middle_block_out.0."),
        (r"^controlnet_cond_embedding\.", "input_hint_block.0."),
        (r"^time_embedding\.linear_1\.", "time_embed.0."),
        (r"^time_embedding\.linear_2\.", "time_embed.2."),
        (r"^conv_in\.", "input_blocks.0.0."),
    )
    for pattern, name in renames:
        key = re.sub(pattern, name, key)
    return key


def _in_resnet(rest: str) -> str:
    name, _, kind = rest.rpartition(".")
    return f"{_RESNET[name]}.{kind}"
