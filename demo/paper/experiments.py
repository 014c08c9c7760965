"""The experiments of the paper (arXiv 2307.04725), and of its first version, in the small world.

Each gives the rows of its table. What a row needs trained is trained when its first clip is made, in the folder `runs`, and
goes on where it was cut off.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path

import torch

from demo.paper.judging import SEED
from demo.paper.makers import (
    METHODS,
    SCALE,
    STEPS,
    Clip,
    Maker,
    WithMotion,
    animated,
    frame_by_frame,
    noise_of,
    shared_noise_of,
    zero_shot,
)
from demo.world import motion, render
from demo.world.model import CHECKPOINTS, DEVICE, LORAS, MOTION_MODULE
from demo.world.scenes import LORA_MOTIONS, Scene, held_out_scenes
from demo.world.styles import AS_LORA, personalised
from demo.world.thresholds import BASE_PROMPTS, STYLE_PROMPTS
from motion_module.noise_schedule import ANIMATEDIFF, STABLE_DIFFUSION, NoiseSchedule
from motion_module.training.image_model import ImageModel
from motion_module.training.temporal_convolution import TemporalConvolutions
from motion_module.training.validation import decoded

FEW = 40
"""Prompts where not the claim is tested, but what changes it."""
ABLATION: motion.Recipe = {**motion.MODULE, "batch": 8, "validation": {}}
"""How the modules of an ablation are trained: all alike, and less than the one that is given away."""
DIRECTIONS = dict.fromkeys(("moving left", "moving right", "moving up", "moving down"), 1.0)
ABLATION_PHASES = (motion.Phase(150, 1.0, DIRECTIONS), motion.Phase(450, 0.4, DIRECTIONS))
"""They learn, and are judged on, shapes that move somewhere: that is soonest learned."""
SCHEDULES = {
    "transformer": ("Stable Diffusion's", STABLE_DIFFUSION),
    "schedule-a": ("A, AnimateDiff's", ANIMATEDIFF),
    "schedule-b": ("B", NoiseSchedule("betas", first=1e-4, last=0.02)),
}
"""By the file of their verdicts. The first is what all of this world is trained with, and so serves other comparisons too."""
ADAPTER = LORAS / "adapter.safetensors"
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
LORA_MOTION, LORA_CLIPS = LORA_MOTIONS[0], (1, 5, 20, motion.LORA_CLIPS)
GIVEN = LORAS / f"{LORA_MOTION}.safetensors"
OURS, OURS_SHARED = "ours", "ours, shared noise"
"""The motion module's clips among those that are compared, by the noise that they begin with."""


@dataclass(frozen=True)
class Row:
    """A way to make clips, and the scenes that it is judged on.

    `file`: what its verdicts are called. `made_with`: all that its clips depend on. `make`: of a scene and a seed, a clip.
    `style`: what it has to be in. `method`: in an experiment that compares some.
    """

    name: str
    file: str
    made_with: str
    make: Callable[[Scene, int], Clip]
    scenes: list[Scene]
    style: str = "plain"
    method: str = ""

    @property
    def is_ours(self) -> bool:
        """Whether it is the motion module's clips, among methods that are compared."""
        return self.method in (OURS, OURS_SHARED)


def made_with(*parts: Path | motion.Recipe | str) -> str:
    """A digest of files, by what is in them, of recipes, and of how everything is sampled and judged."""
    digest = hashlib.sha256(json.dumps([METHODS, STEPS, SCALE]).encode())
    for part in parts:
        digest.update(part.read_bytes() if isinstance(part, Path) else json.dumps(part, sort_keys=True).encode())
    return digest.hexdigest()


def weights_of(style: str) -> list[Path]:
    checkpoint = CHECKPOINTS / ("stripes.safetensors" if style == "stripes" else "base.safetensors")
    return [checkpoint, LORAS / f"{style}.safetensors"] if style in AS_LORA else [checkpoint]


def _on(runs: Path, style: str, maker: Callable[[], Maker]) -> Callable[[Scene, int], Clip]:
    """Makes clips on a personalised model. Model and maker are loaded, or trained, with the first."""
    maker, model = cache(maker), cache(lambda: personalised(runs / "committed", style))
    return lambda scene, seed: maker()(model(), scene.caption, seed)


# --- the judge ---


def the_judge(runs: Path) -> list[Row]:
    """The judge's own error: on clips that the world draws, as they are and through the autoencoder."""
    scenes, rows = held_out_scenes(STYLE_PROMPTS, SEED), []
    model = cache(lambda: personalised(runs / "committed", "plain"))
    for style in render.STYLES:
        drawn, coded = partial(_drawn, style), partial(_coded, model, style)
        rows.append(Row(f"{style}, drawn", f"drawn-{style}", made_with(), drawn, scenes, style))
        made = made_with(CHECKPOINTS / "base.safetensors")
        rows.append(Row(f"{style}, drawn, encoded and decoded", f"coded-{style}", made, coded, scenes, style))
    return rows


def _drawn(style: str, scene: Scene, seed: int) -> Clip:
    return render.clip(scene, seed, style)


@torch.no_grad()
def _coded(model: Callable[[], ImageModel], style: str, scene: Scene, seed: int) -> Clip:
    pictures = torch.from_numpy(_drawn(style, scene, seed)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return decoded(model(), model().autoencoder.moments(pictures.to(DEVICE)).chunk(2, dim=1)[0])


# --- the claim ---


def models(runs: Path) -> list[Row]:
    """(a) Frame by frame, Text2Video-Zero, and the motion module: on the base, and on models that it never saw.

    The motion module's clips begin with a noise for each frame, as in the paper, or with one for all.
    """
    few, many = held_out_scenes(STYLE_PROMPTS, SEED), held_out_scenes(BASE_PROMPTS, SEED)
    makers: dict[str, Callable[[], Maker]] = {
        "frame by frame": lambda: frame_by_frame,
        "Text2Video-Zero": lambda: zero_shot,
        OURS: lambda: WithMotion(MOTION_MODULE),
        OURS_SHARED: lambda: WithMotion(MOTION_MODULE, noise=shared_noise_of),
    }
    rows = []
    for style in render.STYLES:
        for method, maker in makers.items():
            is_ours = method in (OURS, OURS_SHARED)
            made = made_with(*weights_of(style), method, *([MOTION_MODULE] if is_ours else []))
            scenes = many if is_ours and style == "plain" else few
            file = f"{style}-{method.replace(',', '').replace(' ', '-').lower()}"
            rows.append(Row(f"{style}, {method}", file, made, _on(runs, style, maker), scenes, style, method))
    return rows


# --- what changes it ---


def _of_module(runs: Path, name: str, file: str, recipe: motion.Recipe, *, watermark: bool = False) -> Row:
    """A module that is trained for the comparison, on the base. `watermark`: whether the clips that it learns from have one."""
    maker = lambda: WithMotion(_trained(runs, file, recipe, watermark=watermark).config.output)  # noqa: E731
    made = made_with(*weights_of("plain"), _bare(recipe, ABLATION_PHASES), f"watermark: {watermark}")
    return _row(runs, name, file, made, maker, _moving())


def _trained(
    runs: Path, name: str, recipe: motion.Recipe, subject: motion.Subject | None = None, *, watermark: bool = False
) -> motion.MotionTraining:
    return motion.trained(runs, name, recipe, ABLATION_PHASES, motion.clips(runs, watermark=watermark), subject)


def _moving() -> list[Scene]:
    return [scene for scene in held_out_scenes(4 * FEW, SEED) if scene.motion in DIRECTIONS][:FEW]


def _bare(recipe: motion.Recipe, phases: tuple[motion.Phase, ...]) -> motion.Recipe:
    """Without the paths of this machine, as what is in their files counts apart; with its phases, and what no recipe says."""
    named = {key: Path(value).name if key in ("domain_adapter", "motion_module") else value for key, value in recipe.items()}
    return {**named, "objective": motion.OBJECTIVE, "courses": [asdict(phase) for phase in phases]}


def _row(runs: Path, name: str, file: str, made: str, maker: Callable[[], Maker], scenes: list[Scene] | None = None) -> Row:
    return Row(name, file, made, _on(runs, "plain", maker), scenes or held_out_scenes(FEW, SEED))


def schedules(runs: Path) -> list[Row]:
    """(b) The noise schedules of the paper's first version."""
    rows = []
    for file, (name, schedule) in SCHEDULES.items():
        described = {"straight_in": schedule.straight_in, "first": schedule.first, "last": schedule.last}
        rows.append(_of_module(runs, name, file, {**ABLATION, "noise_schedule": described}))
    return rows


def convolution(runs: Path) -> list[Row]:
    """(c) Temporal convolutions in place of temporal transformers, trained alike."""

    def maker() -> Maker:
        training = _trained(runs, "convolution", ABLATION, TemporalConvolutions)
        module = training.animated.motion
        assert module is not None
        module.load_state_dict(training.averaged.module.state_dict())
        schedule = training.config.noise_schedule
        return lambda model, caption, seed: animated(model, module, schedule, caption, noise_of(seed, render.FRAMES))

    made = made_with(*weights_of("plain"), _bare(ABLATION, ABLATION_PHASES), "convolution")
    return [
        _of_module(runs, "temporal transformer", "transformer", ABLATION),
        _row(runs, "temporal convolution", "convolution", made, maker, _moving()),
    ]


def adapter(runs: Path) -> list[Row]:
    """(d) Modules that learned from clips with a watermark: with the domain adapter, used at several strengths, and without."""
    recipe: motion.Recipe = {**ABLATION, "domain_adapter": str(ADAPTER)}

    def maker(strength: float) -> Maker:
        return WithMotion(_trained(runs, "with-adapter", recipe, watermark=True).config.output, adapters={ADAPTER: strength})

    rows = []
    for strength in STRENGTHS:
        made = made_with(*weights_of("plain"), ADAPTER, _bare(recipe, ABLATION_PHASES), str(strength))
        name, file = f"trained with it, used at {strength:g}", f"adapter-{strength:g}"
        rows.append(_row(runs, name, file, made, partial(maker, strength), _moving()))
    return [*rows, _of_module(runs, "trained without it", "no-adapter", ABLATION, watermark=True)]


def lessons(runs: Path) -> list[Row]:
    """(e) Motion LoRAs of one motion, from several numbers of clips."""
    asked = [replace(scene, motion=LORA_MOTION) for scene in held_out_scenes(3 * FEW, SEED)]
    scenes = [scene for scene in asked if scene.held_out][:FEW]
    weights = [*weights_of("plain"), MOTION_MODULE]
    rows = [_row(runs, "no LoRA", f"{LORA_MOTION}-0", made_with(*weights), lambda: WithMotion(MOTION_MODULE), scenes)]
    for count in LORA_CLIPS:
        given = [GIVEN] if count == motion.LORA_CLIPS else []
        made = made_with(*weights, _bare(motion.MOTION_LORA, motion.MOTION_LORA_PHASES), str(count), *given)
        name = f"{count} clip{'s' if count > 1 else ''}"
        rows.append(_row(runs, name, f"{LORA_MOTION}-{count}", made, partial(_with_lesson, runs, count), scenes))
    return rows


def _with_lesson(runs: Path, count: int) -> Maker:
    return WithMotion(MOTION_MODULE, motion_loras={_learned(runs, count): 1.0})


def _learned(runs: Path, count: int) -> Path:
    """The file of a motion LoRA from so many clips. One of them is given away, and so there already."""
    if count == motion.LORA_CLIPS:
        return GIVEN
    data = motion.clips_of(runs, LORA_MOTION, count)
    return motion.trained(runs, f"{LORA_MOTION}-{count}", motion.MOTION_LORA, motion.MOTION_LORA_PHASES, data).config.output


EXPERIMENTS: dict[str, Callable[[Path], list[Row]]] = {
    "judge": the_judge,
    "models": models,
    "schedules": schedules,
    "convolution": convolution,
    "adapter": adapter,
    "lessons": lessons,
}
