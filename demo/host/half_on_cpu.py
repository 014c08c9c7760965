"""Half precision on CPUs that have no instructions for it: there, torch's kernels take 10 to 100 times as long as in single."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

HALF = (torch.float16, torch.bfloat16)


def make_fast() -> None:
    """Has linear layers and convolutions add up in single precision and round the result, as a GPU does."""
    F.linear, F.conv2d = _rounded(F.linear), _rounded(F.conv2d)


def _rounded(compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def computed(x: Tensor, weight: Tensor, bias: Tensor | None = None, *args: Any, **named: Any) -> Tensor:
        unlike = weight.dtype != x.dtype or (bias is not None and bias.dtype != x.dtype)
        if x.dtype not in HALF or unlike:  # torch refuses what is unlike
            return compute(x, weight, bias, *args, **named)
        bias = None if bias is None else bias.float()
        return compute(x.float(), weight.float(), bias, *args, **named).to(x.dtype)

    return computed
