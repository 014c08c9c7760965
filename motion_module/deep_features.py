"""Features of the UNet's deep blocks, kept in one step and used in the next (arXiv 2312.00858, arXiv 2410.19355).

Deep blocks compute at a low resolution what changes slowly from step to step. In a call that uses kept features only the
blocks at both ends of the UNet compute: its first ones, and the last ones, which join their output with what is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .attach import LayoutOf, blocks_by_name, inside
from .light_steps import Expected
from .patching import patched
from .row_layout import RowLayout

SHALLOW = 2
"""How many blocks at each end of the UNet compute in every call. SD 1.5 has twelve on either side of its middle, SDXL nine."""
Clip = tuple[Hashable | None, Hashable]
"""What tells the clips of a call apart: its condition, and the frames of its window, if it is one."""


class DeepFeatures:
    """The deep blocks of one UNet.

    `layout_of`: the layout of the call that the UNet is in, from its number of rows. `on`: the device that features wait on;
    None for that which they are computed on.
    """

    def __init__(self, layout_of: LayoutOf, on: torch.device | None = None) -> None:
        self._layout_of = layout_of
        self._on = on
        self._doing: Literal["nothing", "keeping", "using"] = "nothing"
        self._conditions: Sequence[Hashable | None] = ()
        self._step = 0
        self._expected = Expected(0, 0, 0.0)
        self._kept: dict[int, dict[Clip, Tensor]] = {}
        """By step."""
        self._shapes: dict[nn.Module, torch.Size] = {}
        self._deep: set[str] = set()

    @contextmanager
    def applied_to(self, unet: Any) -> Iterator[None]:
        """While open, features can be kept and used. Enter it after motion layers are attached: they are in the features."""
        deep = [*list(unet.input_blocks)[SHALLOW:], unet.middle_block, *list(unet.output_blocks)[:-SHALLOW]]
        parts = [part for block in deep for part in inside(block, nn.Sequential)]
        inner = {module for part in parts for module in part.modules()}
        self._deep = {name for name, block in blocks_by_name(unet).items() if block in inner}
        with ExitStack() as undo:
            for part in parts:
                undo.enter_context(patched(part, "forward", self._or_skipped(part)))
            undo.callback(parts[-1].register_forward_hook(self._finish).remove)
            yield

    def rests(self, block: str) -> bool:
        """Whether a block, such as "down_1_0", computes nothing in the running call."""
        return self._doing == "using" and block in self._deep

    @contextmanager
    def keeping(self, step: int, conditions: Sequence[Hashable | None]) -> Iterator[None]:
        """While open, a UNet call keeps its deep features, as those of a step. What is older than the last two steps is let go.

        `conditions`: those of its clips, each a different one; None for clips whose features are not wanted.
        """
        self._kept[step] = {clip: kept for clip, kept in self._kept.get(step, {}).items() if clip[0] not in conditions}
        with patched(self, "_doing", "keeping"), patched(self, "_conditions", conditions), patched(self, "_step", step):
            yield
        for old in sorted(self._kept)[:-2]:
            del self._kept[old]

    @contextmanager
    def using(self, expected: Expected, conditions: Sequence[Hashable]) -> Iterator[None]:
        """While open, a UNet call uses the features that are expected for these conditions, and the windows of its clips."""
        with patched(self, "_doing", "using"), patched(self, "_conditions", conditions), patched(self, "_expected", expected):
            yield

    def has(self, step: int, condition: Hashable) -> bool:
        """Whether features of a step are kept for a condition."""
        return any(kept == condition for kept, _ in self._kept.get(step, ()))

    def clear(self) -> None:
        """Lets go of all features: another run of a sampler begins."""
        self._kept.clear()

    def _or_skipped(self, part: nn.Module) -> Callable[..., Tensor]:
        """Returns the forward function of a part. Where kept features are used it returns zeros, which nothing reads:
        the UNet's own code, and extensions, go on through the blocks and must find tensors of the right shape.
        """
        compute = part.forward

        def forward(x: Tensor, *args: Any, **named: Any) -> Tensor:
            if self._doing == "using":
                return x.new_zeros(len(x), *self._shapes[part])
            result: Tensor = compute(x, *args, **named)
            self._shapes[part] = result.shape[1:]
            return result

        return forward

    def _finish(self, _part: nn.Module, _inputs: Any, output: Tensor) -> Tensor | None:
        """After the last deep part and what follows it there, such as a motion layer: keeps its output, or replaces it."""
        if self._doing == "nothing":
            return None
        layout = self._layout_of(len(output))
        clips = self._clips(layout)
        if self._doing == "keeping":
            for clip, features in zip(clips, layout.to_clips(output)):
                if clip[0] is not None:  # a copy, because others change `output` in place
                    self._kept[self._step][clip] = features.to(self._on or output.device, copy=True)
            return None
        last, before = self._kept[self._expected.last], self._kept.get(self._expected.before, {})
        expected = torch.stack([self._expected.of(last[clip], before.get(clip)) for clip in clips])
        return layout.to_rows(expected.to(output.device))

    def _clips(self, layout: RowLayout) -> list[Clip]:
        """Returns what tells the clips of a call apart, in their order: all windows of a condition, then those of the next."""
        count = layout.rows // layout.frames
        of_each = count // len(self._conditions)
        numbers = layout.frame_numbers
        windows = [None] * count if numbers is None else [tuple(window) for window in numbers.tolist()]
        return [(self._conditions[index // of_each], window) for index, window in enumerate(windows)]
