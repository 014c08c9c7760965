"""SparseCtrl networks as they act in a UNet: before each call they run on its rows, and what they return is added to it.

The UNet's modules stay as they are. What a network adds to a skip connection is added where an output block takes it, and what
it adds to the middle block is added to that block's end, both by hooks on ResBlocks, which every WebUI calls as modules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .attach import LayoutOf, UnsuitableUNet, channels_by_block
from .context_windows import StepWindows
from .motion_layers import same_device
from .motion_strength import MotionStrength, PerFrame
from .patching import patched
from .row_layout import RowLayout
from .sparse_ctrl import LEVELS, Shape, SparseCtrl

PicturesOf = Callable[[int, int], Tensor]
"""From the height and width of the latents of a UNet call, returns the pictures as a network takes them, on any device."""


class Control(Protocol):
    """What acts in a UNet: a network with its pictures."""

    def acts(self, progress: float) -> bool:
        """Whether it acts when a fraction `progress` of the steps is done."""

    def added(
        self, x: Tensor, timesteps: Tensor, context: Tensor, layout: RowLayout, windows: StepWindows | None
    ) -> list[Tensor]:
        """Returns what is added to the UNet in a call with these arguments, as `SparseCtrl` does."""

    def let_go(self) -> None:
        """Takes everything off the device that is not needed after the job."""


@dataclass
class SparseControl:
    """One network and its pictures. `frames`: the frame of each picture. `start`, `end`: fractions of the steps.

    `weights`: what multiplies the strength in each frame of the video.
    """

    network: SparseCtrl
    frames: Sequence[int]
    pictures_of: PicturesOf
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0
    weights: PerFrame = 1.0
    _embedded: Tensor | None = None

    def added(
        self, x: Tensor, timesteps: Tensor, context: Tensor, layout: RowLayout, windows: StepWindows | None
    ) -> list[Tensor]:
        """Returns what is added to the UNet in a call with these arguments."""
        numbers = layout.numbers
        picture_of = torch.zeros(int(numbers.max()) + 1, dtype=torch.long)  # 0: none
        for index, frame in enumerate(self.frames, start=1):
            if frame < len(picture_of):
                picture_of[frame] = index
        chosen = layout.to_rows(picture_of[numbers])
        embedded = self._embedded_for(x)[chosen.to(x.device)]
        found = self.network(embedded, timesteps.to(x.device), context.to(x), layout, windows)
        strength = self._strength_of_rows(layout, x)
        return found if strength is None else [features * strength for features in found]

    def _strength_of_rows(self, layout: RowLayout, x: Tensor) -> Tensor | None:
        """Returns the strength of each row, `(rows or 1, 1, 1, 1)`; None if it is 1 everywhere."""
        if not isinstance(self.weights, tuple):
            strength = self.strength * self.weights
            return None if strength == 1 else torch.full((1, 1, 1, 1), strength).to(x)
        of_rows = layout.to_rows(self.strength * torch.tensor(self.weights)[layout.numbers])
        return of_rows.view(-1, 1, 1, 1).to(x)

    def acts(self, progress: float) -> bool:
        """Whether it acts when a fraction `progress` of the steps is done."""
        return MotionStrength(start=self.start, end=self.end).active(progress)

    def let_go(self) -> None:
        """Takes everything off the device."""
        self.network.to("cpu")
        self._embedded = None

    def _embedded_for(self, x: Tensor) -> Tensor:
        """Returns the embedding of the pictures at the size of `x`. It is that of the last call, unless the size changes."""
        weight = self.network.conv_in.weight
        if weight.dtype != x.dtype or not same_device(weight.device, x.device):
            self.network.to(x.device, x.dtype)
            self._embedded = None
        if self._embedded is None or self._embedded.shape[2:] != x.shape[2:]:
            self._embedded = self.network.embedded(self.pictures_of(*x.shape[2:]).to(x.device, x.dtype))
        return self._embedded


@contextmanager
def controlled(
    unet: Any,
    controls: Sequence[Control],
    layout_of: LayoutOf,
    progress: Callable[[], float] = lambda: 0.0,
    step_windows: Callable[[], StepWindows] | None = None,
    text_of: Callable[[Tensor], Tensor] = lambda context: context,
) -> Iterator[None]:
    """While open, networks act in `unet`, an LDM `UNetModel`, whose rows are frames as `layout_of` describes them.

    Afterwards they are on the CPU. `progress`: returns the fraction of the steps that are done. `step_windows`: returns the
    windows of the running step, if attention between frames is limited to context windows. `text_of`: returns the encoded
    prompts of the rows from the UNet's argument, in which another extension may have more.
    """
    if not controls:
        yield
        return
    call = _Call()
    forward_plain = unet.forward

    def forward(x: Tensor, *args: Any, **named: Any) -> Tensor:
        timesteps = args[0] if args else named["timesteps"]
        context = text_of(args[1] if len(args) > 1 else named["context"])
        acting = [control for control in controls if control.acts(progress())]
        windows = step_windows() if step_windows and acting else None
        call.begin(control.added(x, timesteps, context, layout_of(len(x)), windows) for control in acting)
        try:
            found: Tensor = forward_plain(x, *args, **named)
            return found
        finally:
            call.end()

    with ExitStack() as undo:
        for control in controls:
            undo.callback(control.let_go)
        undo.enter_context(patched(unet, "forward", forward))
        last = len(unet.output_blocks) - 1
        for index, block in enumerate(unet.output_blocks):
            undo.callback(_resnets(block)[0].register_forward_pre_hook(call.adding_to_skip(last - index)).remove)
        undo.callback(_resnets(unet.middle_block)[-1].register_forward_hook(call.add_to_middle).remove)
        yield


def require_sparse_fit(unet: Any, shape: Shape, name: str) -> None:
    """Raises UnsuitableUNet unless a network of this shape can act in `unet`. `name`: of its file."""
    theirs, text_width = widths_of(unet)
    if theirs != shape.widths or text_width not in (0, shape.text_width):
        raise UnsuitableUNet(
            f"The SparseCtrl model {name} does not fit the checkpoint: it has {_spoken(shape.widths)} channels, and the "
            f"checkpoint has {_spoken(theirs)}. Choose a Stable Diffusion 1.5 checkpoint."
        )


def widths_of(unet: Any) -> tuple[tuple[int, ...], int]:
    """Returns the channels of each level of a UNet, 0 where it has none, and those of a token of its prompts, 0 if unknown."""
    channels = channels_by_block(unet)
    keys = [part.to_k.in_features for block, part in unet.named_modules() if block.endswith("attn2") and hasattr(part, "to_k")]
    return tuple(channels.get(f"down_{level}_0", 0) for level in range(LEVELS)), keys[0] if keys else 0


def _spoken(widths: Sequence[int]) -> str:
    return ", ".join(map(str, widths))


def _resnets(block: nn.Module) -> list[nn.Module]:
    """Returns the ResBlocks of a block by their parts, as the classes are LDM's. They may be inside other modules."""
    return [part for part in block.modules() if "in_layers" in part._modules]


class _Call:
    """What is added to the UNet in the call that it is in, by skip connection; the last one is for the middle block."""

    def __init__(self) -> None:
        self._added: list[Tensor] = []

    def begin(self, of_controls: Iterator[list[Tensor]]) -> None:
        self._added = [sum(features[1:], start=features[0]) for features in zip(*of_controls)]

    def end(self) -> None:
        """Lets go of what was added. In training, blocks may be computed once more, in the backward pass."""
        if not torch.is_grad_enabled():
            self._added = []

    def adding_to_skip(self, number: int) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...] | None]:
        """Returns a hook that adds to the last channels of its block's input, which is freshly put together.

        In training the input stays as it was, for a block that is computed once more from it.
        """

        def add(_block: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
            if not self._added:
                return None
            x, added = inputs[0], self._added[number]
            _require_same(x, added)
            if torch.is_grad_enabled():
                earlier, skip = x.tensor_split([x.shape[1] - added.shape[1]], dim=1)
                return torch.cat([earlier, skip + added.to(x)], dim=1), *inputs[1:]
            x[:, -added.shape[1] :] += added.to(x)
            return None

        return add

    def add_to_middle(self, _block: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        if not self._added:
            return output
        _require_same(output, self._added[-1])
        return output + self._added[-1].to(output)


def _require_same(features: Tensor, added: Tensor) -> None:
    if features.shape[0] != added.shape[0] or features.shape[2:] != added.shape[2:]:
        raise UnsuitableUNet(
            "SparseCtrl cannot add to the UNet, since another extension changes the size of features inside it, as Kohya HRFix "
            "does. Switch that extension off."
        )
