"""What `python -m demo` runs in its environment: it makes clips, opens a page, or starts an installed WebUI."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.environment import ROOT

OUTPUTS = ROOT / "demo" / "outputs"
DATA = ROOT / "demo" / "data"
PROMPT = "a red circle moving left on a blue background"
CFG_SCALE = 5.0
"""The scale that the demo's models were measured with. The user's own models get the WebUI's default."""
PICTURES, PICTURE_SEED = "pictures", 7
"""What is added to the name of the clip that begins and ends with pictures, and the seed that they are drawn with."""
ADVICE = (
    f"The demo's small models were trained at 128×128 and measured at CFG scale {CFG_SCALE:g}. The button “Use the recommended "
    "settings” sets what the published AnimateDiff v3 needs, so leave it alone here. The models know these words: circle, "
    "square, triangle, star; red, green, blue, yellow, purple, white; small, large; moving left, right, up or down, growing, "
    "shrinking, spinning, bouncing, standing still. For example: a small yellow star bouncing on a green background."
)


@dataclass(frozen=True)
class Weights:
    """The models that the demo generates with."""

    checkpoint: Path
    motion_module: Path
    loras: Path
    """The folder of LoRAs."""
    styles: tuple[Style, ...]
    cfg_scale: float
    sparse_ctrl: Path | None = None
    """A SparseCtrl model, beside the motion module."""


@dataclass(frozen=True)
class Style:
    """A personalised model: another checkpoint, or a LoRA for the base checkpoint. The style "" is the base itself."""

    name: str
    checkpoint: str | None = None
    lora: str = ""


STYLES = (Style(""), Style("stripes", checkpoint="stripes.safetensors"), Style("ink", lora="ink"), Style("glow", lora="glow"))


class Refused(Exception):
    """The clip cannot be made. The text is for the user."""


def main(arguments: list[str]) -> int:
    options = read_options(arguments)
    try:
        weights = weights_of(options)
        advice = "" if options.checkpoint else ADVICE
        if options.webui or options.page:
            print(advice, flush=True)
        if options.webui:
            from demo.real_webui import run_with_demo

            return run_with_demo(options.webui, weights.checkpoint, weights.motion_module, weights.loras)
        start_host(weights)
        if options.page:
            from demo.host.server import serve

            serve(options.port, options.prompt, weights.cfg_scale, advice, open_browser=True)
        else:
            make_clips(options, weights)
            print("To try it in a browser: python -m demo --page")
    except KeyboardInterrupt:
        print("\nStopped.")
        return 130
    except (OSError, ValueError, Refused) as error:
        print(f"The demo stopped with an error: {error}", file=sys.stderr)
        return 1
    return 0


def read_options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo", description="AnimateDiff without a WebUI: writes clips as GIF.")
    prompt, out = (os.environ.get(name) or None for name in ("DEMO_PROMPT", "DEMO_OUT"))
    parser.add_argument("--prompt", default=prompt or PROMPT, help="make demo: PROMPT=…")
    parser.add_argument(
        "--out",
        type=Path,
        default=out,
        help="the GIF to write; those in other styles are written beside it; make demo: OUT=…",
    )
    parser.add_argument("--checkpoint", type=Path, help="an SD 1.x checkpoint instead of the demo's small ones")
    parser.add_argument("--motion-module", type=Path, help="a motion module for --checkpoint; LoRAs go into demo/data/lora")
    parser.add_argument("--frames", type=_whole_number(1), default=16)
    parser.add_argument("--steps", type=_whole_number(2), default=20)
    parser.add_argument("--size", type=_whole_number(64, step=8), help="width and height in pixels")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--page", action="store_true", help="open a page instead of writing clips")
    parser.add_argument("--port", type=int, help="the page's port (default: the first free one)")
    parser.add_argument(
        "--webui", type=Path, metavar="DIR", help="start the WebUI in DIR with this extension and these weights"
    )
    options = parser.parse_args(arguments)
    if bool(options.checkpoint) != bool(options.motion_module):
        parser.error("--checkpoint and --motion-module go together: a motion module fits one kind of checkpoint")
    for file in filter(None, (options.checkpoint, options.motion_module)):
        if not file.is_file() or file.suffix not in (".safetensors", ".ckpt"):
            parser.error(f"{file} is not an existing .safetensors or .ckpt file")
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


def weights_of(options: argparse.Namespace) -> Weights:
    """Returns the user's models, or the demo's own if the options name none."""
    if options.checkpoint:
        files = options.checkpoint.absolute(), options.motion_module.absolute()
        return Weights(*files, DATA / "lora", styles=STYLES[:1], cfg_scale=7.0)
    from demo.world.model import SPARSE_CTRL, world_in

    return Weights(*world_in(DATA / "world"), STYLES, CFG_SCALE, SPARSE_CTRL)


def start_host(weights: Weights) -> None:
    from demo.host import startup

    print("Starting …", flush=True)
    settings = {
        "sd_model_checkpoint": weights.checkpoint.name,
        "animatediff_model_path": str(weights.motion_module.parent),
        "outdir_txt2img_samples": str(OUTPUTS),
    }
    startup.start(DATA, weights.checkpoint.parent, weights.loras, settings)


def make_clips(options: argparse.Namespace, weights: Weights) -> None:
    """Writes a GIF in each style, and prints where it is."""
    out = options.out or free_name(options.prompt, options.seed, weights.styles)
    out.parent.mkdir(parents=True, exist_ok=True)
    for style in weights.styles:
        print(make_clip(options, weights, style, of_style(out, style)), flush=True)
    if weights.sparse_ctrl and options.prompt == PROMPT:
        more = between_pictures(weights.sparse_ctrl)
        print(make_clip(options, weights, STYLES[0], named(out, PICTURES), **more), flush=True)


def between_pictures(sparse_ctrl: Path) -> dict[str, Any]:
    """Returns what a request has for a clip that begins with one picture of the small world and ends with another."""
    from PIL import Image

    from demo.world import render
    from demo.world.scenes import Scene

    drawn = render.clip(Scene("circle", "red", "blue", "moving left"), seed=PICTURE_SEED)
    pictures = [Image.fromarray(drawn[frame]) for frame in (0, -1)]
    return {"sparse_ctrl": sparse_ctrl.name, "sparse_pictures": pictures}


def make_clip(options: argparse.Namespace, weights: Weights, style: Style, out: Path, **asked: Any) -> str:
    """Writes one GIF. Returns a message for the user. `asked`: more parameters of the extension."""
    started = time.monotonic()
    picture = generated(options, weights, style, format=["GIF"], **asked).images[0]
    picture.save(out)
    seconds = time.monotonic() - started
    how = f" in the style “{style.name}”" if style.name else " between two pictures" if asked else ""
    return f"{options.frames} frames of {picture.width}x{picture.height}{how} in {seconds:.0f} seconds: {out.absolute()}"


def generated(options: argparse.Namespace, weights: Weights, style: Style, **asked: Any) -> Any:
    """Returns what the host's generation returns. `asked`: more parameters of the extension. Raises Refused."""
    from modules.processing import StableDiffusionProcessingTxt2Img

    from demo.host import startup
    from demo.host.server import HTTPException, generate, script_arguments

    side = options.size or startup.default_size()
    p = StableDiffusionProcessingTxt2Img(
        prompt=options.prompt + (f" <lora:{style.lora}:1>" if style.lora else ""),
        width=side,
        height=side,
        steps=options.steps,
        seed=options.seed,
        cfg_scale=weights.cfg_scale,
        sampler_name="DDIM",
        do_not_save_samples=True,
        override_settings={"sd_model_checkpoint": style.checkpoint} if style.checkpoint else {},
    )
    animation = {
        "enable": True,
        "model": weights.motion_module.name,
        "video_length": options.frames,
        **asked,
    }
    try:
        return generate(p, "txt2img", script_arguments("txt2img", {"AnimateDiff": {"args": [animation]}}))
    except HTTPException as error:
        raise Refused(error.detail) from error


def of_style(out: Path, style: Style) -> Path:
    return named(out, style.name) if style.name else out


def named(out: Path, more: str) -> Path:
    return out.with_name(f"{out.stem}-{more}{out.suffix}")


def free_name(prompt: str, seed: int, styles: tuple[Style, ...]) -> Path:
    """Returns a path in the folder of outputs at which no GIF exists yet, in any style."""
    stem = re.sub(r"[^\w]+", "-", prompt).strip("-")[:60] or "clip"
    names = (OUTPUTS / f"{stem}-{seed}{suffix}.gif" for suffix in ("", *(f"-{number}" for number in range(2, 10_000))))
    return next(name for name in names if not any(of_style(name, style).exists() for style in styles))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
