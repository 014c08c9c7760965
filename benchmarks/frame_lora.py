"""Measures what a LoRA with a strength for each frame costs in one UNet call: `make bench-lora`.

The UNet has the size of Stable Diffusion 1.5 and random weights, the LoRA rank 64 in every linear layer and 1×1 convolution of
the transformers, as kohya's trainer makes it. Calls with and without it alternate. The ratio of the FLOP is printed for
comparison.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from ldm.modules.diffusionmodules.openaimodel import UNetModel  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from demo.weights import SD15, unet_params  # noqa: E402
from motion_module.frame_loras import added_by_frame  # noqa: E402
from motion_module.lora import Lora, LowRank, Target  # noqa: E402
from motion_module.ordinary_loras import layers_by_name  # noqa: E402
from motion_module.row_layout import layout_of_call  # noqa: E402

RANK = 64
CONDITIONS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="width and height in pixels")
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    on_cuda = torch.cuda.is_available()
    device, dtype = ("cuda", torch.float16) if on_cuda else ("cpu", torch.float32)
    unet = UNetModel(**{**unet_params(SD15), "use_checkpoint": False}).to(device, dtype).eval()
    rows = CONDITIONS * options.frames
    side = options.size // 8
    given = [torch.randn(rows, 4, side, side), torch.full((rows,), 500.0), torch.randn(rows, 77, 768)]
    call = [part.to(device, dtype) for part in given]
    lora, strengths = lora_for(unet), tuple(frame / options.frames for frame in range(options.frames))
    added = lambda: added_by_frame(unet, [], [(lora, strengths)], lambda rows: layout_of_call(rows, options.frames))  # noqa: E731

    def seconds() -> float:
        begin = time.perf_counter()
        unet(*call)
        if on_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    def flop() -> int:
        with FlopCounterMode(display=False) as counter:
            unet(*call)
        return counter.get_total_flops()

    without, with_it = [], []
    with torch.no_grad():
        plain = flop()
        with added():
            more = flop()
        for _ in range(options.rounds):
            without.append(seconds())
            with added():
                with_it.append(seconds())
    print(f"FLOP: {more / plain - 1:+.1%}")
    ratios = [one / other - 1 for one, other in zip(with_it, without)]
    print(f"time of a UNet call: {statistics.median(without):.3f} s, with the LoRA {statistics.median(with_it):.3f} s")
    shortest = min(with_it) / min(without) - 1
    print(f"median of {len(ratios)} ratios {statistics.median(ratios):+.1%}; of the shortest calls {shortest:+.1%}")


def lora_for(unet: torch.nn.Module) -> Lora:
    """Returns a LoRA for every linear layer and 1×1 convolution of the transformers."""
    parts = {}
    names = {layer: name for name, layer in layers_by_name(unet).items() if "attentions" in name}
    for layer, name in names.items():
        weight = layer.weight.flatten(1)
        down, up = torch.randn(RANK, weight.shape[1]) / 100, torch.randn(weight.shape[0], RANK) / 100
        parts[Target("unet", "", name)] = LowRank(down, up, 1.0)
    return Lora(Path("random.safetensors"), parts)


if __name__ == "__main__":
    main()
