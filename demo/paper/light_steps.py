"""What light steps cost, in the small world: clips of held-out prompts, with each choice of Speed.

    .venv/bin/python -m demo.paper.light_steps [PROMPTS] [--ways WAY ...]

Each clip is compared with the exact one of the same noise. Clips that were judged before are not made again, and are in the
table too. Writes a table and a contact sheet to `docs/paper`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from demo.environment import ROOT
from demo.paper.experiments import made_with, weights_of
from demo.paper.judging import SEED, mean, proportion, verdict
from demo.paper.makers import SCALE, STEPS, Clip, noise_of
from demo.paper.report import LABEL, SHOWN
from demo.world import render
from demo.world.model import DEVICE, MOTION_MODULE
from demo.world.scenes import Scene, held_out_scenes
from demo.world.styles import personalised
from motion_module.attach import attached
from motion_module.checkpoint import load
from motion_module.deep_features import DeepFeatures
from motion_module.families import V3
from motion_module.light_steps import LightSteps
from motion_module.motion_layers import Motion
from motion_module.motion_strength import MotionStrength
from motion_module.network import MotionModule
from motion_module.noise_schedule import NoiseSchedule
from motion_module.row_layout import RowLayout
from motion_module.step_reuse import NEGATIVE, StepReuse
from motion_module.training.image_model import ImageModel
from motion_module.training.sampling import ddim, guided, timesteps
from motion_module.training.validation import decoded

PROMPTS = 100
FILE = Path(__file__).parent / "verdicts" / "light-steps.jsonl"
DOCS = ROOT / "docs" / "paper"
RUNS = ROOT / "demo" / "data" / "paper"


@dataclass(frozen=True)
class Way:
    """A way to sample. `every`: how many steps one full step comes in. `motion_end`: the fraction of the steps with motion."""

    every: int = 1
    deep: bool = False
    negative: bool = False
    motion_end: float = 1.0


WAYS = {
    "Exact": Way(),
    "Fast": Way(2, deep=True, negative=True),
    "Fast (deep blocks)": Way(2, deep=True),
    "Fast (negative prompt)": Way(2, negative=True),
    "Fast, a full step every 3 steps": Way(3, deep=True, negative=True),
    "Motion end 0.7": Way(motion_end=0.7),
}


@dataclass(frozen=True)
class Found:
    """What was found in one clip. `distance`: from the exact clip, the mean over pixels in levels of 255."""

    way: str
    prompt: int
    colour_and_shape: bool
    motion: bool
    flicker: float
    distance: float


class Maker:
    """Makes clips of the base model. The first one loads it."""

    def __init__(self) -> None:
        self._model: ImageModel = personalised(RUNS / "committed", "plain")
        description, module = load(MOTION_MODULE)
        self._module: MotionModule = module.float().to(DEVICE)
        self._schedule: NoiseSchedule = description.require_motion_module().schedule

    @torch.no_grad()
    def make(self, scene: Scene, seed: int, way: Way) -> Clip:
        unet, step = self._model.unet, -1
        layout = lambda rows: RowLayout(render.FRAMES, rows)  # noqa: E731
        deep = DeepFeatures(layout) if way.deep else None
        motion = Motion(
            self._module,
            MotionStrength(end=way.motion_end),
            lambda: step / STEPS,
            rests=deep.rests if deep else lambda block: False,
        )
        reuse = StepReuse(
            LightSteps(way.every),
            deep,
            negative=way.negative,
            step=lambda: step,
            steps=lambda: STEPS,
            at_step=_never,
            layout_of=layout,
            conditions_of=lambda *_: [0, NEGATIVE],
        )
        with ExitStack() as stack:
            stack.enter_context(reuse.applied_to(unet))
            stack.enter_context(attached(unet, motion, V3, layout))
            if deep is not None:
                stack.enter_context(deep.applied_to(unet))
            condition = self._model.text_encoder([scene.caption]).expand(render.FRAMES, -1, -1)
            noise_in = guided(unet, condition, self._model.text_encoder([""]), SCALE)

            def predict(latents: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
                nonlocal step
                step += 1
                return noise_in(latents, times)

            latents = ddim(predict, noise_of(seed, render.FRAMES), self._schedule, timesteps(self._schedule, STEPS))
        return decoded(self._model, latents)


@contextmanager
def _never(step: int) -> Iterator[None]:
    raise AssertionError("nothing is read from the disk here")
    yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", nargs="?", type=int, default=PROMPTS, help="how many held-out prompts")
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS), help="which ways to make clips in")
    options = parser.parse_args()
    count = options.prompts
    scenes, maker, found = held_out_scenes(count, SEED), Maker(), known()
    for prompt, scene in enumerate(scenes):
        missing = [way for way in options.ways if (way, prompt) not in found]
        if not missing:
            continue
        exact = maker.make(scene, prompt, WAYS["Exact"])
        for way in missing:
            clip = exact if way == "Exact" else maker.make(scene, prompt, WAYS[way])
            found[way, prompt] = add(way, prompt, scene, clip, exact)
            print(f"{way}: {prompt + 1} of {count}", flush=True)
    text = table([one for one in found.values() if one.prompt < count])
    (DOCS / "light-steps.md").write_text(f"{text}\n", encoding="utf-8")
    print(text)
    write_sheet(maker, DOCS / "light-steps.png")


def known() -> dict[tuple[str, int], Found]:
    """Returns what was found before, by way and prompt, unless it was made with other weights."""
    lines = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()] if FILE.exists() else []
    if not lines or lines[0] != _header():
        FILE.write_text(json.dumps(_header()) + "\n", encoding="utf-8")
        return {}
    return {(one.way, one.prompt): one for one in (Found(**line) for line in lines[1:])}


def _header() -> dict[str, str]:
    return {"made_with": made_with(*weights_of("plain"), MOTION_MODULE)}


def add(way: str, prompt: int, scene: Scene, clip: Clip, exact: Clip) -> Found:
    judged = verdict(scene, clip)
    distance = float(np.abs(clip.astype(np.int16) - exact).mean())
    found = Found(way, prompt, judged.agrees("colour", "shape"), judged.agrees("motion"), judged.flicker, round(distance, 4))
    with FILE.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(asdict(found)) + "\n")
    return found


def table(found: list[Found]) -> str:
    """Returns a Markdown table. Points are those that a way loses on the same prompts: differences of pairs."""
    lines = [
        "| | clips | colour and shape | points lost | motion | points lost | flicker (levels) | distance (levels) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    exact = {one.prompt: one for one in found if one.way == "Exact"}
    for way in WAYS:
        own = [one for one in found if one.way == way and one.prompt in exact]
        if len(own) < 2:  # one clip has no interval
            continue
        cells = [way, str(len(own))]
        for word in ("colour_and_shape", "motion"):
            lost = mean(100.0 * (getattr(exact[one.prompt], word) - getattr(one, word)) for one in own)
            cells += [
                str(proportion(getattr(one, word) for one in own)),
                "" if way == "Exact" else f"{lost.value:.1f} ± {lost.reach:.1f}",
            ]
        cells += [str(mean(one.flicker for one in own)), "" if way == "Exact" else str(mean(one.distance for one in own))]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_sheet(maker: Maker, file: Path) -> None:
    """Writes a PNG with the same clip made in each way: frames at even distances, from the first to the last."""
    scene, side = Scene("circle", "red", "blue", "moving left"), render.SIDE
    sheet = Image.new("RGB", (LABEL + SHOWN * side, len(WAYS) * side), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (name, way) in enumerate(WAYS.items()):
        clip = maker.make(scene, 1, way)
        draw.multiline_text((6, row * side + 6), name.replace(", ", ",\n"), fill="black")
        for column, frame in enumerate(np.linspace(0, len(clip) - 1, SHOWN).round().astype(int)):
            sheet.paste(Image.fromarray(clip[frame]), (LABEL + column * side, row * side))
    sheet.save(file, optimize=True)


if __name__ == "__main__":
    main()
