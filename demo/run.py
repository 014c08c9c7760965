"""What `python -m demo` does inside the environment: one clip, the page, or a WebUI with everything in place."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

from demo.environment import ROOT

OUTPUTS = ROOT / "demo" / "outputs"
MEANINGLESS = (
    "NOTE: there are no trained weights for the demo yet, so these are random: the clip shows that everything runs, and its "
    "picture means nothing.\nFor a real one, name your files: --checkpoint MODEL --motion-module MODULE."
)


def main(arguments: list[str] | None = None) -> int:
    options = read_options(arguments)
    try:
        if options.webui:
            from demo.real_webui import run_with_demo

            return run_with_demo(options.webui, *files_of(options))
        start_host(*files_of(options))
        if options.page:
            from demo.server import serve

            serve(options.port, open_browser=True)
        else:
            print(make_clip(options))
            print("The same with a page: python -m demo --page")
    except KeyboardInterrupt:
        print("\nStopped.")
        return 130
    except OSError as error:
        print(f"The demo could not go on: {error}.\nIt writes to {ROOT / 'demo'} and to what OUT names.", file=sys.stderr)
        return 1
    except Refused as error:
        print(error, file=sys.stderr)
        return 1
    return 0


class Refused(Exception):
    """The request cannot be met. The text is for the user."""


def read_options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo", description="AnimateDiff without a WebUI: writes one clip as GIF.")
    parser.add_argument("--prompt", default=os.environ.get("PROMPT") or "a boat on a lake", help="also as PROMPT=…")
    parser.add_argument("--out", type=Path, default=os.environ.get("OUT") or None, help="the GIF to write; also as OUT=…")
    parser.add_argument("--checkpoint", type=Path, help="an SD 1.x checkpoint instead of random weights")
    parser.add_argument("--motion-module", type=Path, help="the motion module for that checkpoint")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--size", type=int, help="width and height in pixels")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--page", action="store_true", help="open a page instead of writing a clip")
    parser.add_argument("--port", type=int, help="of the page; without it, the first that is free")
    parser.add_argument(
        "--webui", type=Path, metavar="DIR", help="start the WebUI in DIR with this extension and these weights"
    )
    options = parser.parse_args(arguments)
    if bool(options.checkpoint) != bool(options.motion_module):
        parser.error("--checkpoint and --motion-module go together: a motion module fits one kind of checkpoint")
    for file in (options.checkpoint, options.motion_module):
        if file and not file.is_file():
            parser.error(f"{file} is not there")
    if options.out and options.out.suffix.lower() != ".gif":
        parser.error(f"{options.out} must end in .gif")
    return options


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


def make_clip(options: argparse.Namespace) -> str:
    """Writes the GIF. Returns what to tell the user."""
    from modules.processing import StableDiffusionProcessingTxt2Img

    from demo import host
    from demo.server import generate

    out = options.out or free_name(options.prompt, options.seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    side = options.size or host.default_size()
    picture = {"prompt": options.prompt, "width": side, "height": side, "steps": options.steps, "seed": options.seed}
    p = StableDiffusionProcessingTxt2Img(**picture, sampler_name="DDIM", do_not_save_samples=True)
    started = time.monotonic()
    processed = generate_or_refuse(generate, p, animatediff(options))
    processed.images[0].save(out)
    seconds = time.monotonic() - started
    return f"{options.frames} frames of {side}x{side} in {seconds:.0f} seconds: {out.absolute()}"


def generate_or_refuse(generate: Any, p: Any, arguments: dict[str, Any]) -> Any:
    from animatediff.scope import AnimateDiffError
    from demo.server import script_arguments

    try:
        return generate(p, "txt2img", script_arguments("txt2img", {"AnimateDiff": {"args": [arguments]}}))
    except AnimateDiffError as error:
        raise Refused(str(error)) from error


def animatediff(options: argparse.Namespace) -> dict[str, Any]:
    """The extension's part of the request."""
    from animatediff import library

    name = options.motion_module.name if options.motion_module else library.names()[0]
    return {"enable": True, "model": name, "video_length": options.frames, "format": ["GIF"]}


def free_name(prompt: str, seed: int) -> Path:
    """A file in the folder for outputs that does not exist yet."""
    stem = re.sub(r"[^\w]+", "-", prompt).strip("-")[:60] or "clip"
    names = (OUTPUTS / f"{stem}-{seed}{suffix}.gif" for suffix in ("", *(f"-{number}" for number in range(2, 10_000))))
    return next(name for name in names if not name.exists())


if __name__ == "__main__":
    sys.exit(main())
