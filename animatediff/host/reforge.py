"""reForge and Classic, whose package is `ldm_patched`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from modules import sd_models
from torch import nn

from motion_module.noise_schedule import NoiseSchedule
from motion_module.patching import patched

from .ldm import within
from .unet_patcher import UNetPatcherHost


class ReForge(UNetPatcherHost):
    """The model in the patcher is a `BaseModel`. Samplers read the noise schedule from `sd_model` too."""

    def holds(self, model: Any) -> bool:
        return hasattr(getattr(getattr(model, "forge_objects", None), "unet", None), "model") and hasattr(
            model.forge_objects.unet.model, "model_sampling"
        )

    def dtype(self, model: Any) -> torch.dtype:
        """Returns the dtype of computation: weights may be stored in another one."""
        asked = model.forge_objects.unet.model
        found: torch.dtype = getattr(asked, "manual_cast_dtype", None) or asked.get_dtype()
        return found

    def sigmas_of(self, model: Any) -> nn.Module:
        sampling: nn.Module = model.forge_objects.unet.model.model_sampling
        return sampling

    @contextmanager
    def noise_schedule(self, model: Any, schedule: NoiseSchedule, p: Any) -> Iterator[None]:
        with super().noise_schedule(model, schedule, p):
            # not made from sigmas: the first steps would lose the last digits of a number near 1
            alphas = self._alphas_for(model, schedule).to(model.alphas_cumprod)
            with patched(model, "alphas_cumprod", alphas):
                yield

    @contextmanager
    def checkpoint_swaps(self, around: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
        with patched(sd_models, "reload_model_weights", within(around, sd_models.reload_model_weights)):
            yield
