"""Windows over the whole UNet: each passes through it by itself, and the noise that they find is blended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .context_windows import Windows
from .patching import patched
from .row_layout import RowLayout
from .vram import Room


class WholeFrames:
    """What makes one call of a UNet into calls of windows.

    `step`: of the running sampler. `layout_of`: of the rows of a whole call. `room`: for how many windows at once; None: one.
    """

    def __init__(
        self, windows: Windows, step: Callable[[], int], layout_of: Callable[[int], RowLayout], room: Room | None = None
    ) -> None:
        self._windows = windows
        self._step = step
        self._whole = layout_of
        self._room = room or Room(torch.device("cpu"))
        self._within: RowLayout | None = None

    def layout_of(self, rows: int) -> RowLayout:
        """That of the call that the UNet is in: of a window, or of the whole clip."""
        return self._within or self._whole(rows)

    @contextmanager
    def around(self, model: Any) -> Iterator[None]:
        """While open, calls of `model` are cut: of a module whose first argument is `(rows, channels, height, width)`.
        It may return fewer channels, as one for inpainting does.

        Whatever else it is given goes along with its rows, if it has as many of them.
        """
        whole = model.forward

        def forward(x: Tensor, *others: Any, **named: Any) -> Tensor:
            return self._blended(whole, x, others, named)

        with patched(model, "forward", forward):
            yield

    def _blended(self, whole: Callable[..., Tensor], x: Tensor, others: tuple[Any, ...], named: dict[str, Any]) -> Tensor:
        rows = len(x)
        cut = self._windows.at(self._step())
        places = self._whole(rows).to_clips(torch.arange(rows))  # (clips, frames): the row of each frame
        results: list[Tensor] = []
        size, first = (places[:, cut.frames[0]].numel(), *x.shape[1:]), 0
        while first < len(cut.frames):
            at_once = slice(first, first + self._room.windows(size))
            frames = cut.frames[at_once]
            chosen = places[:, frames].transpose(0, 1).flatten()  # of all clips of the first window, then of the next
            given, more = _rows((x, *others), chosen, rows), _rows(named, chosen, rows)
            with self._room.measuring(size):
                results.append(self._of_windows(frames, len(places), whole, *given, **more))
            first = at_once.stop
        found = torch.cat(results).unflatten(0, (len(cut.frames), len(places), -1)).transpose(0, 1)
        return self._whole(rows).to_rows(cut.blended(found.float())).to(found.dtype)

    def _of_windows(self, frames: Tensor, clips: int, whole: Callable[..., Tensor], *given: Any, **named: Any) -> Tensor:
        shown = frames.repeat_interleave(clips, dim=0)
        self._within = RowLayout(frames.shape[1], shown.numel(), shown=shown)
        try:
            return whole(*given, **named)
        finally:
            self._within = None


def _rows(given: Any, chosen: Tensor, rows: int) -> Any:
    """The chosen rows of every tensor that has `rows` of them, in tuples, lists and dictionaries too."""
    if isinstance(given, dict):
        return {key: _rows(value, chosen, rows) for key, value in given.items()}
    if isinstance(given, list | tuple):
        return type(given)(_rows(value, chosen, rows) for value in given)
    if isinstance(given, Tensor) and given.ndim and len(given) == rows:
        return given[chosen.to(given.device)]
    return given
