"""Context windows over the whole UNet: each window passes through it separately, and the predicted noise is blended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .context_windows import ContextWindows
from .patching import patched
from .row_layout import RowLayout
from .vram import WindowBudget, is_lack_of_memory

ArgumentsOfRows = Callable[[Any, Tensor, int, int], Any]
"""Selects rows from the arguments of a UNet call: the arguments, the chosen rows, all rows, the chosen rows of each clip."""


@dataclass(frozen=True)
class Part:
    """The rows of a whole call that go into the call of some windows.

    `rows`: how many the whole call has. `chosen`: the numbers of those in this part, one clip after another. `frames`: the
    frame of each chosen row of a clip.
    """

    rows: int
    chosen: Tensor
    frames: Tensor


Around = Callable[[Part], AbstractContextManager[None]]
"""Returns what goes around the call of a part."""


def nothing_around() -> Around:
    """Begins a call around whose parts nothing is to be done."""
    return lambda _part: nullcontext()


class WindowedUNet:
    """Splits each call of a UNet into calls for its context windows.

    `step`: returns the number of the running sampling step. `layout_of`: returns the layout of a whole call from its number of
    rows. `budget`: how many windows one call may have; without it, one. `before_call`: called before each call; it may raise
    to end the sampling, such as when the user interrupts. `arguments_of`: selects rows from the arguments of a call.
    `begin_call`: called at the start of each whole call; it returns what goes around the calls of its parts. `repeatable`:
    returns whether a call that has failed can be made again.
    """

    def __init__(
        self,
        windows: ContextWindows,
        step: Callable[[], int],
        layout_of: Callable[[int], RowLayout],
        budget: WindowBudget | None = None,
        *,
        before_call: Callable[[], None] = lambda: None,
        arguments_of: ArgumentsOfRows | None = None,
        begin_call: Callable[[], Around] = nothing_around,
        repeatable: Callable[[], bool] = lambda: True,
    ) -> None:
        self._windows = windows
        self._step = step
        self._layout_of_clip = layout_of
        self._budget = budget or WindowBudget(torch.device("cpu"))
        self._before_call = before_call
        self._arguments_of = arguments_of or arguments_of_rows
        self._begin_call = begin_call
        self._repeatable = repeatable
        self._layout_of_windows: RowLayout | None = None
        self.windows_in_call = 0
        """How many windows the running call has. Where they do not fit into memory, half of them are tried."""

    def layout_of(self, rows: int) -> RowLayout:
        """Returns the layout of the call that the UNet is in: of some windows, or of the whole clip."""
        return self._layout_of_windows or self._layout_of_clip(rows)

    @contextmanager
    def applied_to(self, model: Any) -> Iterator[None]:
        """While open, calls of `model` are split. Its first argument is `(rows, channels, height, width)`.

        Other arguments are split too if they have as many rows. The model may return fewer channels than it is given, as one
        for inpainting does.
        """
        forward_whole = model.forward

        def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            return self._blended(forward_whole, x, args, kwargs)

        with patched(model, "forward", forward):
            yield

    def _blended(self, forward: Callable[..., Tensor], x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        layout = self._layout_of_clip(len(x))
        rows = layout.to_clips(torch.arange(len(x)))  # (clips, frames): the row of each frame
        windows = self._windows.at(self._step())
        length = windows.frames.shape[1]
        size, first = (len(rows) * length, *x.shape[1:]), 0
        results: list[Tensor] = []
        around = self._begin_call()
        while first < len(windows.frames):
            self._before_call()
            frames = windows.frames[first : first + self._budget.windows(size)]
            chosen = rows[:, frames].flatten()  # all windows of the first clip, then those of the next, as in a plain batch
            given, named = (self._arguments_of(given, chosen, len(x), frames.numel()) for given in ((x, *args), kwargs))
            try:
                with around(Part(len(x), chosen, frames.flatten())), self._budget.measuring(size):
                    noise = self._of_windows(frames, len(rows), forward, *given, **named)
            except RuntimeError as error:
                if len(frames) == 1 or not is_lack_of_memory(error) or not self._repeatable():
                    raise
                self._budget.halve(size)
                continue
            results.append(noise.unflatten(0, (len(rows), *frames.shape)))
            first += len(frames)
        noise = torch.cat(results, dim=1)
        return layout.to_rows(windows.blended(noise.float())).to(noise.dtype)

    def _of_windows(self, frames: Tensor, clips: int, forward: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        frame_numbers = frames.repeat(clips, 1)
        self._layout_of_windows = RowLayout(frames.shape[1], frame_numbers.numel(), frame_numbers=frame_numbers)
        self.windows_in_call = len(frames)
        try:
            return forward(*args, **kwargs)
        finally:
            self._layout_of_windows, self.windows_in_call = None, 0


def arguments_of_rows(arguments: Any, chosen: Tensor, rows: int, frames: int) -> Any:
    """Returns arguments with the chosen rows of every tensor that has `rows` of them, also in tuples, lists and dictionaries.

    `chosen` has `frames` rows of each clip, one clip after another. Containers are new ones, since some UNets empty those that
    they are given.
    """
    if isinstance(arguments, dict):
        return {key: arguments_of_rows(item, chosen, rows, frames) for key, item in arguments.items()}
    if isinstance(arguments, list | tuple):
        return type(arguments)(arguments_of_rows(item, chosen, rows, frames) for item in arguments)
    if isinstance(arguments, Tensor) and arguments.ndim and len(arguments) == rows:
        return arguments[chosen.to(arguments.device)]
    return arguments
