"""How well clips keep to given pictures in the small world: its SparseCtrl network is shown the first and the last frame.

    .venv/bin/python -m demo.paper.given_frames [PROMPTS]

The pictures are those of a clip that is drawn for each held-out prompt. Clips that were judged before are not made again.
Writes a table and a contact sheet to `docs/paper`.
"""

from __future__ import annotations

import json
import sys
import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from demo.environment import ROOT
from demo.paper.experiments import made_with, weights_of
from demo.paper.judging import SEED, mean, proportion, verdict
from demo.paper.makers import Clip, animated, noise_of
from demo.paper.report import LABEL, SHOWN
from demo.world import render
from demo.world.judge import read
from demo.world.model import DEVICE, MOTION_MODULE, SPARSE_CTRL
from demo.world.scenes import Scene, held_out_scenes
from demo.world.styles import personalised
from motion_module.checkpoint import load
from motion_module.row_layout import RowLayout
from motion_module.sparse_control import SparseControl, controlled
from motion_module.sparse_ctrl import load_sparse_ctrl

PROMPTS = 100
GIVEN = (0, render.FRAMES - 1)
FILE = Path(__file__).parent / "verdicts" / "given-frames.jsonl"
DOCS = ROOT / "docs" / "paper"
RUNS = ROOT / "demo" / "data" / "paper"
LETTERS = 24
"""The most letters in a line of a label."""
SHOWN_PROMPTS = 6
"""The number of clips in the contact sheet."""


@dataclass(frozen=True)
class Found:
    """What was found in one clip.

    `kept`: whether the given frames show the colour and the shape of the caption; `whole`: whether the whole clip does.
    `distance`: of the given frames from their pictures; `other`: from those of the next prompt; means over
    pixels in levels of 255.
    """

    prompt: int
    kept: bool
    whole: bool
    motion: bool
    flicker: float
    distance: float
    other: float


class Maker:
    """Makes clips of the base model that begin and end with given pictures."""

    def __init__(self) -> None:
        self._model = personalised(RUNS / "committed", "plain")
        description, module = load(MOTION_MODULE)
        self._module = module.float().to(DEVICE)
        self._schedule = description.require_motion_module().schedule
        self._network = load_sparse_ctrl(SPARSE_CTRL)

    @torch.no_grad()
    def make(self, scene: Scene, seed: int, drawn: Clip) -> Clip:
        """Returns a clip of a scene whose given frames are those of the clip `drawn`."""
        levels = torch.from_numpy(drawn[list(GIVEN)]).permute(0, 3, 1, 2).float() / 127.5 - 1
        latents = self._model.autoencoder.moments(levels.to(DEVICE)).chunk(2, dim=1)[0]
        control = SparseControl(self._network, GIVEN, lambda height, width: latents)
        with controlled(self._model.unet, [control], lambda rows: RowLayout(render.FRAMES, rows)):
            return animated(self._model, self._module, self._schedule, scene.caption, noise_of(seed, render.FRAMES))


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else PROMPTS
    scenes, maker, found = held_out_scenes(count, SEED), Maker(), known()
    drawn = [render.clip(scene, seed) for seed, scene in enumerate(scenes)]
    for prompt in range(len(found), count):
        clip = maker.make(scenes[prompt], prompt, drawn[prompt])
        found.append(add(prompt, scenes[prompt], clip, drawn[prompt], drawn[(prompt + 1) % count]))
        print(f"{prompt + 1} of {count}: {found[-1]}", flush=True)
    text = table(found[:count])
    (DOCS / "given-frames.md").write_text(f"{text}\n", encoding="utf-8")
    print(text)
    write_sheet(maker, scenes, drawn, DOCS / "given-frames.png")


def known() -> list[Found]:
    """Returns what was found before, unless it was made with other weights."""
    lines = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()] if FILE.exists() else []
    if not lines or lines[0] != _header():
        FILE.write_text(json.dumps(_header()) + "\n", encoding="utf-8")
        return []
    return [Found(**line) for line in lines[1:]]


def _header() -> dict[str, str]:
    return {"made_with": made_with(*weights_of("plain"), MOTION_MODULE, SPARSE_CTRL)}


def add(prompt: int, scene: Scene, clip: Clip, drawn: Clip, other: Clip) -> Found:
    judged, seen = verdict(scene, clip), read(clip[list(GIVEN)]).agrees(scene)
    found = Found(
        prompt,
        seen["colour"] and seen["shape"],
        judged.agrees("colour", "shape"),
        judged.agrees("motion"),
        judged.flicker,
        _distance(clip, drawn),
        _distance(clip, other),
    )
    with FILE.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(asdict(found)) + "\n")
    return found


def _distance(clip: Clip, drawn: Clip) -> float:
    given = list(GIVEN)
    return round(float(np.abs(clip[given].astype(np.int16) - drawn[given]).mean()), 3)


def table(found: list[Found]) -> str:
    """Returns a Markdown table."""
    cells = {
        "clips": str(len(found)),
        "colour and shape in the given frames": str(proportion(one.kept for one in found)),
        "in the whole clip": str(proportion(one.whole for one in found)),
        "motion": str(proportion(one.motion for one in found)),
        "flicker (levels)": str(mean(one.flicker for one in found)),
        "given frames from their pictures (levels)": str(mean(one.distance for one in found)),
        "from those of another prompt": str(mean(one.other for one in found)),
    }
    return "\n".join(f"| {' | '.join(line)} |" for line in (cells, ["---"] * len(cells), cells.values()))


def write_sheet(maker: Maker, scenes: list[Scene], drawn: list[Clip], file: Path) -> None:
    """Writes a PNG: for each prompt the given pictures, and frames of its clip at even distances."""
    side, shown = render.SIDE, min(SHOWN_PROMPTS, len(scenes))
    sheet = Image.new("RGB", (LABEL + (SHOWN + 2) * side + side // 4, shown * side), "white")
    draw = ImageDraw.Draw(sheet)
    for row, scene in enumerate(scenes[:shown]):
        clip = maker.make(scene, row, drawn[row])
        draw.multiline_text((6, row * side + 6), textwrap.fill(scene.caption, LETTERS), fill="black")
        frames = [*drawn[row][list(GIVEN)], *clip[np.linspace(0, len(clip) - 1, SHOWN).round().astype(int)]]
        for column, frame in enumerate(frames):
            gap = side // 4 if column >= len(GIVEN) else 0
            sheet.paste(Image.fromarray(frame), (LABEL + column * side + gap, row * side))
    sheet.save(file, optimize=True)


if __name__ == "__main__":
    main()
