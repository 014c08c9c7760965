"""Measures the time that light steps save: `make bench-light`.

In one process, clips are sampled in turn with each choice of Speed, by the UNet of Stable Diffusion 1.5's size with a v3 motion
module, both of random numbers, in calls of a prompt and a negative prompt. Text encoder, VAE and files are not included.

    python benchmarks/light_steps.py [--size 128] [--frames 16] [--steps 20] [--every 2] [--rounds 5]
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from demo.weights import SD15, unet_params  # noqa: E402
from motion_module.attach import attached, channels_by_block  # noqa: E402
from motion_module.deep_features import DeepFeatures  # noqa: E402
from motion_module.families import V3  # noqa: E402
from motion_module.light_steps import LightSteps  # noqa: E402
from motion_module.motion_layers import Motion  # noqa: E402
from motion_module.network import MotionModule  # noqa: E402
from motion_module.row_layout import layout_of_call  # noqa: E402
from motion_module.step_reuse import NEGATIVE, StepReuse  # noqa: E402
from motion_module.training.image_model import new_unet  # noqa: E402

CHOICES = {
    "Exact": (False, False),
    "Fast": (True, True),
    "Fast (deep blocks)": (True, False),
    "Fast (negative prompt)": (False, True),
}
"""Whether deep features are used and whether the negative prompt is left out, by the choice of Speed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128, help="width and height in pixels")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--every", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--choices", nargs="*", choices=CHOICES, default=list(CHOICES))
    options = parser.parse_args()
    print_counted(options)
    if options.rounds == 0:
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    unet, module = models(device, dtype)
    seconds: dict[str, list[list[float]]] = {choice: [] for choice in options.choices}
    for number in range(options.rounds + 1):
        for choice in options.choices:
            steps = options.steps if number else 2  # the first round warms up
            taken = list(sampled(unet, module, LightSteps(options.every), *CHOICES[choice], options, steps, device, dtype))
            if number:
                seconds[choice].append(taken)
                print(f"{choice}, round {number}: {sum(taken):.2f} s", file=sys.stderr, flush=True)
    report(seconds, options, f"{device.type}, {torch.get_num_threads()} threads, {dtype}")


def models(device: torch.device, dtype: torch.dtype) -> tuple[torch.nn.Module, MotionModule]:
    with torch.device(device):
        unet = new_unet(unet_params(SD15)).eval().requires_grad_(False).to(dtype)
        channels = {name: count for name, count in channels_by_block(unet).items() if name != "mid_0"}
        return unet, MotionModule(channels, 32).requires_grad_(False).to(dtype)


def print_counted(options: argparse.Namespace) -> None:
    """Prints the FLOP of a light step as a fraction of a full one's, counted on meta tensors, and what follows for a clip."""
    meta, light = torch.device("meta"), LightSteps(options.every)
    unet, module = models(meta, torch.float32)

    def count(choice: str) -> list[int]:
        counter, found = FlopCounterMode(display=False), []
        steps = sampled(unet, module, light, *CHOICES[choice], options, 3, meta, torch.float32)
        for _ in range(2):
            with counter:
                next(steps)
            found.append(counter.get_total_flops())
        steps.close()
        return found

    share = light.count(options.steps) / options.steps
    for choice in options.choices:
        full, part = count(choice)
        print(f"  {choice:24} counted: light step {part / full:.3f}, clip {1 - share * (1 - part / full):.3f}")


def sampled(
    unet: torch.nn.Module,
    module: MotionModule,
    light: LightSteps,
    deep: bool,
    negative: bool,
    options: argparse.Namespace,
    steps: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Iterator[float]:
    """Yields the seconds that each step of a clip takes."""
    step, side, rows = 0, options.size // 8, 2 * options.frames
    layout = partial(layout_of_call, frames=options.frames)
    draw = {"device": device, "dtype": dtype}
    x, context = torch.randn(rows, 4, side, side, **draw), torch.randn(rows, 77, 768, **draw)
    features = DeepFeatures(layout) if deep else None
    motion = Motion(module, rests=features.rests if features else lambda block: False)
    reuse = StepReuse(
        light,
        features,
        negative=negative,
        step=lambda: step,
        steps=lambda: steps,
        at_step=_never,
        layout_of=layout,
        conditions_of=lambda *_: [0, NEGATIVE],
    )
    with ExitStack() as stack:
        if deep or negative:
            stack.enter_context(reuse.applied_to(unet))
        stack.enter_context(attached(unet, motion, V3, layout))
        if features is not None:
            stack.enter_context(features.applied_to(unet))
        for step in range(steps):
            began = time.perf_counter()
            with torch.no_grad():
                unet(x, torch.full((rows,), 1000 - step, device=device), context=context)
            if device.type == "cuda":
                torch.cuda.synchronize()
            yield time.perf_counter() - began


@contextmanager
def _never(step: int) -> Iterator[None]:
    raise AssertionError("nothing is read from the disk here")
    yield


def report(seconds: dict[str, list[list[float]]], options: argparse.Namespace, where: str) -> None:
    """Prints the median time of a clip with each choice, and that of a light step as a fraction of a full one."""
    light = LightSteps(options.every)
    print(f"{options.frames} frames of {options.size}x{options.size}, {options.steps} steps, {where}")
    totals = {choice: statistics.median(map(sum, rounds)) for choice, rounds in seconds.items()}
    full = statistics.median(itertools.chain(*seconds["Exact"]))
    for choice, rounds in seconds.items():
        of_light = [t for taken in rounds for step, t in enumerate(taken) if light.is_light(step, options.steps)]
        part = statistics.median(of_light) / full
        print(
            f"  {choice:24} {totals[choice]:8.2f} s, {totals[choice] / totals['Exact']:.3f}; a light step {part:.3f} of a full"
        )
    print(json.dumps({"where": where, "options": vars(options), "seconds": seconds}))


if __name__ == "__main__":
    main()
