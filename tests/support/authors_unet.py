"""An independent implementation of the authors' inflated UNet, in five dimensions, for the weights of an LDM checkpoint.

It follows guoyww/AnimateDiff `unet.py`, `unet_blocks.py`, `resnet.py` and `attention.py`, on its main branch and on `sdxl`, and
hotshotco/Hotshot-XL `unet.py`, `unet_blocks.py`, `resnet.py` and `transformer_temporal.py`: everything is
`(clips, channels, frames, height, width)`, image layers fold the frames away for themselves, and a motion layer follows each
transformer, or each ResBlock where there is none. Only plain tensor functions are used, so it shares neither layout nor code
with what it is held against.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from support.published_layouts import authors_features, authors_layer

Weights = dict[str, Tensor]
HEADS = 8


class AuthorsUNet:
    """The authors' UNet. `unet`: weights of an LDM UNet. `motion`: weights of a motion module by the authors' keys, or none.

    `over_frames`: whether the norms of ResBlocks and output are over all frames (`use_inflated_groupnorm: false`).
    `motion_over_frames`: the same for motion layers. `head_width`: channels per attention head for SDXL; None: eight heads.
    `camera`: returns CameraCtrl's features at each level for latents of a height and width; `motion` then has its weights too.
    `shares`: for each frame the share of its effect that motion has at each pixel of the latents, (frames, height, width).
    `picture`: for an image encoder, the latents of the picture that clips start from, (1, channels, height, width).
    """

    def __init__(
        self,
        unet: Weights,
        motion: Weights | None = None,
        *,
        over_frames: bool = False,
        motion_over_frames: bool = False,
        head_width: int | None = None,
        camera: Callable[[int, int], list[Tensor]] | None = None,
        camera_strength: float = 1.0,
        shares: Tensor | None = None,
        picture: Tensor | None = None,
    ) -> None:
        self.w = unet
        self.motion = motion or {}
        self.over_frames = over_frames
        self.motion_over_frames = motion_over_frames
        self.head_width = head_width
        self.camera, self.camera_strength = camera, camera_strength
        self.shares = shares
        self.picture = picture
        self.blocks = len({key.split(".")[1] for key in unet if key.startswith("input_blocks.")})

    def __call__(
        self,
        x: Tensor,
        timestep: float,
        context: Tensor,
        vector: Tensor | None = None,
        added: list[Tensor] | None = None,
    ) -> Tensor:
        """Returns the predicted noise. `x`: (clips, channels, frames, height, width). `context`: (clips, frames, tokens,
        width).

        `vector`: (clips, frames, width), SDXL's additional conditioning of each frame. `added`: what a SparseCtrl network adds
        to the skip connections, first to last, and to the middle block.
        """
        self.context = context
        self.pose = self.camera(*x.shape[3:]) if self.camera else None
        self.features = [] if self.picture is None else authors_features(self.motion, self.picture, x.shape[2])
        self.embedding = self._time_embedding(timestep, len(x))[:, None].expand(-1, x.shape[2], -1)
        if vector is not None:
            label = self._linear(F.silu(self._linear(vector, "label_emb.0.0.")), "label_emb.0.2.")
            self.embedding = self.embedding + label
        skips = []
        for index in range(self.blocks):
            x = self._input_block(f"input_blocks.{index}.", index, x)
            skips.append(x)
        x = self._res(x, "middle_block.0.")
        x = self._transformer(x, "middle_block.1.")
        x = self._motion(x, "mid_block.motion_modules.0.")
        x = self._res(x, "middle_block.2.")
        if added is not None:
            skips = [skip + more for skip, more in zip(skips, added)]
            x = x + added[-1]
        for index in range(self.blocks):
            x = torch.cat([x, skips.pop()], dim=1)
            x = self._output_block(f"output_blocks.{index}.", index, x)
        return self._conv(F.silu(self._res_norm(x, "out.0.")), "out.2.")

    def _input_block(self, prefix: str, index: int, x: Tensor) -> Tensor:
        if index == 0:
            return self._conv(x, prefix + "0.")
        if prefix + "0.op.weight" in self.w:
            return self._conv(x, prefix + "0.op.", stride=2)
        x = self._res(x, prefix + "0.")
        x = self._transformer(x, prefix + "1.")
        level, layer = divmod(index - 1, 3)
        if self.features and layer == 1:
            x = x + self.features[level]
        return self._motion(x, f"down_blocks.{level}.motion_modules.{layer}.")

    def _output_block(self, prefix: str, index: int, x: Tensor) -> Tensor:
        x = self._res(x, prefix + "0.")
        x = self._transformer(x, prefix + "1.")
        x = self._motion(x, f"up_blocks.{index // 3}.motion_modules.{index % 3}.")
        for upsample in (prefix + "1.conv.", prefix + "2.conv."):
            if upsample + "weight" in self.w:
                larger = self._per_frame(x, lambda frames: F.interpolate(frames, scale_factor=2.0, mode="nearest"))
                x = self._conv(larger, upsample)
        return x

    # --- layers ---

    def _motion(self, x: Tensor, prefix: str) -> Tensor:
        prefix += "temporal_transformer."
        layer = {key[len(prefix) :]: value for key, value in self.motion.items() if key.startswith(prefix)}
        if not layer:
            return x
        pose = None
        if self.pose is not None and not prefix.startswith("mid"):
            level = int(prefix.split(".")[1])
            features = self.pose[level if prefix.startswith("down") else -1 - level]
            pose = features.expand(len(x), -1, -1, -1, -1), self.camera_strength
        moved = authors_layer(layer, x, over_frames=self.motion_over_frames, pose=pose)
        return moved if self.shares is None else x + self._shares_at(x) * (moved - x)

    def _shares_at(self, x: Tensor) -> Tensor:
        """Returns the mean share in the area of each pixel of `x`."""
        assert self.shares is not None
        height, width = x.shape[3:]
        return self.shares.unflatten(2, (width, -1)).unflatten(1, (height, -1)).mean((2, 4))

    def _res(self, x: Tensor, prefix: str) -> Tensor:
        hidden = self._conv(F.silu(self._res_norm(x, prefix + "in_layers.0.")), prefix + "in_layers.2.")
        embedded = self._linear(F.silu(self.embedding), prefix + "emb_layers.1.")
        hidden = hidden + embedded.transpose(1, 2)[:, :, :, None, None]
        hidden = self._conv(F.silu(self._res_norm(hidden, prefix + "out_layers.0.")), prefix + "out_layers.3.")
        if prefix + "skip_connection.weight" in self.w:
            x = self._conv(x, prefix + "skip_connection.", padding=0)
        return x + hidden

    def _transformer(self, x: Tensor, prefix: str) -> Tensor:
        """Returns the output of a SpatialTransformer, or `x` if there is none. Its norm and attention are per frame."""
        if prefix + "proj_in.weight" not in self.w:
            return x
        clips, channels, frames, height, width = x.shape
        normed = self._per_frame(x, lambda rows: self._group_norm(rows, prefix + "norm.", 1e-6))
        hidden = self._per_pixel(normed, prefix + "proj_in.")
        tokens = hidden.permute(0, 2, 3, 4, 1).reshape(clips * frames, height * width, channels)
        context = self.context.reshape(clips * frames, *self.context.shape[2:])
        for depth in range(sum(key.startswith(prefix) and key.endswith("attn1.to_q.weight") for key in self.w)):
            block = f"{prefix}transformer_blocks.{depth}."
            normed = self._layer_norm(tokens, block + "norm1.")
            tokens = tokens + self._attention(normed, normed, block + "attn1.")
            tokens = tokens + self._attention(self._layer_norm(tokens, block + "norm2."), context, block + "attn2.")
            value, gate = self._linear(self._layer_norm(tokens, block + "norm3."), block + "ff.net.0.proj.").chunk(2, -1)
            tokens = tokens + self._linear(value * F.gelu(gate), block + "ff.net.2.")
        hidden = tokens.reshape(clips, frames, height, width, channels).permute(0, 4, 1, 2, 3)
        return x + self._per_pixel(hidden, prefix + "proj_out.")

    def _attention(self, tokens: Tensor, context: Tensor, prefix: str) -> Tensor:
        heads = HEADS if self.head_width is None else tokens.shape[-1] // self.head_width
        query, key, value = (
            self._linear(source, f"{prefix}to_{name}.").unflatten(-1, (heads, -1)).transpose(1, 2)
            for name, source in (("q", tokens), ("k", context), ("v", context))
        )
        weights = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])).softmax(-1)
        return self._linear((weights @ value).transpose(1, 2).flatten(2), prefix + "to_out.0.")

    # --- parts of layers ---

    def _time_embedding(self, timestep: float, clips: int) -> Tensor:
        width = self.w["time_embed.0.weight"].shape[1]
        rates = torch.exp(-math.log(10_000) * torch.arange(width // 2, dtype=torch.float32) / (width // 2))
        angles = torch.full((clips, 1), float(timestep)) * rates
        hidden = self._linear(torch.cat([angles.cos(), angles.sin()], -1), "time_embed.0.")
        return self._linear(F.silu(hidden), "time_embed.2.")

    def _res_norm(self, x: Tensor, prefix: str) -> Tensor:
        if self.over_frames:
            return self._group_norm(x, prefix, 1e-5)
        return self._per_frame(x, lambda rows: self._group_norm(rows, prefix, 1e-5))

    def _group_norm(self, x: Tensor, prefix: str, epsilon: float) -> Tensor:
        return F.group_norm(x, 32, self.w[prefix + "weight"], self.w[prefix + "bias"], epsilon)

    def _layer_norm(self, x: Tensor, prefix: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.w[prefix + "weight"], self.w[prefix + "bias"])

    def _linear(self, x: Tensor, prefix: str) -> Tensor:
        return F.linear(x, self.w[prefix + "weight"], self.w.get(prefix + "bias"))

    def _conv(self, x: Tensor, prefix: str, stride: int = 1, padding: int = 1) -> Tensor:
        weight, bias = self.w[prefix + "weight"], self.w[prefix + "bias"]
        return self._per_frame(x, lambda rows: F.conv2d(rows, weight, bias, stride=stride, padding=padding))

    def _per_pixel(self, x: Tensor, prefix: str) -> Tensor:
        """Returns the output of a 1×1 convolution, or of SDXL's linear layer instead."""
        weight, bias = self.w[prefix + "weight"], self.w[prefix + "bias"]
        return self._per_frame(x, lambda rows: F.conv2d(rows, weight.reshape(*weight.shape[:2], 1, 1), bias))

    @staticmethod
    def _per_frame(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        rows = function(x.transpose(1, 2).flatten(0, 1))
        return rows.unflatten(0, (len(x), -1)).transpose(1, 2)
