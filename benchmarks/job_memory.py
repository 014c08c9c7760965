"""Measures the RAM of whole jobs: `make bench-memory`.

With Stable Diffusion 1.5's size, in windows of 16 frames over the whole UNet: the peak of the host's process in clips of 64
and of 256 frames, one step each. Then, with the tests' narrow weights, what the process holds after each of 40 clips.

    python benchmarks/job_memory.py [--host webui] [--extension DIR] [--size 64] [--jobs 40]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from step_time import HOSTS, ROOT, SETTINGS, Server, peak_on_cpu, reset_peak_on_cpu, weights_dir

LENGTHS = (64, 256)
WARM_UP = 5
"""Jobs after which Python and torch have what they keep."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", choices=HOSTS, default="embedded")
    parser.add_argument("--extension", type=Path, default=ROOT, help="the AnimateDiff extension to measure")
    parser.add_argument("--size", type=int, default=64, help="width and height in pixels of the long clips")
    parser.add_argument("--jobs", type=int, default=40)
    options = parser.parse_args()

    subprocess.run([sys.executable, "-m", "demo.weights", weights_dir()], cwd=ROOT, check=True)
    with started(options, "sd15.safetensors") as server:
        make(server, "mm_sd15_v3.safetensors", 32, options.size)
        peaks = measured_peaks(server, options.size)
    with started(options, "tiny-a.safetensors") as server:
        after = measured_growth(server, options.jobs)
    print(json.dumps({"peaks": peaks, "after": after}))


@contextmanager
def started(options: argparse.Namespace, checkpoint: str) -> Iterator[Server]:
    """Runs a host with a checkpoint, in a folder that is deleted afterwards."""
    settings, extension = {**SETTINGS, "sd_model_checkpoint": checkpoint}, options.extension.resolve()
    with (
        tempfile.TemporaryDirectory() as folder,
        HOSTS[options.host](Path(folder), [extension], options=settings) as server,
    ):
        yield server


def make(server: Server, module: str, frames: int, size: int, steps: int = 1) -> None:
    args = {"enable": True, "model": module, "video_length": frames, "batch_size": 16, "overlap": 4, "format": ["GIF"]}
    request = {"width": size, "height": size, "steps": steps, "sampler_name": "Euler"}
    server.txt2img(**request, alwayson_scripts={"AnimateDiff": {"args": [args]}}).raise_for_status()


def measured_peaks(server: Server, size: int) -> dict[int, float]:
    """Returns the peak GiB by the number of frames."""
    peaks = {}
    for frames in LENGTHS:
        before = held(server)
        reset_peak_on_cpu(server)
        make(server, "mm_sd15_v3.safetensors", frames, size)
        peaks[frames] = peak = peak_on_cpu(server)
        print(f"{frames} frames of {size}x{size}: peak {peak:.3f} GiB, {peak - before:.3f} more than before", flush=True)
    short, long = (peaks[frames] for frames in LENGTHS)
    print(f"  ratio {long / short:.3f}; the frames themselves take {LENGTHS[1] * size * size * 3 / 2**30:.3f} GiB")
    return peaks


def measured_growth(server: Server, jobs: int) -> list[float]:
    """Returns the GiB that the process holds after each job."""
    after = []
    for _ in range(jobs):
        make(server, "mm_tiny_v3.safetensors", 24, 64, steps=2)
        after.append(held(server))
    print(f"{jobs} clips: {after[WARM_UP]:.3f} GiB after {WARM_UP + 1} of them, {after[-1]:.3f} after all")
    print(f"  ratio {after[-1] / after[WARM_UP]:.4f}, at most {max(after) / after[WARM_UP]:.4f}")
    return after


def held(server: Server) -> float:
    """Returns the GiB that the process holds now (Linux)."""
    lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 2**20


if __name__ == "__main__":
    main()
