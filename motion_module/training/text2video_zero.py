"""Text2Video-Zero (Khachatryan et al., arXiv 2303.13439): clips from an image model alone, as a baseline.

The first frame is denoised for some steps (section 3.3.1). The other frames are copies of its latents, shifted along a line.
These are noised again so that they can differ, and then all frames are denoised together; all of them attend to the first frame
(section 3.3.2).
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..noise_schedule import STABLE_DIFFUSION
from ..self_attention import self_attention_over
from .sampling import ddim, guided, timesteps

MOVED_AT, NOISED_TO = 881, 941
"""The timesteps of the paper at which the first frame is copied, and to which its copies are noised again."""
SHIFT = 12 / 512
"""How far each frame is shifted to the right and down, as a fraction of its side: 12 pixels of 512 in the paper."""


def text2video_zero_clip(
    unet: nn.Module, condition: Tensor, unconditional: Tensor, noise: Tensor, *, frames: int, scale: float, steps: int = 50
) -> Tensor:
    """Returns the latents `(frames, 4, height, width)` of a clip.

    `condition`, `unconditional`: `(1, tokens, width)`. `noise`: `(frames, 4, height, width)`; the first row is the initial
    noise of the first frame, the others are added to its copies. `scale`: of the guidance.
    """
    times = timesteps(STABLE_DIFFUSION, steps)
    moved, noised = (min(range(steps), key=lambda index: abs(times[index] - time)) for time in (MOVED_AT, NOISED_TO))
    predict = guided(unet, condition, unconditional, scale)
    first = ddim(predict, noise[:1], STABLE_DIFFUSION, times[: noised + 1])
    later = ddim(predict, first, STABLE_DIFFUSION, times[noised : moved + 1])
    alphas = STABLE_DIFFUSION.alphas_cumprod()
    signal = (alphas[times[noised]] / alphas[times[moved]]).item()  # what is left of it after noising again
    copies = [shifted(later, SHIFT * index) for index in range(1, frames)]
    others = [signal**0.5 * copy + (1 - signal) ** 0.5 * other for copy, other in zip(copies, noise[1:].split(1))]
    predict = guided(unet, condition.expand(frames, -1, -1), unconditional, scale)
    with self_attention_over(unet, partial(_first_frames, frames=frames)):
        return ddim(predict, torch.cat([first, *others]), STABLE_DIFFUSION, times[noised:])


def shifted(latents: Tensor, fraction: float) -> Tensor:
    """Returns latents shifted to the right and down by a fraction of their sides; what enters is mirrored at the edge."""
    rows = len(latents)
    grid = F.affine_grid(torch.eye(2, 3).expand(rows, -1, -1), list(latents.shape), align_corners=False).to(latents)
    return F.grid_sample(latents, grid - 2 * fraction, mode="nearest", padding_mode="reflection", align_corners=False)


def _first_frames(_attention: nn.Module, tokens: Tensor, frames: int) -> Tensor:
    """Returns for each row the tokens of the first frame of its clip."""
    clips = tokens.unflatten(0, (-1, frames))
    return clips[:, :1].expand_as(clips).flatten(0, 1)
