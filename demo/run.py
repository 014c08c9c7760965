"""What `python -m demo` does inside the environment: one clip, the page, or a WebUI with everything in place."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

from demo.environment import ROOT

OUTPUTS = ROOT / "demo" / "outputs"
MEANINGLESS = (
    "NOTE: there are no trained weights for the demo yet, so these are random: the clip shows that everything runs, and its "
    "picture means nothing.\nFor a real one, name your files: --checkpoint MODEL --motion-module MODULE."
)


class Refused(Exception):
    """The request cannot be met. The text is for the user."""


def main(arguments: list[str]) -> int:
    options = read_options(arguments)
    try:
        checkpoint, motion_module = files_of(options)
        if options.webui:
            from demo.real_webui import run_with_demo

            return run_with_demo(options.webui, checkpoint, motion_module)
        start_host(checkpoint, motion_module)
        if options.page:
            from demo.server import serve

            serve(options.port, open_browser=True)
        else:
            print(make_clip(options, motion_module.name))
            print("The same with a page: python -m demo --page")
    except KeyboardInterrupt:
        print("\nStopped.")
        return 130
    except (OSError, ValueError, Refused) as error:
        print(f"The demo could not go on: {error}", file=sys.stderr)
        return 1
    return 0


def read_options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo", description="AnimateDiff without a WebUI: writes one clip as GIF.")
    prompt, out = (os.environ.get(name) or None for name in ("DEMO_PROMPT", "DEMO_OUT"))
    parser.add_argument("--prompt", default=prompt or "a boat on a lake", help="make demo: PROMPT=…")
    parser.add_argument("--out", type=Path, default=out, help="the GIF to write; make demo: OUT=…")
    parser.add_argument("--checkpoint", type=Path, help="an SD 1.x checkpoint instead of random weights")
    parser.add_argument("--motion-module", type=Path, help="the motion module for that checkpoint")
    parser.add_argument("--frames", type=_whole_number(1), default=16)
    parser.add_argument("--steps", type=_whole_number(2), default=20)
    parser.add_argument("--size", type=_whole_number(64, step=8), help="width and height in pixels")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--page", action="store_true", help="open a page instead of writing a clip")
    parser.add_argument("--port", type=int, help="of the page; without it, the first that is free")
    parser.add_argument(
        "--webui", type=Path, metavar="DIR", help="start the WebUI in DIR with this extension and these weights"
    )
    options = parser.parse_args(arguments)
    if bool(options.checkpoint) != bool(options.motion_module):
        parser.error("--checkpoint and --motion-module go together: a motion module fits one kind of checkpoint")
    for file in filter(None, (options.checkpoint, options.motion_module)):
        if not file.is_file() or file.suffix not in (".safetensors", ".ckpt"):
            parser.error(f"{file} is not a .safetensors or .ckpt file that is there")
    if options.out and options.out.suffix.lower() != ".gif":
        parser.error(f"{options.out} must end in .gif")
    return options


def _whole_number(least: int, step: int = 1) -> Callable[[str], int]:
    def read(text: str) -> int:
        number = int(text)
        if number < least or number % step:
            multiple = f", and a multiple of {step}" if step > 1 else ""
            raise argparse.ArgumentTypeError(f"it must be {least} or more{multiple}")
        return number

    return read


def files_of(options: argparse.Namespace) -> tuple[Path, Path]:
    """Checkpoint and motion module: those of the request, else random ones, which the first run makes."""
    if options.checkpoint:
        return options.checkpoint.absolute(), options.motion_module.absolute()
    from demo.weights import make_demo_weights

    print(MEANINGLESS, flush=True)
    return make_demo_weights(ROOT / "demo" / "data" / "weights")


def start_host(checkpoint: Path, motion_module: Path) -> None:
    from demo import host

    print("Starting …", flush=True)
    settings = {
        "sd_model_checkpoint": checkpoint.name,
        "animatediff_model_path": str(motion_module.parent),
        "outdir_txt2img_samples": str(OUTPUTS),
    }
    host.start(ROOT / "demo" / "data", checkpoint.parent, settings)


def make_clip(options: argparse.Namespace, motion_module: str) -> str:
    """Writes the GIF. Returns what to tell the user."""
    from modules.processing import StableDiffusionProcessingTxt2Img

    from demo import host
    from demo.server import HTTPException, generate, script_arguments

    out = options.out or free_name(options.prompt, options.seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    side = options.size or host.default_size()
    picture = {"prompt": options.prompt, "width": side, "height": side, "steps": options.steps, "seed": options.seed}
    p = StableDiffusionProcessingTxt2Img(**picture, sampler_name="DDIM", do_not_save_samples=True)
    animation = {"enable": True, "model": motion_module, "video_length": options.frames, "format": ["GIF"]}
    started = time.monotonic()
    try:
        processed = generate(p, "txt2img", script_arguments("txt2img", {"AnimateDiff": {"args": [animation]}}))
    except HTTPException as error:
        raise Refused(error.detail) from error
    processed.images[0].save(out)
    seconds = time.monotonic() - started
    return f"{options.frames} frames of {side}x{side} in {seconds:.0f} seconds: {out.absolute()}"


def free_name(prompt: str, seed: int) -> Path:
    """A file in the folder for outputs that does not exist yet."""
    stem = re.sub(r"[^\w]+", "-", prompt).strip("-")[:60] or "clip"
    names = (OUTPUTS / f"{stem}-{seed}{suffix}.gif" for suffix in ("", *(f"-{number}" for number in range(2, 10_000))))
    return next(name for name in names if not name.exists())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
