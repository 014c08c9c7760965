"""What AnimateDiff needs of a WebUI's loaded checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from motion_module.noise_schedule import NoiseSchedule
from motion_module.row_layout import RowLayout
from motion_module.windowed_unet import ArgumentsOfRows


class Host(Protocol):
    """One way in which WebUIs hold a checkpoint. `model` is always `shared.sd_model`."""

    def holds(self, model: Any) -> bool:
        """Whether a checkpoint is held in this way."""
        ...

    def unet(self, model: Any) -> Any:
        """Returns the UNet, with LDM's `input_blocks`, `middle_block`, `output_blocks` and `out`."""
        ...

    def unet_calls(self, model: Any) -> nn.Module:
        """Returns the module through whose `forward` every call of the UNet goes.

        Its first argument is `(rows, channels, height, width)`; it returns the predicted noise.
        """
        ...

    def arguments_of_rows(self) -> ArgumentsOfRows:
        """Returns what selects rows from the arguments of such a call."""
        ...

    def dtype(self, model: Any) -> torch.dtype:
        """Returns the dtype in which the UNet computes."""
        ...

    def layout_of_call(self, rows: int, frames: int, parts: int) -> RowLayout:
        """Returns which row of a UNet call is which frame; `parts`: how many prompts each frame has, joined by AND.

        Raises RowLayoutError.
        """
        ...

    def conditions_of_call(
        self, rows: int, frames: int, parts: int, named: dict[str, Any], had: Sequence[int]
    ) -> Sequence[int] | None:
        """Returns the condition of each clip of a UNet call: a part of the prompt from 0, or `NEGATIVE`; None if not known.

        `named`: the named arguments of the call. `had`: the conditions that the step has had in earlier calls.
        """
        ...

    def options_for_parts(self, parts: int) -> dict[str, bool]:
        """Returns the settings with which the WebUI does not split a clip over several UNet calls."""
        ...

    def alphas_cumprod(self, model: Any) -> Tensor:
        """Returns the noise schedule in use: the fraction of variance that is signal, by timestep."""
        ...

    def noise_schedule(self, model: Any, schedule: NoiseSchedule, p: Any) -> AbstractContextManager[None]:
        """While open, the checkpoint has another noise schedule. The WebUI's settings, such as zero terminal SNR, act on it."""
        ...

    def checkpoint_swaps(self, around: Callable[[], AbstractContextManager[None]]) -> AbstractContextManager[None]:
        """While open, the WebUI loads another checkpoint, such as a refiner, within `around()`."""
        ...

    def vector_replaced(self, model: Any, replaced: Callable[[Tensor], Tensor]) -> AbstractContextManager[None]:
        """While open, the UNet of an SDXL checkpoint gets `replaced(vector)`, `(rows, width)`: pooled text, then sizes."""
        ...

    def size_width(self, model: Any) -> int:
        """Returns how many numbers of that vector each of the six sizes is embedded in."""
        ...

    def guidance(self, model: Any, denoiser: Any, scales: tuple[float, ...]) -> AbstractContextManager[None]:
        """While open, each frame has its own CFG scale. `denoiser`: the sampler's, in one of its steps.

        The WebUI's own scale must not be 1. It passes 1 where a step leaves out the negative prompt, which stays so.
        """
        ...

    def memory(self, model: Any, rows: int, extra: int) -> AbstractContextManager[None]:
        """While open, the WebUI reserves memory for `rows` rows at most and for `extra` bytes, where it reserves any."""
        ...
