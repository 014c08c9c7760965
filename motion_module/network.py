"""The temporal transformer (arXiv 2307.04725, section 4.2 and figure 3), and the set of them that makes a motion module.

Reference: `VanillaTemporalModule` in guoyww/AnimateDiff `animatediff/models/motion_module.py`. What differs is the layout:
the authors permute around every attention block; here a block permutes its input once to `(positions, frames, channels)`,
where a *position* is one pixel of one clip under one condition, and permutes back once at its end.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .context_windows import Cut
from .families import Norms
from .row_layout import RowLayout

HEADS = 8
NORM_GROUPS = 32
MAX_LAUNCH = 65_535
"""CUDA's limit on a grid axis. Fused attentions put positions, or positions times heads, into one."""
ROWS_NORMED = 8
"""Rows whose statistics are taken together: enough to keep a device busy, few enough to need little memory."""
CUDA_NUMBERS = 131_072 * 320
"""Tokens times channels per pass on a GPU: those of 16 frames of 128×64 latents at the first level of Stable Diffusion. Their
feed-forward takes 1.3 GB in half precision, as does the image UNet's own of as many tokens.
"""
CPU_TOKENS = 1024
"""Tokens per pass on a CPU: few enough that what a pass allocates stays in its caches (1.4 to 2 times faster, measured)."""


def sinusoidal_positions(length: int, channels: int) -> Tensor:
    """The fixed table `(length, channels)` of Vaswani et al., arXiv 1706.03762, section 3.5: sines even, cosines odd."""
    position = torch.arange(length, dtype=torch.float32).unsqueeze(1)
    rate = torch.exp(torch.arange(0, channels, 2, dtype=torch.float32) * (-math.log(10_000.0) / channels))
    table = torch.zeros(length, channels)
    table[:, 0::2] = torch.sin(position * rate)
    table[:, 1::2] = torch.cos(position * rate)
    return table


def positions_per_pass(device: torch.device, channels: int, frames: int, windows: int = 1) -> int:
    """The most positions to handle at once, each with so many frames in all of its windows, of so many channels.

    They are independent of each other, so this changes speed and memory only.
    """
    if device.type == "cpu":
        return max(1, CPU_TOKENS // frames)
    return max(1, min(MAX_LAUNCH // HEADS // windows, CUDA_NUMBERS // (channels * frames)))


class TemporalAttention(nn.Module):
    """Self-attention along the frame axis, `(positions, frames, channels)` in and out."""

    positions: Tensor

    def __init__(self, channels: int, length: int) -> None:
        super().__init__()
        self.to_qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.to_out = nn.Linear(channels, channels)
        self.register_buffer("positions", sinusoidal_positions(length, channels))

    def forward(self, hidden: Tensor, scale: float = 1.0) -> Tensor:
        """`scale` multiplies the keys, and with them how sharply a frame looks at others: at 0, at all of them alike."""
        return self.to_out(self.mixed(self.to_qkv(hidden + self.places(hidden.shape[1], hidden.dtype)), scale))

    def places(self, frames: int, dtype: torch.dtype) -> Tensor:
        """What tells frames where they are, `(frames, channels)`."""
        return self.positions[:frames].to(dtype)

    def mixed(self, qkv: Tensor, scale: float) -> Tensor:
        """The attention between both projections: `(positions, frames, 3 × channels)`, queries, keys and values beside each
        other, to `(positions, frames, channels)`.
        """
        count, frames, channels = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
        query, key, value = qkv.view(count, frames, 3, HEADS, channels // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        if scale != 1.0:
            key = key * scale
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(count, frames, channels)


class FeedForward(nn.Module):
    """GEGLU (arXiv 2002.05202): `(…, channels)` in and out, four times as wide inside."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.widen = nn.Linear(channels, 8 * channels)
        self.narrow = nn.Linear(4 * channels, channels)

    def forward(self, hidden: Tensor) -> Tensor:
        value, gate = self.widen(hidden).chunk(2, dim=-1)
        return self.narrow(value * F.gelu(gate))


class TemporalTransformer(nn.Module):
    """One motion layer: what is put behind one block of the image UNet.

    A newly made one is the identity, because its output projection is zero (section 4.2 of the paper). `norms`: whether its
    group norm takes its statistics from each frame, or from all frames of a clip together.
    """

    def __init__(self, channels: int, length: int, attention_blocks: int = 2, norms: Norms = "per frame") -> None:
        super().__init__()
        self.norm_over_frames = norms == "over frames"
        self.norm = nn.GroupNorm(NORM_GROUPS, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.attentions = nn.ModuleList(TemporalAttention(channels, length) for _ in range(attention_blocks))
        self.attention_norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(attention_blocks))
        self.feed_forward = FeedForward(channels)
        self.feed_forward_norm = nn.LayerNorm(channels)
        self.proj_out = nn.Linear(channels, channels)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(self, x: Tensor, layout: RowLayout) -> Tensor:
        """Mixes the frames of every clip in `x`, `(rows, channels, height, width)`; the layout says which row is which."""
        return x + self.residual(x, layout)

    def residual(self, x: Tensor, layout: RowLayout, scale: float = 1.0, cut: Cut | None = None) -> Tensor:
        """What the layer adds to `x`. `scale` is that of its attentions; with a `cut`, they look no further than windows.

        `x` may lie elsewhere than the layer, which is then handed what it works on, part by part. A norm over frames sees all
        frames of a clip, whatever the windows.
        """
        clips = layout.to_clips(x).flatten(3)  # (clips, frames, channels, positions)
        count, frames, channels = clips.shape[:3]
        slope, shift = (part.unsqueeze(3) for part in self._norm_of_clips(layout.to_clips(x)))
        device = self.proj_in.weight.device
        windows = torch.Size([1, frames]) if cut is None else cut.frames.shape
        at_once = positions_per_pass(device, channels, windows.numel(), windows[0]) // count
        mixed = []
        for part in clips.split(max(at_once, 1), dim=3):
            normed = torch.addcmul(shift, part.to(device, torch.float32), slope).to(self.proj_in.weight.dtype)
            hidden = self._mix_frames(normed.permute(0, 3, 1, 2).reshape(-1, frames, channels), scale, cut)
            mixed.append(hidden.view(count, -1, frames, channels).permute(0, 2, 3, 1).to(x.device))
        return layout.to_rows(torch.cat(mixed, dim=3).unflatten(3, x.shape[2:]))

    def _norm_of_clips(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """The group norm as a line for each frame and channel: slope and shift, `(clips, frames, channels)`, in float32."""
        weight, bias = self.norm.weight.float(), self.norm.bias.float()
        groups = clips.reshape(-1, NORM_GROUPS, clips.shape[2] // NORM_GROUPS * clips.shape[3:].numel())
        found = [torch.var_mean(rows.to(weight.device).float(), dim=2, correction=0) for rows in groups.split(ROWS_NORMED)]
        variance, mean = (torch.cat(parts).view(*clips.shape[:2], NORM_GROUPS) for parts in zip(*found))
        if self.norm_over_frames:  # of numbers in parts of equal size: the mean variance, and the variance of the means
            between, mean_of_all = torch.var_mean(mean, dim=1, correction=0, keepdim=True)
            variance = (variance.mean(dim=1, keepdim=True) + between).expand_as(variance)
            mean = mean_of_all.expand_as(mean)
        variance, mean = (part.repeat_interleave(clips.shape[2] // NORM_GROUPS, dim=2) for part in (variance, mean))
        slope = weight * torch.rsqrt(variance + self.norm.eps)
        return slope, bias - mean * slope

    def _mix_frames(self, hidden: Tensor, scale: float, cut: Cut | None) -> Tensor:
        """Everything between the two permutations, `(positions, frames, channels)` in and out."""
        hidden = self.proj_in(hidden)
        hidden = self._attended(hidden, scale) if cut is None else self._attended_in_windows(hidden, scale, cut)
        hidden = hidden + self.feed_forward(self.feed_forward_norm(hidden))
        return self.proj_out(hidden)

    def _attended(self, hidden: Tensor, scale: float) -> Tensor:
        for norm, attend in zip(self.attention_norms, self.attentions):
            hidden = hidden + attend(norm(hidden), scale)
        return hidden

    def _attended_in_windows(self, hidden: Tensor, scale: float, cut: Cut) -> Tensor:
        """Each window by itself, its positions from 0, and the windows blended: FreeNoise, arXiv 2310.15169, section 4.1.

        What is linear is done once for each frame and not for each window that it is in: the first projection, as that of a sum
        with positions is the sum of both projections, and the last one, as that of a blend is the blend of the projections.
        """
        frames = cut.frames.to(hidden.device)

        def in_windows(of_frames: Tensor) -> Tensor:
            return of_frames[:, frames].flatten(0, 1)  # (positions × windows, length, …)

        def blended(of_windows: Tensor) -> Tensor:  # (positions, frames, channels)
            return cut.blended(of_windows.unflatten(0, (-1, len(frames))))

        length = frames.shape[1]
        attentions, norms = cast(list[TemporalAttention], [*self.attentions]), [*self.attention_norms]
        first, last = attentions[0], attentions[-1]
        qkv = in_windows(first.to_qkv(norms[0](hidden))) + first.to_qkv(first.places(length, hidden.dtype))
        windows, mixed = in_windows(hidden), first.mixed(qkv, scale)
        for before, norm, attend in zip(attentions, norms[1:], attentions[1:]):
            windows = windows + before.to_out(mixed)
            mixed = attend.mixed(attend.to_qkv(norm(windows) + attend.places(length, hidden.dtype)), scale)
        return blended(windows) + last.to_out(blended(mixed))


class MotionModule(nn.Module):
    """All motion layers of one file, by their place in the UNet: `"down_0_1"`, `"mid_0"`, `"up_3_2"`.

    `picture_kernel`: of PIA, the part `(channels, 5, 3, 3)` of the UNet's first convolution that sees the mask and the picture.
    """

    picture_kernel: Tensor | None

    def __init__(
        self, channels: dict[str, int], length: int, *, takes_picture: bool = False, norms: Norms = "per frame"
    ) -> None:
        """`channels`: the width at each place. `length`: rows of the position table, the most frames it can tell apart.
        `norms`: of its layers.
        """
        super().__init__()
        self.length = length
        kernel = torch.zeros(channels["down_0_0"], 5, 3, 3) if takes_picture else None
        self.register_buffer("picture_kernel", kernel)
        self.layers = nn.ModuleDict(
            {place: TemporalTransformer(width, length, norms=norms) for place, width in channels.items()}
        )

    @property
    def channels(self) -> dict[str, int]:
        """The width at each place."""
        return {place: layer.norm.num_channels for place, layer in self.layers.items()}  # type: ignore[union-attr,misc]
