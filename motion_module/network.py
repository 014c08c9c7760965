"""The temporal transformer (arXiv 2307.04725, section 4.2 and figure 3), and the motion module, which is a set of them.

Reference: `VanillaTemporalModule` in guoyww/AnimateDiff `animatediff/models/motion_module.py`. Only the memory layout differs:
the authors permute around every attention block; here a layer permutes its input once to `(pixels, frames, channels)`, where a
*pixel* is one pixel of one clip under one condition, and permutes back once at its end.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import repeat
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .camera_layer import LayerCamera
from .context_windows import StepWindows
from .families import Norms
from .patching import patched
from .row_layout import RowLayout

if TYPE_CHECKING:
    from .image_encoder import ImageEncoder

HEADS = 8
NORM_GROUPS = 32
MAX_LAUNCH = 65_535
"""CUDA's limit on the size of a grid axis. Fused attention kernels use one axis for pixels, or for pixels times heads."""
ROWS_PER_NORM = 8
"""Rows whose statistics are computed together: enough to keep a device busy, few enough to need little memory."""
CUDA_NUMBERS = 131_072 * 320
"""Tokens times channels per pass on a GPU: those of 16 frames of 128×64 latents at the first level of Stable Diffusion. Their
feed-forward takes 1.3 GB in half precision, as does the image UNet's own for the same number of tokens.
"""
CPU_TOKENS = 1024
"""Tokens per pass on a CPU: few enough that what a pass allocates stays in its caches (measured: 1.4 to 2 times faster)."""


Scale = float | Tensor
"""What multiplies the queries of attention: at 0, a frame attends to all alike. A number for all frames, or for each frame of
each pixel or clip, `(pixels, frames)` or `(clips, frames)`, in float32.
"""


def sinusoidal_positions(length: int, channels: int) -> Tensor:
    """Returns the positional encoding `(length, channels)` of arXiv 1706.03762, section 3.5: sines at even channels, cosines at
    odd ones.
    """
    position = torch.arange(length, dtype=torch.float32).unsqueeze(1)
    rate = torch.exp(torch.arange(0, channels, 2, dtype=torch.float32) * (-math.log(10_000.0) / channels))
    table = torch.zeros(length, channels)
    table[:, 0::2] = torch.sin(position * rate)
    table[:, 1::2] = torch.cos(position * rate)
    return table


def pixels_per_pass(device: torch.device, channels: int, frames: int, windows: int = 1) -> int:
    """Returns the most pixels to process at once, each with `frames` frames in all of its windows.

    Pixels are independent of each other, so this changes speed and memory only.
    """
    if device.type == "cpu":
        return max(1, CPU_TOKENS // frames)
    return max(1, min(MAX_LAUNCH // HEADS // windows, CUDA_NUMBERS // (channels * frames)))


class TemporalAttention(nn.Module):
    """Self-attention along the frame axis, `(pixels, frames, channels)` in and out."""

    positional_encoding: Tensor

    def __init__(self, channels: int, length: int) -> None:
        super().__init__()
        self.to_qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.to_out = nn.Linear(channels, channels)
        self.register_buffer("positional_encoding", sinusoidal_positions(length, channels))

    def forward(self, hidden: Tensor, scale: Scale = 1.0, camera: LayerCamera | None = None) -> Tensor:
        """Returns the attention of all frames to each other. `camera`: is merged into the input."""
        hidden = hidden + self.encoding(hidden.shape[1], hidden.dtype)
        return self.to_out(self.mixed(self.to_qkv(camera.merged(hidden) if camera else hidden), scale))

    def encoding(self, frames: int, dtype: torch.dtype) -> Tensor:
        """Returns the positional encoding of the first frames, `(frames, channels)`."""
        return self.positional_encoding[:frames].to(dtype)

    def mixed(self, qkv: Tensor, scale: Scale) -> Tensor:
        """Returns the attention between both projections: `(pixels, frames, 3 × channels)`, which are queries, keys and values,
        to `(pixels, frames, channels)`.
        """
        count, frames, channels = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
        query, key, value = qkv.view(count, frames, 3, HEADS, channels // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        if isinstance(scale, Tensor):
            query = (query * scale[:, None, :, None]).to(query.dtype)
        elif scale != 1.0:
            query = query * scale
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
    """One motion layer, which acts after one block of the image UNet.

    A new one is the identity, because its output projection is zero (section 4.2 of the paper). `norms`: whether its group norm
    computes its statistics over each frame, or over all frames of a clip together.
    """

    def __init__(self, channels: int, length: int, attention_blocks: int = 2, norms: Norms = "per frame") -> None:
        super().__init__()
        self.norm_over_frames = norms == "over frames"
        self.tells_frames = False
        """Whether hooks on its linear layers need `frames_now`."""
        self.frames_now: Tensor | None = None
        """The number in the video of each frame that passes a linear layer now, `(pixels, frames)`."""
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
        """Returns `x`, `(rows, channels, height, width)`, with what the layer adds; `layout` says which row is which frame."""
        return x + self.residual(x, layout)

    def residual(
        self,
        x: Tensor,
        layout: RowLayout,
        scale: Scale = 1.0,
        windows: StepWindows | None = None,
        camera: LayerCamera | None = None,
    ) -> Tensor:
        """Returns what the layer adds to `x`. `scale` is that of its attentions; `windows` limits them to context windows;
        `camera` is merged into the input of the first one.

        `x` may be on another device than the layer, to which it is then moved chunk by chunk. A norm over frames is computed
        over all frames of a clip, whatever the windows.
        """
        clips = layout.to_clips(x).flatten(3)  # (clips, frames, channels, pixels)
        count, frames, channels = clips.shape[:3]
        slope, shift = (part.unsqueeze(3) for part in self._norm_of_clips(layout.to_clips(x)))
        device = self.proj_in.weight.device
        shape = torch.Size([1, frames]) if windows is None else windows.frames.shape
        pixels = max(pixels_per_pass(device, channels, shape.numel(), shape[0]) // count, 1)
        cameras = camera.in_chunks(pixels, device) if camera else repeat(None)
        mixed = []
        for chunk, camera_of_chunk in zip(clips.split(pixels, dim=3), cameras):
            normed = torch.addcmul(shift, chunk.to(device, torch.float32), slope).to(self.proj_in.weight.dtype)
            if self.tells_frames:
                self.frames_now = layout.numbers.to(device).repeat_interleave(chunk.shape[3], 0)
            of_pixels = scale.to(device).repeat_interleave(chunk.shape[3], 0) if isinstance(scale, Tensor) else scale
            tokens = normed.permute(0, 3, 1, 2).reshape(-1, frames, channels)
            hidden = self._mix_frames(tokens, of_pixels, windows, camera_of_chunk)
            mixed.append(hidden.view(count, -1, frames, channels).permute(0, 2, 3, 1).to(x.device))
        return layout.to_rows(torch.cat(mixed, dim=3).unflatten(3, x.shape[2:]))

    def _norm_of_clips(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the group norm as a linear function of each frame and channel: slope and shift, `(clips, frames, channels)`
        in float32.
        """
        weight, bias = self.norm.weight.float(), self.norm.bias.float()
        groups = clips.reshape(-1, NORM_GROUPS, clips.shape[2] // NORM_GROUPS * clips.shape[3:].numel())
        statistics = [
            torch.var_mean(rows.to(weight.device).float(), dim=2, correction=0) for rows in groups.split(ROWS_PER_NORM)
        ]
        variance, mean = (torch.cat(parts).view(*clips.shape[:2], NORM_GROUPS) for parts in zip(*statistics))
        if self.norm_over_frames:  # frames are of equal size: the mean variance plus the variance of the means
            between, mean_of_all = torch.var_mean(mean, dim=1, correction=0, keepdim=True)
            variance = (variance.mean(dim=1, keepdim=True) + between).expand_as(variance)
            mean = mean_of_all.expand_as(mean)
        variance, mean = (part.repeat_interleave(clips.shape[2] // NORM_GROUPS, dim=2) for part in (variance, mean))
        slope = weight * torch.rsqrt(variance + self.norm.eps)
        return slope, bias - mean * slope

    def _mix_frames(self, hidden: Tensor, scale: Scale, windows: StepWindows | None, camera: LayerCamera | None) -> Tensor:
        """Computes everything between the two permutations, `(pixels, frames, channels)` in and out."""
        hidden = self.proj_in(hidden)
        if windows is None:
            hidden = self._attended(hidden, scale, camera)
        else:
            hidden = self._attended_in_windows(hidden, scale, windows, camera)
        hidden = hidden + self.feed_forward(self.feed_forward_norm(hidden))
        return self.proj_out(hidden)

    def _attended(self, hidden: Tensor, scale: Scale, camera: LayerCamera | None) -> Tensor:
        for norm, attend in zip(self.attention_norms, self.attentions):
            hidden = hidden + attend(norm(hidden), scale, camera)
            camera = None  # the second attention has none
        return hidden

    def _attended_in_windows(
        self, hidden: Tensor, scale: Scale, step_windows: StepWindows, camera: LayerCamera | None
    ) -> Tensor:
        """Attends within each window, whose positions begin at 0, and blends the windows: FreeNoise, arXiv 2310.15169, 4.1.

        What is linear is computed once per frame and not once per window: the first projection, since that of a sum with the
        positional encoding is the sum of both projections, and the last one, since that of a blend is the blend of projections.
        """
        frames = step_windows.frames.to(hidden.device)

        def in_windows(of_frames: Tensor) -> Tensor:
            return of_frames[:, frames].flatten(0, 1)  # (pixels × windows, length, …)

        def blended(of_windows: Tensor) -> Tensor:  # (pixels, frames, channels)
            return step_windows.blended(of_windows.unflatten(0, (-1, len(frames))))

        length = frames.shape[1]
        scale = in_windows(scale) if isinstance(scale, Tensor) else scale
        if self.frames_now is not None:  # what is linear differs from frame to frame, also for positional encodings
            with patched(self, "frames_now", in_windows(self.frames_now)):
                of_windows = replace(camera, features=in_windows(camera.features)) if camera else None
                return blended(self._attended(in_windows(hidden), scale, of_windows))
        attentions, norms = cast(list[TemporalAttention], [*self.attentions]), [*self.attention_norms]
        first, last = attentions[0], attentions[-1]
        normed, positions = norms[0](hidden), first.encoding(length, hidden.dtype)
        if camera:
            normed, positions = camera.merged(normed), camera.merged_positions(positions)
        qkv = in_windows(first.to_qkv(normed)) + first.to_qkv(positions)
        windows, mixed = in_windows(hidden), first.mixed(qkv, scale)
        for before, norm, attend in zip(attentions, norms[1:], attentions[1:]):
            windows = windows + before.to_out(mixed)
            mixed = attend.mixed(attend.to_qkv(norm(windows) + attend.encoding(length, hidden.dtype)), scale)
        return blended(windows) + last.to_out(blended(mixed))


class MotionModule(nn.Module):
    """All motion layers of one file, by the UNet block that they follow: `"down_0_1"`, `"mid_0"`, `"up_3_2"`.

    `condition_kernel`: for PIA, the weights `(channels, 5, 3, 3)` of the UNet's first convolution for mask and condition image.
    `image_encoder`: that of AnimateLCM-I2V.
    """

    condition_kernel: Tensor | None

    def __init__(
        self,
        channels: dict[str, int],
        length: int,
        *,
        takes_condition: bool = False,
        image_encoder: ImageEncoder | None = None,
        norms: Norms = "per frame",
    ) -> None:
        """`channels`: the number of channels of each block. `length`: rows of the positional encoding, and so the most frames
        that attend to each other. `takes_condition`: whether it is PIA's. `norms`: see `TemporalTransformer`.
        """
        super().__init__()
        self.length = length
        kernel = torch.zeros(channels["down_0_0"], 5, 3, 3) if takes_condition else None
        self.register_buffer("condition_kernel", kernel)
        self.image_encoder = image_encoder
        self.layers = nn.ModuleDict(
            {block: TemporalTransformer(count, length, norms=norms) for block, count in channels.items()}
        )

    @property
    def channels(self) -> dict[str, int]:
        """The number of channels of each block."""
        return {block: layer.norm.num_channels for block, layer in self.layers.items()}  # type: ignore[union-attr,misc]
