"""Measures the time from the last sampling step to the answer of the API: `make bench-answer`.

It runs in a live WebUI on the CPU, and measures the encoding and writing of files. The VAE, which takes the same time with
every extension, is replaced.

    python benchmarks/answer_time.py
    python benchmarks/answer_time.py --extension DIR      another AnimateDiff extension, in the same way
"""

from __future__ import annotations

import argparse
import base64
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.server import Server, WebUI, weights_dir  # noqa: E402

FIRST_BYTES = {"GIF": b"GIF89a", "MP4": b"ftyp", "WEBP": b"WEBP"}
STAMP = """
import time
from pathlib import Path

import torch
from modules import script_callbacks, scripts

FILE = Path(scripts.basedir()) / "sampled"


class Stamp(scripts.Script):
    def title(self):
        return "Stamp"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def post_sample(self, p, ps, *arguments):
        ps.samples = moving_clouds(*ps.samples.shape)
        FILE.write_text(str(time.time()))


def moving_clouds(frames, channels, height, width):
    torch.manual_seed(1)
    sky = torch.nn.functional.interpolate(torch.randn(1, channels, 8, 16), (height, width + frames), mode="bicubic")
    return torch.cat([sky[..., frame : frame + width] for frame in range(frames)])


def without_networks(model):
    model.model.diffusion_model.forward = lambda x, *arguments, **more: torch.zeros_like(x)
    model.decode_first_stage = lambda latents: torch.nn.functional.interpolate(latents[:, :3], scale_factor=8, mode="bicubic")


script_callbacks.on_model_loaded(without_networks)
"""
"""An extension that writes down when sampling has ended, and replaces the results of UNet and VAE with moving clouds."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extension", type=Path, default=ROOT, help="the AnimateDiff extension to measure")
    parser.add_argument("--size", type=int, default=512, help="width and height in pixels")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--formats", nargs="+", choices=FIRST_BYTES, default=list(FIRST_BYTES))
    options = parser.parse_args()

    subprocess.run([sys.executable, "-m", "demo.weights", weights_dir()], cwd=ROOT, check=True)
    with tempfile.TemporaryDirectory() as folder:
        stamp = Path(folder) / "stamp"
        (stamp / "scripts").mkdir(parents=True)
        (stamp / "scripts" / "stamp.py").write_text(STAMP)
        settings = {
            "sd_model_checkpoint": "sd15.safetensors",
            "live_previews_enable": False,
            "return_grid": False,
            "grid_save": False,
        }
        with WebUI(Path(folder) / "data", [options.extension.resolve(), stamp], options=settings) as server:
            seconds = measure(server, stamp / "sampled", options)
    print(f"{options.extension.name}, {options.frames} frames of {options.size}x{options.size}, live WebUI, CPU")
    for name, values in seconds.items():
        print(f"  {name:5} {statistics.median(values):6.2f} s (median; {min(values):.2f} to {max(values):.2f})")
    print(json.dumps({"seconds": seconds}))


def measure(server: Server, sampled: Path, options: argparse.Namespace) -> dict[str, list[float]]:
    """Returns seconds from the end of sampling to the answer by format. Formats alternate, after a round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in options.formats}
    for round_number in range(options.rounds + 1):
        for name in options.formats:
            args = {"enable": True, "model": "mm_sd15_v3.safetensors", "format": [name], "video_length": options.frames}
            args |= {"batch_size": options.frames}
            request = {"width": options.size, "height": options.size, "steps": 1, "save_images": True}
            answer = server.txt2img(**request, alwayson_scripts={"AnimateDiff": {"args": [args]}})
            end = time.time()
            (video,) = answer.json()["images"]
            assert FIRST_BYTES[name] in base64.b64decode(video)[:12], f"the answer to a request for {name} is something else"
            if round_number:
                seconds[name].append(end - float(sampled.read_text()))
    return seconds


if __name__ == "__main__":
    main()
