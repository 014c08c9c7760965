"""Measures the time and memory that animation costs, for `benchmarks/report.py` and by itself.

In one process of a host, runs with and without a motion module alternate, with the same number of rows, at the size of SD 1.5,
with torch's fused attention in the image model too. The time of one sampling step is the difference between a long and a short
run, so that text encoding, VAE and files are not included. The ratio of the FLOP is printed for comparison.

    python benchmarks/step_time.py                        the embedded host; on CUDA in half precision if there is a GPU
    python benchmarks/step_time.py --host webui           a live WebUI on the CPU
    python benchmarks/step_time.py --host webui --extension DIR     another AnimateDiff extension, in the same way
    python benchmarks/step_time.py --frames 64 --length 16 --overlap 4      windows, of the motion attention where they can be
    python benchmarks/step_time.py --speed Fast           light steps too
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from ldm.modules.diffusionmodules.openaimodel import UNetModel  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from demo.weights import SD15, unet_params  # noqa: E402
from motion_module.attach import attached  # noqa: E402
from motion_module.checkpoint import describe  # noqa: E402
from motion_module.context_windows import ContextWindows  # noqa: E402
from motion_module.families import V3  # noqa: E402
from motion_module.motion_layers import Motion  # noqa: E402
from motion_module.network import MotionModule  # noqa: E402
from motion_module.row_layout import layout_of_call  # noqa: E402
from support.server import HOSTS, Server, weights_dir  # noqa: E402

LIGHT = "light"
"""The kind of request that has light steps."""
STEPS, STEPS_WITH_LIGHT_ONES = (1, 3), (10, 20)
"""The steps of a short and of a long run. Every second one of those that the long run has more is light."""
SETTINGS = {
    "sd_model_checkpoint": "sd15.safetensors",
    "cross_attention_optimization": "sdp - scaled dot product",
    "return_grid": False,
    "grid_save": False,
    "live_previews_enable": False,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", choices=HOSTS, default="embedded")
    parser.add_argument("--extension", type=Path, default=ROOT, help="the AnimateDiff extension to measure")
    parser.add_argument("--module", default="mm_sd15_v3.safetensors")
    parser.add_argument("--size", type=int, default=64, help="width and height in pixels")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--length", type=int, help="the context length, if not all frames")
    parser.add_argument("--overlap", type=int, default=4, help="how many frames windows share")
    parser.add_argument("--speed", help="a choice of Speed, whose runs alternate with the others")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fp32", action="store_true", help="single precision on CUDA too; on a CPU it is always single")
    options = parser.parse_args()
    options.length = options.length or options.frames

    on_cuda = options.host == "embedded" and torch.cuda.is_available()
    subprocess.run([sys.executable, "-m", "demo.weights", weights_dir()], cwd=ROOT, check=True)
    more = ["--dtype", "float32"] if options.fp32 and on_cuda else []
    with (
        tempfile.TemporaryDirectory() as folder,
        HOSTS[options.host](Path(folder), [options.extension.resolve()], more, options=SETTINGS) as server,
    ):
        measured = measure(server, requests_of(options), options.rounds, peak_on_cuda if on_cuda else peak_on_cpu)
    device = torch.cuda.get_device_name() if on_cuda else f"CPU, {torch.get_num_threads()} threads"
    precision = "fp16" if on_cuda and not options.fp32 else "fp32"
    print_table(measured, counted_ratio(options), options, f"{options.host} host, {device}, {precision}")


def requests_of(options: argparse.Namespace) -> dict[str, dict]:
    common = {"width": options.size, "height": options.size, "negative_prompt": "bad", "sampler_name": "Euler"}
    frames = {"video_length": options.frames, "batch_size": options.length, "overlap": options.overlap, "closed_loop": "N"}
    args = {"enable": True, "model": options.module, "format": ["PNG"], **frames}
    if options.extension.resolve() == ROOT:  # the other one has no such choice
        args["context_mode"] = "motion attention"
    requests = {
        "without": {**common, "batch_size": options.frames},
        "with": {**common, "alwayson_scripts": {"AnimateDiff": {"args": [args]}}},
    }
    if options.speed:
        requests[LIGHT] = {**common, "alwayson_scripts": {"AnimateDiff": {"args": [{**args, "speed": options.speed}]}}}
    return requests


def measure(
    server: Server, requests: dict[str, dict], rounds: int, peak: Callable[[Server], float]
) -> dict[str, list[tuple[float, float]]]:
    """Returns seconds per sampling step and peak GiB for each kind of request and round, after a round to warm up."""
    measured: dict[str, list[tuple[float, float]]] = {kind: [] for kind in requests}
    for round_number in range(rounds + 1):
        for kind, request in requests.items():
            if not round_number and kind == LIGHT:
                continue  # the others warm up what it uses
            if peak is peak_on_cpu:
                reset_peak_on_cpu(server)
            short, long = STEPS_WITH_LIGHT_ONES if kind == LIGHT else STEPS
            seconds = [timed(server, {**request, "steps": steps}) for steps in (short, long)]
            if round_number:
                measured[kind].append(((seconds[1] - seconds[0]) / (long - short), peak(server)))
                print(f"{kind}, round {round_number}: {measured[kind][-1][0]:.3f} s per step", file=sys.stderr, flush=True)
    return measured


def timed(server: Server, request: dict) -> float:
    start = time.perf_counter()
    server.txt2img(**request).raise_for_status()
    return time.perf_counter() - start


def reset_peak_on_cpu(server: Server) -> None:
    Path(f"/proc/{server.pid}/clear_refs").write_text("5")


def peak_on_cpu(server: Server) -> float:
    """Returns the peak GiB of the process since `reset_peak_on_cpu` (Linux)."""
    lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 2**20


def peak_on_cuda(server: Server) -> float:
    """Returns the peak GiB that torch has allocated on the GPU in the last request."""
    return server.get("/sdapi/v1/memory").json()["cuda"]["allocated"]["peak"] / 2**30


def counted_ratio(options: argparse.Namespace) -> float:
    """Returns the FLOP of one UNet call with the module divided by those without it, counted on meta tensors."""
    description = describe(weights_dir() / "motion" / options.module)
    rows, latent = 2 * options.frames, options.size // 8
    windows = ContextWindows(options.frames, options.length, options.overlap)
    in_second_step = windows.at(1)  # outside of meta tensors, which have no numbers
    with torch.device("meta"):
        unet = UNetModel(**unet_params(SD15))
        module = MotionModule(description.channels or {}, description.length)
        call = torch.randn(rows, 4, latent, latent), torch.zeros(rows), torch.randn(rows, 77, 768)

        def count() -> int:
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                unet(*call)
            return counter.get_total_flops()

        without = count()
        # The family changes only norms, which are not counted.
        motion = Motion(module, step_windows=(lambda: in_second_step) if windows.needed else None)
        with attached(unet, motion, V3, lambda rows: layout_of_call(rows, options.frames)):
            return count() / without


def print_table(
    measured: dict[str, list[tuple[float, float]]], counted: float, options: argparse.Namespace, where: str
) -> None:
    medians = {kind: [statistics.median(values) for values in zip(*rounds)] for kind, rounds in measured.items()}
    print(f"{options.extension.name}, {options.module}, {options.frames} frames of {options.size}x{options.size}, {where}")
    for kind, (seconds, memory) in medians.items():
        print(f"  {kind:8} {seconds:7.3f} s per step (median of {options.rounds}), peak {memory:.2f} GiB")
    measured_ratio = medians["with"][0] / medians["without"][0]
    print(f"  ratio {measured_ratio:.3f} measured, {counted:.3f} counted in multiplications")
    if LIGHT in medians:
        print(f"  ratio {medians[LIGHT][0] / medians['without'][0]:.3f} with light steps")
    print(json.dumps({"where": where, "rounds": measured, "measured_ratio": measured_ratio, "counted_ratio": counted}))


if __name__ == "__main__":
    main()
