"""Makes the pictures of docs/guide.md that show what steers a clip, with the small world's trained models.

    .venv/bin/python -m demo.guide_pictures

Those of given pictures are made by `demo.paper.given_frames`.
"""

from __future__ import annotations

import re
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from demo.environment import ROOT
from demo.run import STYLES, generated, read_options, start_host, weights_of

DOCS = ROOT / "docs"
PROMPT = "a large yellow star spinning on a green background"
LORAS = ("<lora:ink:1>", "<lora:ink:0: 0, 15: 1>", "<lora:ink:0: 1, 8: 0>")
SIDE, LABEL, SHOWN = 96, 160, 8
"""Pixels of a frame, of a row's label, and frames of a clip."""
CAMERA = "0: pan left 0.5\n8: dolly in, tilt up 0.3 ease"
STYLE = (
    "svg { background: white } polyline { fill: none; stroke: #555; stroke-width: 1; stroke-linejoin: round } "
    ".ad-camera-view { stroke: color-mix(in srgb, hsl(0 80% 55%) var(--share), hsl(210 80% 55%)) }"
)
Row = tuple[str, list[Image.Image]]


def main() -> None:
    options = read_options(["--seed", "3"])
    weights = weights_of(options)
    start_host(weights)

    def clip(prompt: str, **asked: Any) -> list[Image.Image]:
        given = Namespace(**{**vars(options), "prompt": prompt})
        return generated(given, weights, STYLES[0], format=["Frame"], **asked).images[-options.frames :]

    write([(words, clip(f"{PROMPT} {words}")) for words in LORAS], DOCS / "per-frame.png")
    masks = {"no mask": None, "left half white": half()}
    still = {"noise_type": "constant"}
    rows = [(label, clip(PROMPT, motion_mask=mask, **still)) for label, mask in masks.items()]
    write([(label, [*frames, change(frames)]) for label, frames in rows], DOCS / "motion-mask.png")
    (DOCS / "camera.svg").write_text(camera(), encoding="utf-8")


def change(frames: list[Image.Image]) -> Image.Image:
    """Returns a picture of how much each pixel changes: white most."""
    levels = np.stack([np.asarray(frame, np.float32).mean(axis=2) for frame in frames])
    spread = levels.max(axis=0) - levels.min(axis=0)
    return Image.fromarray((255 * spread / spread.max()).astype(np.uint8)).convert("RGB")


def half() -> Image.Image:
    """Returns a mask whose left half moves."""
    mask = np.zeros((128, 128, 3), np.uint8)
    mask[:, :64] = 255
    return Image.fromarray(mask)


def write(rows: list[Row], file: Path) -> None:
    """Writes a PNG of clips, one below the other: frames at even distances, from the first to the last."""
    sheet = Image.new("RGB", (LABEL + SHOWN * SIDE, len(rows) * SIDE), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (label, frames) in enumerate(rows):
        draw.multiline_text((6, row * SIDE + 6), label, fill="black")
        for column, frame in enumerate(np.linspace(0, len(frames) - 1, SHOWN).round().astype(int)):
            sheet.paste(frames[frame].resize((SIDE, SIDE)), (LABEL + column * SIDE, row * SIDE))
    sheet.save(file, optimize=True)


def camera() -> str:
    """Returns the plot of a camera's way as the panel draws it, as SVG."""
    from animatediff.page.camera_plot import plot
    from motion_module.camera_poses import trajectory_of

    found = re.search(r"<svg.*</svg>", plot(trajectory_of(CAMERA, 16)), re.DOTALL)
    assert found is not None
    return (
        found[0]
        .replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" width="400" ', 1)
        .replace("<title>", f"<style>{STYLE}</style><title>", 1)
    )


if __name__ == "__main__":
    main()
