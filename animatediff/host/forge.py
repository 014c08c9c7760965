"""Forge and Forge Neo, whose package is `backend`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from modules import sd_models
from torch import nn

from motion_module.patching import patched

from .ldm import within
from .unet_patcher import UNetPatcherHost


class Forge(UNetPatcherHost):
    """The model in the patcher is a `KModel`. There is no `sd_model.model`."""

    def holds(self, model: Any) -> bool:
        return hasattr(getattr(getattr(model, "forge_objects", None), "unet", None), "model") and hasattr(
            model.forge_objects.unet.model, "predictor"
        )

    def dtype(self, model: Any) -> torch.dtype:
        """Returns the dtype of computation: weights may be stored in another one, such as fp8 or GGUF's."""
        found: torch.dtype = model.forge_objects.unet.model.computation_dtype
        return found

    def sigmas_of(self, model: Any) -> nn.Module:
        predictor: nn.Module = model.forge_objects.unet.model.predictor
        return predictor

    @contextmanager
    def checkpoint_swaps(self, around: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
        with patched(sd_models, "forge_model_reload", within(around, sd_models.forge_model_reload)):
            yield
