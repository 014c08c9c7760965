"""Measures what SparseCtrl costs: the time of a UNet call with a motion module, with and without a SparseCtrl network.

Everything has the size of Stable Diffusion 1.5 and random weights. Calls with and without the network alternate. The ratio of
the counted FLOP is printed for comparison.

    python benchmarks/sparse_ctrl.py [--size PIXELS] [--frames N] [--rounds N]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from motion_module.attach import attached, channels_by_block  # noqa: E402
from motion_module.families import V3  # noqa: E402
from motion_module.key_layouts import expected_blocks  # noqa: E402
from motion_module.motion_layers import Motion  # noqa: E402
from motion_module.network import MotionModule  # noqa: E402
from motion_module.row_layout import RowLayout  # noqa: E402
from motion_module.sparse_control import SparseControl  # noqa: E402
from motion_module.sparse_ctrl import Shape, SparseCtrl  # noqa: E402
from motion_module.training.image_model import STABLE_DIFFUSION_1, new_unet  # noqa: E402

CONDITIONS = 2
"""A prompt and a negative prompt."""


class Call:
    """A UNet call with a motion module. `device`: where; on "meta", only FLOP can be counted."""

    def __init__(self, device: str, size: int, frames: int) -> None:
        with torch.device(device):
            self._unet = new_unet(STABLE_DIFFUSION_1["unet_config"]["params"]).eval().requires_grad_(False)
            channels = channels_by_block(self._unet)
            blocks = {name: channels[name] for name in expected_blocks(4, mid=False)}
            self._module = MotionModule(blocks, V3.positions).eval().requires_grad_(False)
            network = SparseCtrl(Shape("RGB", (320, 640, 1280, 1280), 768)).eval().requires_grad_(False)
            rows, latents = CONDITIONS * frames, size // 8
            self._given = torch.zeros(rows, 4, latents, latents), torch.zeros(rows), torch.zeros(rows, 77, 768)
            picture = torch.zeros(1, 4, latents, latents)
        self._frames = frames
        self._control = SparseControl(network, [0], lambda *_: picture)

    def run(self, *, with_sparse: bool) -> None:
        layout = RowLayout(self._frames, CONDITIONS * self._frames)
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(attached(self._unet, Motion(self._module), V3, lambda _rows: layout))
            if with_sparse:
                x, times, context = self._given
                self._control.added(x, times, context, layout, None)
            self._unet(*self._given)

    def seconds(self, *, with_sparse: bool) -> float:
        begun = time.perf_counter()
        self.run(with_sparse=with_sparse)
        return time.perf_counter() - begun

    def flop(self, *, with_sparse: bool) -> int:
        with FlopCounterMode(display=False) as counter:
            self.run(with_sparse=with_sparse)
        return counter.get_total_flops()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128, help="width and height in pixels")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    call = Call("cpu", options.size, options.frames)
    call.run(with_sparse=True)  # warms up, and embeds the picture
    pairs = [[call.seconds(with_sparse=with_sparse) for with_sparse in (False, True)] for _ in range(options.rounds)]
    ratio = statistics.median(with_sparse / without for without, with_sparse in pairs)
    counted = Call("meta", options.size, options.frames)
    expected = counted.flop(with_sparse=True) / counted.flop(with_sparse=False)
    print(f"time ×{ratio:.3f}, FLOP ×{expected:.3f}: the cost is {(ratio - 1) / (expected - 1):.2f} of its counted arithmetic")


if __name__ == "__main__":
    main()
