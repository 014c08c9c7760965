"""Measures the cost of context windows that are limited to motion attention: `make bench-windows`.

A video of 64 frames in windows of 16 frames is compared with four videos of 16 frames: the time of one sampling step, its FLOP,
and the peak memory. The options are those of `benchmarks/step_time.py`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from step_time import HOSTS, ROOT, SD15, SETTINGS, measure, peak_on_cpu, peak_on_cuda, unet_params, weights_dir
from torch.utils.flop_counter import FlopCounterMode

from motion_module.attach import attached
from motion_module.checkpoint import describe
from motion_module.context_windows import ContextWindows
from motion_module.families import V3
from motion_module.motion_layers import Motion
from motion_module.network import MotionModule
from motion_module.row_layout import layout_of_call

WINDOW, VIDEOS = 16, 4
OVERLAPS = (4, 12)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", choices=HOSTS, default="embedded")
    parser.add_argument("--module", default="mm_sd15_v3.safetensors")
    parser.add_argument("--size", type=int, default=128, help="width and height in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    subprocess.run([sys.executable, "-m", "demo.weights", weights_dir()], cwd=ROOT, check=True)
    print("  ".join(f"overlap {overlap}: {counted_ratio(options, overlap):.3f} counted" for overlap in OVERLAPS), flush=True)
    on_cuda = options.host == "embedded" and torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as folder, HOSTS[options.host](Path(folder), [ROOT], options=SETTINGS) as server:
        measured = measure(server, requests_of(options), options.rounds, peak_on_cuda if on_cuda else peak_on_cpu)
    device = torch.cuda.get_device_name() if on_cuda else f"CPU, {torch.get_num_threads()} threads"
    print(f"{options.module}, {options.size}x{options.size}, {options.host} host, {device}")
    medians = {kind: [statistics.median(values) for values in zip(*rounds)] for kind, rounds in measured.items()}
    for kind, (seconds, memory) in medians.items():
        ratio = seconds / (VIDEOS * medians["16 frames"][0])
        print(f"  {kind:24} {seconds:7.2f} s per step (median of {options.rounds}), {ratio:.3f}, peak {memory:.2f} GiB")
    print(json.dumps(measured))


def requests_of(options: argparse.Namespace) -> dict[str, dict]:
    common = {"width": options.size, "height": options.size, "negative_prompt": "bad", "sampler_name": "Euler"}

    def request(**args: object) -> dict:
        values = {"enable": True, "model": options.module, "format": ["PNG"], "batch_size": WINDOW, "closed_loop": "N", **args}
        return {**common, "alwayson_scripts": {"AnimateDiff": {"args": [values]}}}

    long = {"video_length": VIDEOS * WINDOW, "context_mode": "motion attention"}
    windows = {f"64 frames, overlap {overlap}": request(**long, overlap=overlap) for overlap in OVERLAPS}
    offloaded = {"64 frames, offloaded": request(**long, overlap=OVERLAPS[0], offload=True)}
    return {"16 frames": request(video_length=WINDOW), **windows, **offloaded}


def counted_ratio(options: argparse.Namespace, overlap: int) -> float:
    """Returns the FLOP of a UNet call for the long video divided by those of four short ones, counted on meta tensors.

    The call is that of the second step, which has one window more than the first, because windows are shifted.
    """
    description = describe(weights_dir() / "motion" / options.module)
    windows = ContextWindows(VIDEOS * WINDOW, WINDOW, overlap)
    with torch.device("meta"):
        unet, module = UNetModel(**unet_params(SD15)), MotionModule(description.channels or {}, description.length)

    def count(frames: int, motion: Motion) -> int:
        with torch.device("meta"):
            call = (
                torch.randn(2 * frames, 4, *[options.size // 8] * 2),
                torch.zeros(2 * frames),
                torch.randn(2 * frames, 77, 768),
            )
        animating = attached(unet, motion, V3, lambda rows: layout_of_call(rows, frames))
        with animating, torch.no_grad(), FlopCounterMode(display=False) as counter:
            unet(*call)
        return counter.get_total_flops()

    return count(windows.frames, Motion(module, step_windows=lambda: windows.at(1))) / (VIDEOS * count(WINDOW, Motion(module)))


if __name__ == "__main__":
    main()
