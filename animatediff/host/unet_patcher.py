"""What Forge and reForge have in common: a `UnetPatcher` around the UNet, and calls that have whole clips one after another."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch
from modules import shared
from torch import Tensor, nn

from motion_module.noise_schedule import NoiseSchedule, to_zero_terminal_snr
from motion_module.patching import patched, patched_items
from motion_module.row_layout import RowLayout
from motion_module.step_reuse import NEGATIVE
from motion_module.windowed_unet import ArgumentsOfRows, arguments_of_rows

SIZE_WIDTH = 256
"""What SDXL was published with; both WebUIs have it as a constant."""
PROMPT = 0
"""The mark of a prompt in `cond_or_uncond`; that of a negative prompt is 1."""


class ScalesOfFrames(Tensor):
    """A CFG scale for each frame, which the WebUI compares with 1 as if it were one number."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # results are plain tensors
    as_number: float

    @classmethod
    def of(cls, scales: tuple[float, ...], x: Tensor, as_number: float) -> ScalesOfFrames:
        """`x`: the frames, `(frames, …)`, each of which is multiplied with its scale. `as_number`: the WebUI's own scale."""
        made = torch.tensor(scales, dtype=x.dtype, device=x.device).view(-1, *[1] * (x.ndim - 1)).as_subclass(cls)
        made.as_number = as_number
        return made

    def __float__(self) -> float:
        return self.as_number


class UNetPatcherHost:
    """`sd_model.forge_objects.unet` is a `UnetPatcher`, its `model` has the UNet and the noise schedule."""

    def unet(self, model: Any) -> Any:
        return model.forge_objects.unet.model.diffusion_model

    def unet_calls(self, model: Any) -> nn.Module:
        unet: nn.Module = self.unet(model)
        return unet

    def arguments_of_rows(self) -> ArgumentsOfRows:
        return _arguments_of_rows

    def layout_of_call(self, rows: int, frames: int, parts: int) -> RowLayout:
        """Returns whole clips, one after another: negative prompt, then the parts of the prompt, in one call or in several."""
        return RowLayout(frames, rows)

    def conditions_of_call(
        self, rows: int, frames: int, parts: int, named: dict[str, Any], had: Sequence[int]
    ) -> Sequence[int] | None:
        """The call says which of its clips are of prompts, unless it has each of them several times, for tiles.

        A call after those of all parts of the prompt is another extension's, such as that of perturbed attention.
        """
        marks = (named.get("transformer_options") or {}).get("cond_or_uncond")
        if marks is None or rows != len(marks) * frames:
            return None
        next_part = count(sum(condition != NEGATIVE for condition in had))
        conditions = [next(next_part) if mark == PROMPT else NEGATIVE for mark in marks]
        return conditions if max(conditions) < parts else None

    def options_for_parts(self, parts: int) -> dict[str, bool]:
        """Returns none: only whole clips are split over calls."""
        return {}

    def sigmas_of(self, model: Any) -> nn.Module:
        """Returns the module with the buffers `sigmas` and `log_sigmas`."""
        raise NotImplementedError

    def alphas_cumprod(self, model: Any) -> Tensor:
        sigmas: Tensor = self.sigmas_of(model).sigmas  # type: ignore[assignment]
        return 1 / (sigmas**2 + 1)

    @contextmanager
    def noise_schedule(self, model: Any, schedule: NoiseSchedule, p: Any) -> Iterator[None]:
        holder, alphas = self.sigmas_of(model), self._alphas_for(model, schedule)
        sigmas = ((1 - alphas) / alphas).sqrt().to(holder.sigmas)  # type: ignore[arg-type]
        with patched(holder, "sigmas", sigmas), patched(holder, "log_sigmas", sigmas.log()):
            yield

    def _alphas_for(self, model: Any, schedule: NoiseSchedule) -> Tensor:
        """Returns the schedule as the WebUI's settings change it."""
        alphas = schedule.alphas_cumprod()
        return to_zero_terminal_snr(alphas) if self._to_zero(model) else alphas

    @staticmethod
    def _to_zero(model: Any) -> bool:
        """Whether the last timestep is to be noise alone (zero terminal SNR)."""
        of_checkpoint = getattr(model, "ztsnr", False) or getattr(getattr(model, "model_config", None), "ztsnr", False)
        return bool(of_checkpoint) or shared.opts.data.get("sd_noise_schedule") == "Zero Terminal SNR"

    @contextmanager
    def guidance(self, model: Any, denoiser: Any, scales: tuple[float, ...]) -> Iterator[None]:
        """The WebUI multiplies with the scale that the last of these modifiers returns."""
        options = model.forge_objects.unet.model_options

        def of_frames(*arguments: Any) -> tuple[Any, ...]:
            model, x, timestep, uncond, cond, cond_scale, others, seed = arguments
            if not math.isclose(cond_scale, 1.0):
                cond_scale = ScalesOfFrames.of(scales, x, cond_scale)
            return model, x, timestep, uncond, cond, cond_scale, others, seed

        modifiers = [*options.get("conditioning_modifiers", ()), of_frames]
        with patched_items(options, {"conditioning_modifiers": modifiers}):
            yield

    @contextmanager
    def vector_replaced(self, model: Any, replaced: Callable[[Tensor], Tensor]) -> Iterator[None]:
        unet = self.unet(model)
        whole = unet.forward

        def forward(*args: Any, y: Tensor, **named: Any) -> Tensor:
            found: Tensor = whole(*args, y=replaced(y), **named)
            return found

        with patched(unet, "forward", forward):
            yield

    def size_width(self, model: Any) -> int:
        return SIZE_WIDTH

    @contextmanager
    def memory(self, model: Any, rows: int, extra: int) -> Iterator[None]:
        """It asks its model how much memory a call needs, before sampling and before each call, and unloads others for it."""
        asked = model.forge_objects.unet.model
        for_shape = asked.memory_required

        def memory_required(input_shape: list[int], *args: Any, **named: Any) -> float:
            needed: float = for_shape([min(input_shape[0], rows), *input_shape[1:]], *args, **named)
            return needed + extra

        with patched(asked, "memory_required", memory_required):
            yield


def _arguments_of_rows(arguments: Any, chosen: Tensor, rows: int, frames: int) -> Any:
    """Selects rows also from what `transformer_options` says about them: which are of prompts, and which of negative ones.

    `cond_or_uncond` has a mark for each condition, which the call has once, or once for each tile of the picture. Where another
    extension calls the UNet with one of the conditions, it says nothing about the rows.
    """
    found = arguments_of_rows(arguments, chosen, rows, frames)
    options = isinstance(found, dict) and found.get("transformer_options")
    if not options or "cond_or_uncond" not in options:
        return found
    marks, of_condition = torch.tensor(options["cond_or_uncond"]), len(options["sigmas"])
    if rows % (len(marks) * of_condition):
        return found
    of_rows = marks[torch.arange(rows) // of_condition % len(marks)][chosen]
    has_tiles = rows > len(marks) * of_condition
    found["transformer_options"] = {
        **options,
        "cond_or_uncond": options["cond_or_uncond"] if has_tiles else of_rows[::frames].tolist(),
        "cond_indices": (of_rows == PROMPT).nonzero().flatten().tolist(),
        "uncond_indices": (of_rows != PROMPT).nonzero().flatten().tolist(),
        "cond_mark": of_rows.to(options["sigmas"]),  # on the device of the call
        "sigmas": options["sigmas"][:frames],
    }
    return found
