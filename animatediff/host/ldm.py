"""AUTOMATIC1111 and the WebUIs that hold a checkpoint as it does: as a model of LDM or SGM."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from modules import devices, sd_models
from torch import Tensor, nn

from motion_module.noise_schedule import NoiseSchedule
from motion_module.patching import patched
from motion_module.row_layout import RowLayout, layout_of_call
from motion_module.step_reuse import NEGATIVE
from motion_module.windowed_unet import ArgumentsOfRows, arguments_of_rows


class Ldm:
    """`sd_model.model` is LDM's `DiffusionWrapper`, and `sd_model.model.diffusion_model` its UNet."""

    def holds(self, model: Any) -> bool:
        return hasattr(getattr(model, "model", None), "diffusion_model")

    def unet(self, model: Any) -> Any:
        return model.model.diffusion_model

    def unet_calls(self, model: Any) -> nn.Module:
        """Returns the wrapper: other extensions replace the UNet's own `forward`."""
        wrapper: nn.Module = model.model
        return wrapper

    def arguments_of_rows(self) -> ArgumentsOfRows:
        return arguments_of_rows

    def dtype(self, model: Any) -> torch.dtype:
        return devices.dtype_unet

    def layout_of_call(self, rows: int, frames: int, parts: int) -> RowLayout:
        return layout_of_call(rows, frames, parts)

    def conditions_of_call(
        self, rows: int, frames: int, parts: int, named: dict[str, Any], had: Sequence[int]
    ) -> Sequence[int] | None:
        """A step has the parts of the prompt, then the negative prompt if it is not left out, in one call or in several."""
        conditions = [*range(parts), NEGATIVE][len(had) :][: rows // frames]
        return conditions if conditions and rows == len(conditions) * frames else None

    def options_for_parts(self, parts: int) -> dict[str, bool]:
        """Returns the settings with which the WebUI does not split a clip over several UNet calls.

        Prompts joined by AND come frame by frame, all parts of each, and calls are cut by row count. With cond and uncond in
        one batch two parts always stay whole; more than two also need the negative prompt to be as long as the prompt.
        """
        names = ("batch_cond_uncond", "pad_cond_uncond")
        return dict.fromkeys(names[: min(parts - 1, len(names))], True)

    def alphas_cumprod(self, model: Any) -> Tensor:
        found: Tensor = model.alphas_cumprod
        return found

    @contextmanager
    def noise_schedule(self, model: Any, schedule: NoiseSchedule, p: Any) -> Iterator[None]:
        """It is a new tensor each time, because a reload of weights copies into whatever tensor it finds."""
        own = schedule.alphas_cumprod().to(model.alphas_cumprod.device)
        with patched(model, "alphas_cumprod", model.alphas_cumprod), patched(model, "alphas_cumprod_original", own):
            sd_models.apply_alpha_schedule_override(model, p)
            yield

    @contextmanager
    def checkpoint_swaps(self, around: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
        with patched(sd_models, "reload_model_weights", within(around, sd_models.reload_model_weights)):
            yield

    @contextmanager
    def vector_replaced(self, model: Any, replaced: Callable[[Tensor], Tensor]) -> Iterator[None]:
        whole = model.model.forward

        def forward(x: Tensor, timesteps: Tensor, conditions: dict[str, Any], **named: Any) -> Tensor:
            found: Tensor = whole(x, timesteps, {**conditions, "vector": replaced(conditions["vector"])}, **named)
            return found

        with patched(model.model, "forward", forward):
            yield

    @contextmanager
    def guidance(self, model: Any, denoiser: Any, scales: tuple[float, ...]) -> Iterator[None]:
        """A frame's scale is multiplied with the weights of its prompt's parts, as the WebUI does with one scale for all."""
        combine, multiplier = denoiser.combine_denoised, getattr(denoiser, "cond_scale_miltiplier", 1.0)

        def combined(x_out: Tensor, parts: Any, uncond: Any, cond_scale: float) -> Tensor:
            if cond_scale != 1.0:
                parts = [[(row, weight * scale) for row, weight in of] for of, scale in zip(parts, scales)]
                cond_scale = multiplier
            found: Tensor = combine(x_out, parts, uncond, cond_scale)
            return found

        with ExitStack() as stack:
            stack.enter_context(patched(denoiser, "combine_denoised", combined))
            if (edited := getattr(denoiser, "combine_denoised_for_edit_model", None)) is not None:  # InstructPix2Pix
                of_frames = torch.tensor(scales).view(-1, 1, 1, 1) * multiplier
                stack.enter_context(
                    patched(denoiser, "combine_denoised_for_edit_model", lambda x_out, _: edited(x_out, of_frames.to(x_out)))
                )
            yield

    def size_width(self, model: Any) -> int:
        width: int = model.conditioner.embedders[-1].outdim
        return width

    def memory(self, model: Any, rows: int, extra: int) -> AbstractContextManager[None]:
        return nullcontext()


def within(around: Callable[[], AbstractContextManager[None]], function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that runs another one within `around()`."""

    def run(*args: Any, **kwargs: Any) -> Any:
        with around():
            return function(*args, **kwargs)

    return run
