"""The initial noise of the frames of a clip: each frame has its own, or frames share noise to be more alike.

Noise is generated from seeds, so frames with the same noise have the same seed. Samplers need no other change.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

NoiseType = Literal["per frame", "constant", "mixed", "repeated context", "FreeNoise"]


def seeds_of(mode: NoiseType, first: int, frames: int, window: int, advance: int) -> list[int]:
    """Returns the seed of each frame; frame 0 has `first`, as a single image would.

    "per frame" and "mixed": each frame has its own. "constant": all frames share one. "repeated context": the seeds of the
    first `window` frames repeat. "FreeNoise" (arXiv 2310.15169, section 4.2; reference: arthur-qiu/LongerCrafter): they
    repeat too, but each run of `advance` seeds (the distance between windows) is shuffled every time.
    """
    own = [first + frame for frame in range(frames)]
    if mode == "constant":
        return [first] * frames
    if mode == "repeated context":
        return [own[frame % window] for frame in range(frames)]
    if mode == "FreeNoise":
        draw, seeds = np.random.default_rng(first), own[:window]
        while len(seeds) < frames:
            again = seeds[len(seeds) - window :][:advance]
            seeds += [again[index] for index in draw.permutation(len(again))]
        return seeds[:frames]
    return own


def noise_for_seeds(like: Tensor, seeds: list[int], number: int = 0) -> Tensor:
    """Returns noise `(frames, channels, height, width)` for the seeds of frames; each `number` gives different noise.

    It is independent of the noise that a sampler draws from the same seeds. Dtype and device are those of `like`.
    """
    draws = [torch.Generator().manual_seed((int(seed) + (number + 1) * 1_000_003) % 2**63) for seed in seeds]
    return torch.stack([torch.randn(like.shape[1:], generator=draw) for draw in draws]).to(like)
