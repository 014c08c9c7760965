"""Computes the GPU memory of long clips with Stable Diffusion 1.5 from the shapes of tensors, without running the model.

    PYTHONPATH=.:tests .venv/bin/python benchmarks/clip_memory.py

The result is the peak of all tensors on the GPU without the weights, and in RAM, in one UNet call with both conditions in half
precision and the motion layers of v3. Attention is fused, without a matrix of scores. The fragmentation of the allocator, the
workspace of convolutions and CUDA's own memory are not included.
"""

from __future__ import annotations

import io
from contextlib import ExitStack, redirect_stdout
from dataclasses import replace
from typing import Any, Literal
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from motion_module.attach import attached, channels_by_block
from motion_module.context_windows import ContextWindows, StepWindows
from motion_module.families import V3
from motion_module.layer_offload import in_chunks
from motion_module.motion_layers import Motion
from motion_module.network import MotionModule
from motion_module.row_layout import layout_of_call
from motion_module.training.image_model import STABLE_DIFFUSION_1, new_unet
from motion_module.windowed_unet import WindowedUNet
from support.tensor_memory import GIB, Alive, card, fused

with redirect_stdout(io.StringIO()):  # LDM prints as it is imported
    from ldm.modules.attention import CrossAttention

Way = Literal["no windows", "whole UNet", "motion attention", "motion attention, offloaded"]
WAYS: tuple[Way, ...] = ("no windows", "whole UNet", "motion attention", "motion attention, offloaded")
WINDOW, OVERLAP, CONDITIONS = 16, 4, 2


def move_to(module: nn.Module, device: torch.device) -> None:
    """Does `module.to(device, torch.float16)`, which does not work for fake tensors."""
    for layer in module.modules():
        for name, weight in list(layer.named_parameters(recurse=False)):
            empty = torch.empty(weight.shape, device=device, dtype=torch.float16)
            setattr(layer, name, nn.Parameter(empty, requires_grad=False))
        for name, tensor in list(layer.named_buffers(recurse=False)):
            setattr(layer, name, torch.empty(tensor.shape, device=device, dtype=torch.float16))


def most_alive(frames: int, side: int, way: Way) -> tuple[float, float]:
    """Returns the peak GiB on the GPU without the weights, and in RAM, in one UNet call.

    The clip has `frames` frames, which are `side` pixels wide and high.
    """
    windows = ContextWindows(frames, frames if way == "no windows" else WINDOW, 0 if way == "no windows" else OVERLAP)
    cut, rows, latent = windows.at(0), CONDITIONS * frames, side // 8
    by_frame = cut.by_frame
    with torch.device("meta"):
        unet: Any = new_unet(STABLE_DIFFUSION_1["unet_config"]["params"])
        module = MotionModule(channels_by_block(unet), V3.positions)
    unet.dtype = torch.float16
    with FakeTensorMode(allow_non_fake_inputs=True) as shapes, ExitStack() as stack:
        move_to(unet, card())
        move_to(module, card())
        cut = replace(cut, frames=shapes.from_tensor(cut.frames), weights=shapes.from_tensor(cut.weights))
        stack.enter_context(mock.patch.object(CrossAttention, "forward", fused))
        stack.enter_context(mock.patch.object(F, "scaled_dot_product_attention", _empty_result))
        stack.enter_context(mock.patch.object(StepWindows, "by_frame", tuple(map(shapes.from_tensor, by_frame))))
        stack.enter_context(mock.patch.object(ContextWindows, "at", lambda _windows, _step: cut))
        stack.enter_context(torch.no_grad())
        alive = stack.enter_context(Alive())
        latents = torch.empty(rows, 4, latent, latent, device=card(), dtype=torch.float16)
        times, text = torch.empty(rows, device=card()), torch.empty(rows, 77, 768, device=card(), dtype=torch.float16)
        layout_of, device = (lambda count: layout_of_call(count, frames)), card() if way.endswith("offloaded") else None
        if way == "whole UNet":
            whole = WindowedUNet(windows, lambda: 0, layout_of)
            stack.enter_context(whole.applied_to(unet))
            layout_of = whole.layout_of
        if way.startswith("motion"):
            stack.enter_context(in_chunks(unet, CONDITIONS * WINDOW, device))
        motion = Motion(module, step_windows=(lambda: cut) if way.startswith("motion") else None, device=lambda: device)
        stack.enter_context(attached(unet, motion, V3, layout_of))
        unet(latents, times, text)
    return alive.most[card().type] / GIB, alive.most["cpu"] / GIB


def _empty_result(query: Tensor, *_others: Any, **_named: Any) -> Tensor:
    return torch.empty_like(query)


def main() -> None:
    print("| way | frames | size | GiB on the GPU without the weights | GiB in RAM |\n|---|---|---|---|---|")
    for side in (256, 512):
        for way in WAYS:
            for frames in (16,) if way == "no windows" else (64, 256):
                on_gpu, in_ram = most_alive(frames, side, way)
                print(f"| {way} | {frames} | {side}×{side} | {on_gpu:.2f} | {in_ram:.2f} |", flush=True)


if __name__ == "__main__":
    main()
