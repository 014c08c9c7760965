"""Computes the GPU memory for training a motion module with Stable Diffusion 1.5 from shapes, without running the training.

    PYTHONPATH=.:tests .venv/bin/python benchmarks/training_memory.py

The result includes weights, gradients, the two moments of AdamW, and all tensors except weights that autograd saves for the
backward pass in mixed precision. The fragmentation of the allocator, the workspace of convolutions and CUDA's own memory (about
half a GB together) are not included.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from motion_module.families import V3
from motion_module.training.image_model import STABLE_DIFFUSION_1, new_unet
from motion_module.training.loop import checkpointing
from motion_module.training.trained_parts import Animated, new_motion_module
from support.tensor_memory import GIB

FRAMES = 16


def to_half(unet: nn.Module) -> None:
    """Does what `loop.halved` does, which does not work for fake tensors."""
    for layer in unet.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            for name, weight in list(layer.named_parameters(recurse=False)):
                setattr(layer, name, nn.Parameter(weight.detach().to(torch.bfloat16), requires_grad=False))


def saved_for_backward(animated: Animated, side: int, clips: int, checkpoint: bool) -> tuple[int, int]:
    """Returns the bytes that autograd saves in one pass without the weights: in all, and for the UNet block with the most."""
    weights = {tensor.untyped_storage()._cdata for tensor in [*animated.parameters(), *animated.buffers()]}
    seen: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            seen[storage._cdata] = storage.nbytes()
        alive.append(tensor)
        return tensor

    alive: list[torch.Tensor] = []  # so that no storage gets the address of another one

    def begin(block: nn.Module, _inputs: Any) -> None:
        by_block[block] = -sum(seen.values())

    def end(block: nn.Module, _inputs: Any, _output: Any) -> None:
        by_block[block] += sum(seen.values())

    by_block: dict[nn.Module, int] = {}
    unet: Any = animated.unet
    for block in (*unet.input_blocks, unet.middle_block, *unet.output_blocks):
        block.register_forward_pre_hook(begin)
        block.register_forward_hook(end)
    latents = torch.randn(clips, FRAMES, 4, side // 8, side // 8)
    times, context = torch.zeros(clips), torch.randn(clips, 77, 768)
    half = torch.autocast("cpu", torch.bfloat16)
    with animated.attached(), checkpointing(animated, checkpoint), half, saved_tensors_hooks(keep, lambda tensor: tensor):
        animated(latents, times, context)
    return sum(seen.values()), max(by_block.values())


def main() -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        unet = new_unet(STABLE_DIFFUSION_1["unet_config"]["params"]).requires_grad_(False)
        to_half(unet)
        module = new_motion_module(unet, FRAMES)
        animated = Animated(unet, module, V3, FRAMES)
        trained = sum(weight.numel() for weight in module.parameters())
        fixed = sum(tensor.nbytes for tensor in [*unet.parameters(), *unet.buffers()])
        print(f"image UNet in half precision: {fixed / GIB:.2f} GiB")
        print(
            f"motion module, {trained / 1e6:.0f} M weights: with gradients, AdamW and the mean {trained * 4 * 5 / GIB:.2f} GiB"
        )
        for side, clips, checkpoint in ((256, 1, False), (256, 1, True), (256, 4, True), (512, 1, True)):
            saved, largest = saved_for_backward(animated, side, clips, False)
            if checkpoint:  # blocks are computed again one by one
                saved = saved_for_backward(animated, side, clips, True)[0] + largest
            how = "with checkpointing" if checkpoint else "without"
            print(f"{clips} clip(s) of {FRAMES} frames, {side} px, {how}: {saved / GIB:.2f} GiB")


if __name__ == "__main__":
    main()
