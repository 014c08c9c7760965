"""Putting a motion module into a Stable Diffusion UNet for a while.

The UNet's tree is left as it is. A motion layer is a forward hook on the block that it follows, so checkpoint keys, LoRA names
and reloads of weights never meet it, and whatever calls the blocks (ControlNet calls them itself) calls the layer too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .errors import UserError
from .families import Family
from .motion import Motion
from .patching import patched
from .pia import Picture
from .row_layout import RowLayout

LayoutOf = Callable[[int], RowLayout]
"""From the number of rows in a UNet call to which row is which frame."""


class UnsuitableUNet(UserError):
    """A motion module does not fit a UNet. The text is for the user."""


@contextmanager
def attached(
    unet: nn.Module, motion: Motion, family: Family, layout_of: LayoutOf, picture: Picture | None = None
) -> Iterator[None]:
    """While open, `unet` animates: its rows are frames, told apart by `layout_of`.

    It is LDM's `UNetModel` for SD 1.x, or SGM's for SDXL. Layers move to the device and number format of what it hands them.
    `picture` is what a module of PIA starts from. Raises UnsuitableUNet before anything changed.
    """
    require_fit(unet, motion.channels)
    blocks = blocks_by_place(unet)
    with ExitStack() as undo:
        for place in motion.channels:
            undo.callback(_follow(blocks[place], place, motion, layout_of))
        if family.unet_norms == "over frames":
            for norm in _unet_norms(unet):
                undo.enter_context(_norm_over_frames(norm, motion, layout_of))
        if picture is not None:
            undo.callback(_show(unet, picture, motion, layout_of))
        yield


def blocks_by_place(unet: Any) -> dict[str, nn.Module]:
    """The module behind which each motion layer acts.

    The authors' `down_blocks.I.motion_modules.J` is LDM's `input_blocks[3I + 1 + J]`, and `up_blocks.I.motion_modules.J` is
    `output_blocks[3I + J]`. There the layer follows the SpatialTransformer, or the ResBlock where there is no transformer:
    in either case it comes before an Upsample. SD 1.x has four levels, SDXL three.
    """
    inputs, outputs = getattr(unet, "input_blocks", ()), getattr(unet, "output_blocks", ())
    if len(inputs) not in (9, 12) or len(outputs) != len(inputs):
        raise UnsuitableUNet(
            "This checkpoint's UNet has other levels than any motion module. Choose a Stable Diffusion 1.5 or SDXL checkpoint."
        )
    levels = range(len(inputs) // 3)
    places = {f"down_{i}_{j}": _last_before_resampling(inputs[3 * i + 1 + j]) for i in levels for j in range(2)}
    places["mid_0"] = _last_before_resampling(unet.middle_block[:2])
    places.update({f"up_{i}_{j}": _last_before_resampling(outputs[3 * i + j]) for i in levels for j in range(3)})
    return places


def _last_before_resampling(block: nn.Sequential) -> nn.Module:
    """The SpatialTransformer of a block, else its ResBlock; both told by their parts, since their classes are LDM's."""
    return next(child for child in reversed(block) if hasattr(child, "transformer_blocks") or hasattr(child, "in_layers"))


def require_fit(unet: nn.Module, channels: dict[str, int]) -> None:
    """Raises UnsuitableUNet unless motion layers of these widths, by place, can follow the blocks of `unet`."""
    found = widths_by_place(unet)
    for place, width in channels.items():
        if found.get(place) != width:
            there = f"the checkpoint {found[place]}" if place in found else "where the checkpoint has no block"
            raise UnsuitableUNet(
                f"The motion module is made for another model: at {place} it is {width} channels wide, "
                f"{there}. Choose a motion module and a checkpoint of the same kind."
            )


def widths_by_place(unet: nn.Module) -> dict[str, int]:
    """How many channels the UNet has at each place."""
    blocks: dict[str, Any] = blocks_by_place(unet)
    return {
        place: block.in_channels if hasattr(block, "transformer_blocks") else block.out_channels
        for place, block in blocks.items()
    }


def _follow(block: nn.Module, place: str, motion: Motion, layout_of: LayoutOf) -> Callable[[], None]:
    """Runs motion layers behind a block. Returns what undoes it."""

    def animate(_block: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return motion.animate(place, output, layout_of(output.shape[0]))

    return block.register_forward_hook(animate).remove


def _show(unet: Any, picture: Picture, motion: Motion, layout_of: LayoutOf) -> Callable[[], None]:
    """Lets the UNet's first convolution see a picture too. Returns what undoes it."""
    kernel = motion.module.picture_kernel
    assert kernel is not None

    def see(_convolution: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        if not motion.active:
            return output
        layout = layout_of(output.shape[0])
        seen = picture.seen_through(kernel.to(picture.latents.device, output.dtype)).to(output.device)
        whole = torch.arange(layout.frames).expand(layout.rows // layout.frames, -1)
        return output + layout.to_rows(seen[whole if layout.shown is None else layout.shown])

    return unet.input_blocks[0][0].register_forward_hook(see).remove


def _unet_norms(unet: Any) -> Iterator[nn.GroupNorm]:
    """The UNet's own norms that the authors' v1 inflates: two in each ResBlock, and that of the output.

    Those of its SpatialTransformers, and all norms of a ControlNet, stay as they are.
    """
    for block in unet.modules():
        if hasattr(block, "in_layers") and hasattr(block, "out_layers"):
            yield block.in_layers[0]
            yield block.out_layers[0]
    yield unet.out[0]


@contextmanager
def _norm_over_frames(norm: Any, motion: Motion, layout_of: LayoutOf) -> Iterator[None]:
    """While open, one norm takes its statistics over all frames of a clip."""
    of_frame = norm.forward  # the class's, or what another extension put there: it goes on acting

    def forward(x: Tensor) -> Tensor:
        if not motion.active:
            return of_frame(x)
        layout = layout_of(x.shape[0])
        clips = layout.to_clips(x)  # (clips, frames, channels, height, width)
        count, frames, channels, height, width = clips.shape
        normed = of_frame(clips.transpose(1, 2).reshape(count, channels, frames * height, width))
        return layout.to_rows(normed.view(count, channels, frames, height, width).transpose(1, 2))

    with patched(norm, "forward", forward):
        yield
