"""Computes the memory of tensors from their shapes, for programs and tests that run on fake tensors."""

from __future__ import annotations

import weakref
from collections import Counter
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GIB = 2**30


class Alive(TorchDispatchMode):
    """Counts the bytes of all tensors that are created while it is open, by device type: `now`, and at the peak (`most`).

    Views are not counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        given = {id(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for tensor in tree_leaves(made):
            if not isinstance(tensor, Tensor) or id(storage := tensor.untyped_storage()) in given | set(map(id, self._known)):
                continue
            self._known.add(storage)
            self._add(tensor.device.type, storage.nbytes())
            weakref.finalize(storage, self._add, tensor.device.type, -storage.nbytes())
        return made

    def _add(self, device: str, count: int) -> None:
        self.now[device] += count
        self.most[device] = max(self.most[device], self.now[device])


def fused(attention: Any, x: Tensor, context: Tensor | None = None, mask: None = None) -> Tensor:
    """Computes the forward pass of LDM's `CrossAttention` with PyTorch's fused attention."""
    projected = (
        attention.to_q(x),
        attention.to_k(x if context is None else context),
        attention.to_v(x if context is None else context),
    )
    query, key, value = (part.unflatten(2, (attention.heads, -1)).transpose(1, 2) for part in projected)
    return attention.to_out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


@cache
def card() -> torch.device:
    """Returns a second device besides the CPU for fake tensors, since torch without CUDA has no fake CUDA tensors.

    It needs torch 2.9. It cannot be removed from the process again, and training would try to use it there.
    """
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend("card")
    return torch.device("card", 0)
