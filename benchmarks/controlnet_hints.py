"""Measures what it costs to give ControlNet the hints of the rows of each UNet call: `make bench-hints`.

In one process, the hints of all rows of a call and a call of a UNet of SD 1.5's size are timed, at the same size. On a CPU the
UNet is called with one row, and its time is multiplied by the number of rows. ControlNet's own work is not included, so the
printed fraction is an upper bound.

    python benchmarks/controlnet_hints.py
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "demo" / "host" / "webui")]

from ldm.modules.diffusionmodules.openaimodel import UNetModel  # noqa: E402

from animatediff.controlnet.hints import Hints  # noqa: E402
from demo.weights import SD15, unet_params  # noqa: E402

CONDITIONS = 2
"""The prompt and the negative prompt."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="width and height in pixels")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    hints = Hints(options.frames, range(options.frames))
    for _ in range(options.frames):
        hints.add(torch.randint(0, 256, (1, 3, options.size, options.size)) / 255)
    rows = [*range(options.frames)] * CONDITIONS
    other = [*reversed(rows)]  # each call has other rows than the one before, as in a clip of several windows
    given = timed(lambda: (hints.rows(rows, device), hints.rows(other, device)), options.rounds, device) / 2
    called, at_once = call_time(options, len(rows), device)
    print(f"{device}, {options.size}×{options.size}, {options.frames} frames, {len(rows)} rows of a call")
    print(f"hints of all rows: {1000 * given:.1f} ms")
    print(f"UNet call, {at_once} rows at once: {called:.2f} s")
    print(f"fraction: {100 * given / called:.2f} %")


def call_time(options: argparse.Namespace, rows: int, device: torch.device) -> tuple[float, int]:
    """Returns the time of a UNet call with these rows, and how many of them were in one call."""
    at_once = rows if device.type == "cuda" else 1
    kind = torch.float16 if device.type == "cuda" else torch.float32
    with torch.device(device):
        unet = UNetModel(**unet_params(SD15)).to(kind).eval()
        latents = torch.randn(at_once, 4, options.size // 8, options.size // 8, dtype=kind)
        steps, context = torch.full((at_once,), 500), torch.randn(at_once, 77, SD15.text_width, dtype=kind)
    with torch.no_grad():
        seconds = timed(lambda: unet(latents, steps, context), max(2, options.rounds // 2), device)
    return seconds * rows / at_once, at_once


def timed(work: Callable[[], object], rounds: int, device: torch.device) -> float:
    """Returns the median seconds, without the first round."""
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


if __name__ == "__main__":
    main()
