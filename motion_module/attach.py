"""Attaches a motion module to a Stable Diffusion UNet.

The UNet's modules stay as they are. A motion layer is a forward hook on the block that it follows, so that checkpoint keys,
LoRA names and reloads of weights are not affected, and everything that calls the blocks (ControlNet does so itself) calls the
layers too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .camera_ctrl import Camera
from .errors import UserError
from .families import Family
from .motion_layers import Motion
from .patching import patched
from .pia import ConditionImage
from .row_layout import RowLayout

LayoutOf = Callable[[int], RowLayout]
"""From the number of rows in a UNet call, returns which row is which frame."""


class UnsuitableUNet(UserError):
    """A motion module does not fit a UNet. The text is for the user."""


@contextmanager
def attached(
    unet: nn.Module, motion: Motion, family: Family, layout_of: LayoutOf, condition_image: ConditionImage | None = None
) -> Iterator[None]:
    """While open, motion layers act in `unet`, whose rows are frames as `layout_of` describes them.

    `unet` is LDM's `UNetModel` for SD 1.x, or SGM's for SDXL. Layers move to the device and dtype of their input.
    `condition_image`: for a PIA module. Raises UnsuitableUNet before anything is changed.
    """
    require_fit(unet, motion.channels)
    blocks = blocks_by_name(unet)
    with ExitStack() as undo:
        for name in motion.channels:
            undo.callback(_animate(blocks[name], name, motion, layout_of))
        if family.unet_norms == "over frames":
            for norm in _unet_norms(unet):
                undo.enter_context(_norm_over_frames(norm, motion, layout_of))
        if condition_image is not None:
            undo.callback(_add_condition_image(unet, condition_image, motion, layout_of))
        if motion.camera is not None:
            undo.callback(_prepare_camera(unet, motion.camera))
        yield


def blocks_by_name(unet: Any) -> dict[str, nn.Module]:
    """Returns the module after which each motion layer acts, by the name of its block, such as "down_0_1".

    The authors' `down_blocks.I.motion_modules.J` is LDM's `input_blocks[3I + 1 + J]`, and `up_blocks.I.motion_modules.J` is
    `output_blocks[3I + J]`. There the layer follows the SpatialTransformer, or the ResBlock if there is no transformer;
    in either case it comes before an Upsample. SD 1.x has four resolution levels, SDXL has three. Raises UnsuitableUNet.

    Other extensions may have put modules of their own around blocks or their parts. The layer then follows the part inside.
    """
    _require_callable_hooks(unet)
    inputs, outputs = getattr(unet, "input_blocks", ()), getattr(unet, "output_blocks", ())
    if len(inputs) not in (9, 12) or len(outputs) != len(inputs):
        raise UnsuitableUNet(
            f"This checkpoint's UNet has {len(inputs)} input blocks, and no motion module is made for that. "
            "Choose a Stable Diffusion 1.5 or SDXL checkpoint."
        )
    levels = range(len(inputs) // 3)
    blocks = {f"down_{i}_{j}": _last_before_resampling(inputs[3 * i + 1 + j], "input_blocks") for i in levels for j in range(2)}
    blocks["mid_0"] = _last_before_resampling(unet.middle_block, "middle_block")
    blocks.update(
        {f"up_{i}_{j}": _last_before_resampling(outputs[3 * i + j], "output_blocks") for i in levels for j in range(3)}
    )
    return blocks


def _require_callable_hooks(unet: Any) -> None:
    """Raises UnsuitableUNet for a compiled UNet: torch calls no hooks that are added after it has compiled one."""
    if any("_orig_mod" in part._modules or getattr(part, "_compiled_call_impl", None) for part in unet.modules()):
        raise UnsuitableUNet(
            "The checkpoint's UNet is compiled (torch.compile), so that a motion module cannot act in it. Switch off the "
            "extension or setting that compiles it, and load the checkpoint again."
        )


def _last_before_resampling(block: nn.Module, place: str) -> nn.Module:
    """Returns the first SpatialTransformer of a block, else its ResBlock. Both are recognised by their parts: the classes are
    LDM's. They may be inside other modules.
    """
    parts = list(block.modules())
    found = [part for part in parts if "transformer_blocks" in part._modules] or [p for p in parts if "in_layers" in p._modules]
    if not found:
        raise UnsuitableUNet(
            f"A module {type(block).__name__} of {type(block).__module__} is in the UNet's {place}, in place of a block of "
            "Stable Diffusion. Switch off the extension that has put it there, and restart the WebUI."
        )
    return found[0]


def inside(module: nn.Module, kind: type[nn.Module]) -> Any:
    """Returns the first module of a kind within another one, which an extension may have wrapped."""
    found = next((part for part in module.modules() if isinstance(part, kind)), None)
    if found is None:
        raise UnsuitableUNet(
            f"The UNet has a {type(module).__name__} of {type(module).__module__} where Stable Diffusion has a "
            f"{kind.__name__}. Switch off the extension that has put it there, and restart the WebUI."
        )
    return found


def require_fit(unet: nn.Module, channels: dict[str, int]) -> None:
    """Raises UnsuitableUNet unless motion layers with these channels, by block, can follow the blocks of `unet`."""
    actual = channels_by_block(unet)
    for block, count in channels.items():
        if actual.get(block) != count:
            theirs = f"the checkpoint has {actual[block]}" if block in actual else "the checkpoint does not have this block"
            raise UnsuitableUNet(
                f"The motion module does not fit the checkpoint: at {block} it has {count} channels, and {theirs}. "
                "Choose a motion module and a checkpoint of the same kind."
            )


def channels_by_block(unet: nn.Module) -> dict[str, int]:
    """Returns the number of channels of each UNet block."""
    blocks: dict[str, Any] = blocks_by_name(unet)
    return {
        name: block.in_channels if hasattr(block, "transformer_blocks") else block.out_channels
        for name, block in blocks.items()
    }


def _animate(block: nn.Module, name: str, motion: Motion, layout_of: LayoutOf) -> Callable[[], None]:
    """Runs motion layers after a block. Returns a function that undoes it."""

    def animate(_block: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return motion.animate(name, output, layout_of(output.shape[0]))

    return block.register_forward_hook(animate).remove


def _add_condition_image(unet: Any, image: ConditionImage, motion: Motion, layout_of: LayoutOf) -> Callable[[], None]:
    """Adds a condition image to the output of the UNet's first convolution. Returns a function that undoes it."""
    kernel = motion.module.condition_kernel
    assert kernel is not None
    kernels: dict[torch.dtype, Tensor] = {}
    """The kernel where the image is: it is copied once, and not for each call. What it makes of a long clip is not kept."""

    def add(_convolution: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        if not motion.active:
            return output
        layout = layout_of(output.shape[0])
        if output.dtype not in kernels:
            kernels[output.dtype] = kernel.to(image.latents.device, output.dtype)
        added = image.convolved(kernels[output.dtype]).to(output.device)
        return output + layout.to_rows(layout.of_video(added))

    return inside(unet.input_blocks[0], nn.Conv2d).register_forward_hook(add).remove


def _prepare_camera(unet: Any, camera: Camera) -> Callable[[], None]:
    """Tells a camera the size of the latents before the first motion layer acts. Returns a function that undoes it."""

    def prepare(_convolution: nn.Module, _inputs: Any, output: Tensor) -> None:
        camera.prepare(output.shape[2], output.shape[3], output.device)

    return inside(unet.input_blocks[0], nn.Conv2d).register_forward_hook(prepare).remove


def _unet_norms(unet: Any) -> Iterator[nn.GroupNorm]:
    """Yields the UNet's norms that the authors' v1 inflates: two in each ResBlock, and that of the output.

    The norms of SpatialTransformers, and all norms of a ControlNet, stay as they are.
    """
    for block in unet.modules():
        if "in_layers" in block._modules and "out_layers" in block._modules:
            yield inside(block.in_layers, nn.GroupNorm)
            yield inside(block.out_layers, nn.GroupNorm)
    yield inside(unet.out, nn.GroupNorm)


@contextmanager
def _norm_over_frames(norm: Any, motion: Motion, layout_of: LayoutOf) -> Iterator[None]:
    """While open, a norm computes its statistics over all frames of a clip."""
    per_frame = norm.forward  # the class's, or another extension's: it stays in use

    def forward(x: Tensor) -> Tensor:
        if not motion.active:
            return per_frame(x)
        layout = layout_of(x.shape[0])
        clips = layout.to_clips(x)  # (clips, frames, channels, height, width)
        count, frames, channels, height, width = clips.shape
        normed = per_frame(clips.transpose(1, 2).reshape(count, channels, frames * height, width))
        return layout.to_rows(normed.view(count, channels, frames, height, width).transpose(1, 2))

    with patched(norm, "forward", forward):
        yield
