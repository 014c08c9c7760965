"""SparseCtrl in one job: pictures at some frames of the clip steer all of them, on every WebUI and without ControlNet."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np
import torch
from modules import devices, images, sd_samplers_common, shared
from PIL import Image, ImageOps
from torch import Tensor

from motion_module.attach import LayoutOf
from motion_module.context_windows import StepWindows
from motion_module.families import SIDE_OF_LATENT
from motion_module.sparse_control import SparseControl, controlled, require_sparse_fit
from motion_module.sparse_ctrl import MOST_FRAMES

from ..controlnet import marks
from ..errors import AnimateDiffError, RequestError
from ..interrupt import is_stopping
from ..request import sparse_files
from ..request.plan import Plan, SparseChoice
from ..request.source_video import background
from .resume_store import seeded

Size = tuple[int, int]
"""The height and width of latents."""


def require_possible(plan: Plan) -> None:
    """Raises RequestError for what SparseCtrl cannot do, whatever the checkpoint."""
    if not plan.sparse:
        return
    name = plan.sparse[0].path.name
    if plan.family.base != "SD 1.5":
        raise RequestError(
            f"The SparseCtrl model {name} is made for SD 1.5, but the motion module {plan.module.path.name} for "
            f"{plan.family.base}. Choose a motion module for SD 1.5, such as v3_sd15_mm.ckpt, or no SparseCtrl model."
        )
    if (attended := plan.windows.attended_frames) > MOST_FRAMES:
        raise RequestError(
            f"SparseCtrl takes {MOST_FRAMES} frames at once, but the context length (batch_size) is {attended}. Set it to "
            f"{MOST_FRAMES} or less."
        )


class SparseControls:
    """The SparseCtrl models of one job. Without any it does nothing."""

    def __init__(self, p: Any, plan: Plan) -> None:
        self._p = p
        self._chosen = plan.sparse
        self._weights = plan.sparse_weights
        self._latents: dict[tuple[int, Size], Tensor] = {}

    def require_fit(self, unet: Any) -> None:
        """Raises UnsuitableUNet where a model does not fit the checkpoint."""
        for choice in self._chosen:
            require_sparse_fit(unet, choice.shape, choice.path.name)

    def encode(self) -> None:
        """Makes latents of the pictures, once for each size, before anything is sampled: later the VAE may be off the device.

        The noise of the VAE comes from the seed, so that the same request gives the same clip.
        """
        for index, choice in enumerate(self._chosen):
            for size in self._sizes() if choice.shape.kind == "RGB" else ():
                if (index, size) not in self._latents:
                    shared.state.textinfo = "AnimateDiff: encoding the pictures for SparseCtrl"
                    with seeded(self._p.all_seeds[0]):
                        self._latents[index, size] = torch.cat([_encoded(picture, size) for picture in choice.pictures])

    def applied_to(
        self,
        unet: Any,
        layout_of: LayoutOf,
        progress: Callable[[], float],
        step_windows: Callable[[], StepWindows] | None,
    ) -> AbstractContextManager[None]:
        """While open, the models act in `unet`. The arguments are those of `controlled`.

        The prompts that they see are without ControlNet's marks, whose numbers are far larger than those of words.
        """
        networks = sparse_files.read(tuple(choice.path for choice in self._chosen))
        controls = [
            SparseControl(
                network,
                choice.frames,
                partial(self._pictures, index, choice),
                choice.facts.strength,
                choice.facts.start,
                choice.facts.end,
                self._weights,
            )
            for index, (network, choice) in enumerate(zip(networks, self._chosen))
        ]
        return controlled(unet, controls, layout_of, progress, step_windows, marks.removed)

    def nbytes(self, dtype: torch.dtype) -> int:
        """Returns how much memory the models take on the device."""
        networks = sparse_files.read(tuple(choice.path for choice in self._chosen))
        return sum(weight.numel() for network in networks for weight in network.parameters()) * dtype.itemsize

    def facts(self) -> list[Any]:
        """Returns what decides how the models act, besides their pictures."""
        return [
            [choice.facts.model, choice.frames, choice.facts.strength, choice.facts.start, choice.facts.end, self._weights]
            for choice in self._chosen
        ]

    def let_go(self) -> None:
        """Forgets the latents of the pictures."""
        self._latents.clear()

    def _sizes(self) -> list[Size]:
        """Returns the sizes of the latents of both passes."""
        p = self._p
        sizes = [(p.height // SIDE_OF_LATENT, p.width // SIDE_OF_LATENT)]
        if getattr(p, "enable_hr", False):
            sizes.append((p.hr_upscale_to_y // SIDE_OF_LATENT, p.hr_upscale_to_x // SIDE_OF_LATENT))
        return sizes

    def _pictures(self, index: int, choice: SparseChoice, height: int, width: int) -> Tensor:
        """Returns the pictures of a model as it takes them, for latents of a size."""
        high, wide = height * SIDE_OF_LATENT, width * SIDE_OF_LATENT
        if choice.shape.kind == "scribble":
            return torch.cat([_levels(picture, (high, wide)) for picture in choice.pictures])
        if (found := self._latents.get((index, (height, width)))) is None:
            raise AnimateDiffError(
                f"The UNet was called for {wide}×{high} pixels, which is not the size of the video, so "
                "SparseCtrl has no pictures of that size. Switch off other extensions that work in tiles or change the size."
            )
        return found


def _encoded(picture: Image.Image, size: Size) -> Tensor:
    """Returns the latents of a picture, `(1, 4, height, width)`, on the CPU."""
    if is_stopping():
        raise AnimateDiffError("Encoding the pictures for SparseCtrl was interrupted, so there is no video. Generate again.")
    height, width = size
    levels = _levels(picture, (height * SIDE_OF_LATENT, width * SIDE_OF_LATENT)).to(devices.device)
    return sd_samplers_common.images_tensor_to_samples(levels, None, shared.sd_model).detach().float().cpu()


def _levels(picture: Image.Image, size: Size) -> Tensor:
    """Returns a picture, cropped to a height and width in pixels, as levels from 0 to 1, `(1, 3, height, width)`."""
    height, width = size
    shown = ImageOps.fit(images.flatten(picture, background()), (width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(shown, dtype=np.float32) / 255).permute(2, 0, 1)[None]
