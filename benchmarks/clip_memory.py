"""Computes what long clips on Stable Diffusion 1.5 take of a GPU's memory. Nothing is run: shapes are enough.

    PYTHONPATH=.:tests .venv/bin/python benchmarks/clip_memory.py

One call of the UNet, both conditions in half precision, with the motion layers of v3: the most bytes of tensors that are alive
at once on the card, beside the weights, and in RAM. Attention is counted as fused, without a matrix of scores. What an
allocator wastes, the workspace of convolutions and CUDA's own part are not in it.
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
from motion_module.motion import Motion
from motion_module.network import MotionModule
from motion_module.row_layout import layout_of_call
from motion_module.training.image_model import STABLE_DIFFUSION_1, new_unet
from motion_module.windowed_unet import WindowedUNet
from support.tensor_memory import GIB, Alive, card, fused

with redirect_stdout(io.StringIO()):  # LDM prints as it is imported
    from ldm.modules.attention import CrossAttention

Way = Literal["no windows", "whole UNet", "motion attention", "motion attention, waiting in RAM"]
WAYS: tuple[Way, ...] = ("no windows", "whole UNet", "motion attention", "motion attention, waiting in RAM")
WINDOW, OVERLAP, CONDITIONS = 16, 4, 2


def laid_on(module: nn.Module, device: torch.device) -> None:
    """`module.to(device, torch.float16)`, which does not work without contents."""
    for layer in module.modules():
        for name, weight in list(layer.named_parameters(recurse=False)):
            empty = torch.empty(weight.shape, device=device, dtype=torch.float16)
            setattr(layer, name, nn.Parameter(empty, requires_grad=False))
        for name, tensor in list(layer.named_buffers(recurse=False)):
            setattr(layer, name, torch.empty(tensor.shape, device=device, dtype=torch.float16))


def most_alive(frames: int, side: int, way: Way) -> tuple[float, float]:
    """GiB on the card beside the weights, and in RAM, in one UNet call for a clip of `frames` frames, `side` pixels wide and
    high.
    """
    windows = ContextWindows(frames, frames if way == "no windows" else WINDOW, 0 if way == "no windows" else OVERLAP)
    cut, rows, latent = windows.at(0), CONDITIONS * frames, side // 8
    by_frame = cut.by_frame
    with torch.device("meta"):
        unet: Any = new_unet(STABLE_DIFFUSION_1["unet_config"]["params"])
        module = MotionModule(channels_by_block(unet), V3.positions)
    unet.dtype = torch.float16
    with FakeTensorMode(allow_non_fake_inputs=True) as shapes, ExitStack() as stack:
        laid_on(unet, card())
        laid_on(module, card())
        cut = replace(cut, frames=shapes.from_tensor(cut.frames), weights=shapes.from_tensor(cut.weights))
        stack.enter_context(mock.patch.object(CrossAttention, "forward", fused))
        stack.enter_context(mock.patch.object(F, "scaled_dot_product_attention", _only_its_result))
        stack.enter_context(mock.patch.object(StepWindows, "by_frame", tuple(map(shapes.from_tensor, by_frame))))
        stack.enter_context(mock.patch.object(ContextWindows, "at", lambda _windows, _step: cut))
        stack.enter_context(torch.no_grad())
        alive = stack.enter_context(Alive())
        latents = torch.empty(rows, 4, latent, latent, device=card(), dtype=torch.float16)
        times, text = torch.empty(rows, device=card()), torch.empty(rows, 77, 768, device=card(), dtype=torch.float16)
        layout_of, device = (lambda count: layout_of_call(count, frames)), card() if way.endswith("in RAM") else None
        if way == "whole UNet":
            whole = WindowedUNet(windows, lambda: 0, layout_of)
            stack.enter_context(whole.applied_to(unet))
            layout_of = whole.layout_of
        if way.startswith("motion"):
            stack.enter_context(in_chunks(unet, CONDITIONS * WINDOW, device))
        motion = Motion(module, step_windows=(lambda: cut) if way.startswith("motion") else None, device=device)
        stack.enter_context(attached(unet, motion, V3, layout_of))
        unet(latents, times, text)
    return alive.most[card().type] / GIB, alive.most["cpu"] / GIB


def _only_its_result(query: Tensor, *_others: Any, **_named: Any) -> Tensor:
    return torch.empty_like(query)


def main() -> None:
    print("| way | frames | size | GiB on the card beside the weights | GiB in RAM |\n|---|---|---|---|---|")
    for side in (256, 512):
        for way in WAYS:
            for frames in (16,) if way == "no windows" else (64, 256):
                on_card, waiting = most_alive(frames, side, way)
                print(f"| {way} | {frames} | {side}×{side} | {on_card:.2f} | {waiting:.2f} |", flush=True)


if __name__ == "__main__":
    main()
