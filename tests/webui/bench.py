"""How much time and memory animation costs: `make bench`.

In one WebUI process, runs with and without a motion module take turns, on the same number of rows, at SD 1.5 size. The
time of one sampling step is the difference between a long and a short run, so that text encoding, VAE and files do not
count. Beside it stands the ratio of counted arithmetic. `--extension DIR` measures another AnimateDiff extension in the
same way, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from server import WebUI, webui_dir, webui_python, weights_dir
from torch.utils.flop_counter import FlopCounterMode

from motion_module.attach import attached
from motion_module.checkpoint import describe
from motion_module.families import V3
from motion_module.frames import row_layout
from motion_module.network import MotionModule

HERE = Path(__file__).resolve().parent
SHORT, LONG = 1, 3
SD15 = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "attention_resolutions": [4, 2, 1],
    "num_res_blocks": 2, "channel_mult": [1, 2, 4, 4], "num_heads": 8, "use_spatial_transformer": True, "transformer_depth": 1,
    "context_dim": 768, "use_checkpoint": False, "legacy": False,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extension", type=Path, default=HERE.parents[1], help="the AnimateDiff extension to measure")
    parser.add_argument("--module", default="mm_sd15_v3.safetensors")
    parser.add_argument("--size", type=int, default=64, help="width and height in pixels")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    folder = webui_dir()
    if folder is None:
        raise SystemExit("NO WEBUI: set WEBUI_DIR to a WebUI with its own venv.")
    subprocess.run([webui_python(folder), HERE / "weights.py", weights_dir()], check=True)
    settings = {
        "sd_model_checkpoint": "sd15.safetensors",
        "return_grid": False,
        "grid_save": False,
        "live_previews_enable": False,
    }
    with WebUI(Path(tempfile.mkdtemp()), [options.extension], options=settings) as server:
        measured = measure(server, requests_of(options), options.rounds)
    print_table(measured, counted_ratio(options), options)


def requests_of(options: argparse.Namespace) -> dict[str, dict]:
    common = {"width": options.size, "height": options.size, "negative_prompt": "bad", "sampler_name": "Euler"}
    frames = {"video_length": options.frames, "batch_size": options.frames}
    args = {"enable": True, "model": options.module, "format": ["PNG"], **frames}
    return {
        "without": {**common, "batch_size": options.frames},
        "with": {**common, "alwayson_scripts": {"AnimateDiff": {"args": [args]}}},
    }


def measure(server: WebUI, requests: dict[str, dict], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds per sampling step and peak memory in GiB, for each kind of request and round. A round before them warms up."""
    measured: dict[str, list[tuple[float, float]]] = {kind: [] for kind in requests}
    for round_number in range(rounds + 1):
        for kind, request in requests.items():
            reset_peak(server)
            seconds = [timed(server, {**request, "steps": steps}) for steps in (SHORT, LONG)]
            if round_number:
                measured[kind].append(((seconds[1] - seconds[0]) / (LONG - SHORT), peak(server)))
    return measured


def timed(server: WebUI, request: dict) -> float:
    start = time.perf_counter()
    server.txt2img(**request).raise_for_status()
    return time.perf_counter() - start


def reset_peak(server: WebUI) -> None:
    Path(f"/proc/{server.pid}/clear_refs").write_text("5")


def peak(server: WebUI) -> float:
    """The most memory that the process has held since `reset_peak`, in GiB (Linux)."""
    lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 2**20


def counted_ratio(options: argparse.Namespace) -> float:
    """Multiplications with the module over those without it, in one UNet call; counted by torch on tensors without data."""
    description = describe(weights_dir() / "motion" / options.module)
    rows, latent = 2 * options.frames, options.size // 8
    with torch.device("meta"):
        unet = UNetModel(**SD15)
        module = MotionModule(description.channels or {}, description.length)
        call = torch.randn(rows, 4, latent, latent), torch.zeros(rows), torch.randn(rows, 77, 768)

        def count() -> int:
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                unet(*call)
            return counter.get_total_flops()

        without = count()
        # The family decides over norms alone, which are not counted.
        with attached(unet, module, V3, lambda rows: row_layout(rows, options.frames)):
            return count() / without


def print_table(measured: dict[str, list[tuple[float, float]]], counted: float, options: argparse.Namespace) -> None:
    medians = {kind: [statistics.median(values) for values in zip(*rounds)] for kind, rounds in measured.items()}
    print(f"{options.extension.name}, {options.module}, {options.frames} frames of {options.size}x{options.size}, CPU, fp32")
    for kind, (seconds, memory) in medians.items():
        print(f"  {kind:8} {seconds:7.3f} s per step (median of {options.rounds}), peak {memory:.2f} GiB")
    measured_ratio = medians["with"][0] / medians["without"][0]
    print(f"  ratio {measured_ratio:.3f} measured, {counted:.3f} counted in multiplications")
    print(json.dumps({"rounds": measured, "measured_ratio": measured_ratio, "counted_ratio": counted}))


if __name__ == "__main__":
    main()
