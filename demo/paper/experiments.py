"""The experiments of the paper (arXiv 2307.04725), and of its first version, in the small world.

Each returns the rows of its table. A model that a row needs is trained, in the folder `runs`, when the row's first clip is
made; an interrupted training continues.
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
"""The number of prompts in experiments that do not test the paper's claim itself, but what influences the result."""
ABLATION: motion.Recipe = {**motion.MODULE, "batch": 8, "validation": {}}
"""How all modules of an ablation are trained: for fewer steps than the committed one."""
DIRECTIONS = dict.fromkeys(("moving left", "moving right", "moving up", "moving down"), 1.0)
ABLATION_PHASES = (motion.Phase(150, 1.0, DIRECTIONS), motion.Phase(450, 0.4, DIRECTIONS))
"""They are trained and judged on shapes that move in a direction, which is learned fastest."""
SCHEDULES = {
    "transformer": ("Stable Diffusion's", STABLE_DIFFUSION),
    "schedule-a": ("A, AnimateDiff's", ANIMATEDIFF),
    "schedule-b": ("B", NoiseSchedule("betas", first=1e-4, last=0.02)),
}
"""Name and noise schedule, by the file of the verdicts. All models of this world use the first, so other experiments share
its verdicts."""
ADAPTER = LORAS / "adapter.safetensors"
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
LORA_MOTION, LORA_CLIP_COUNTS = LORA_MOTIONS[0], (1, 5, 20, motion.LORA_CLIPS)
COMMITTED_LORA = LORAS / f"{LORA_MOTION}.safetensors"
OURS, OURS_SHARED = "ours", "ours, shared noise"
"""The methods that use our motion module, by their initial noise: one for each frame, or one for all."""


@dataclass(frozen=True)
class Row:
    """One row of a table: a way to make clips, and the scenes that it is judged on."""

    name: str
    file: str
    """The name of its file of verdicts."""
    made_with: str
    """A digest of everything that its clips depend on."""
    make: Callable[[Scene, int], Clip]
    """Makes a clip of a scene from a seed."""
    scenes: list[Scene]
    style: str = "plain"
    """The style that its clips should have."""
    method: str = ""
    """Its method, in an experiment that compares methods."""

    @property
    def is_ours(self) -> bool:
        """Whether its method uses our motion module."""
        return self.method in (OURS, OURS_SHARED)


def made_with(*parts: Path | motion.Recipe | str) -> str:
    """Returns a digest of the contents of files, of recipes, and of how clips are sampled and judged."""
    digest = hashlib.sha256(json.dumps([METHODS, STEPS, SCALE]).encode())
    for part in parts:
        digest.update(part.read_bytes() if isinstance(part, Path) else json.dumps(part, sort_keys=True).encode())
    return digest.hexdigest()


def weights_of(style: str) -> list[Path]:
    checkpoint = CHECKPOINTS / ("stripes.safetensors" if style == "stripes" else "base.safetensors")
    return [checkpoint, LORAS / f"{style}.safetensors"] if style in AS_LORA else [checkpoint]


def _on(runs: Path, style: str, maker: Callable[[], Maker]) -> Callable[[Scene, int], Clip]:
    """Returns a function that makes clips with a personalised model. The first clip loads, or trains, what it needs."""
    maker, model = cache(maker), cache(lambda: personalised(runs / "committed", style))
    return lambda scene, seed: maker()(model(), scene.caption, seed)


# --- the judge ---


def the_judge(runs: Path) -> list[Row]:
    """The judge's own error, on clips that the world draws: as drawn, and after the autoencoder."""
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
    """(a) Frame by frame, Text2Video-Zero, and the motion module: on the base, and on models that it was not trained with.

    The motion module starts from separate noise for each frame, as in the paper, or from the same noise for all frames.
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
    """Returns the row of a module that is trained for the comparison. `watermark`: whether its training clips have one."""
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
    """Returns a recipe for the digest: without the paths of this machine, and with its phases and its objective.

    The key "courses" is part of the digests in committed files of verdicts.
    """
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
    """(c) Temporal convolutions instead of temporal transformers, trained in the same way."""

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
    """(d) Modules trained on clips with a watermark: with the domain adapter, at several strengths, and without it."""
    recipe: motion.Recipe = {**ABLATION, "domain_adapter": str(ADAPTER)}

    def maker(strength: float) -> Maker:
        return WithMotion(_trained(runs, "with-adapter", recipe, watermark=True).config.output, adapters={ADAPTER: strength})

    rows = []
    for strength in STRENGTHS:
        made = made_with(*weights_of("plain"), ADAPTER, _bare(recipe, ABLATION_PHASES), str(strength))
        name, file = f"trained with it, used at {strength:g}", f"adapter-{strength:g}"
        rows.append(_row(runs, name, file, made, partial(maker, strength), _moving()))
    return [*rows, _of_module(runs, "trained without it", "no-adapter", ABLATION, watermark=True)]


def motion_loras(runs: Path) -> list[Row]:
    """(e) Motion LoRAs for one motion, trained on different numbers of clips."""
    every = [replace(scene, motion=LORA_MOTION) for scene in held_out_scenes(3 * FEW, SEED)]
    scenes = [scene for scene in every if scene.held_out][:FEW]
    weights = [*weights_of("plain"), MOTION_MODULE]
    rows = [_row(runs, "no LoRA", f"{LORA_MOTION}-0", made_with(*weights), lambda: WithMotion(MOTION_MODULE), scenes)]
    for count in LORA_CLIP_COUNTS:
        committed = [COMMITTED_LORA] if count == motion.LORA_CLIPS else []
        made = made_with(*weights, _bare(motion.MOTION_LORA, motion.MOTION_LORA_PHASES), str(count), *committed)
        name = f"{count} clip{'s' if count > 1 else ''}"
        rows.append(_row(runs, name, f"{LORA_MOTION}-{count}", made, partial(_with_lora, runs, count), scenes))
    return rows


def _with_lora(runs: Path, count: int) -> Maker:
    return WithMotion(MOTION_MODULE, motion_loras={_trained_lora(runs, count): 1.0})


def _trained_lora(runs: Path, count: int) -> Path:
    """Returns the file of a motion LoRA trained on so many clips, of which one is committed."""
    if count == motion.LORA_CLIPS:
        return COMMITTED_LORA
    data = motion.clips_of(runs, LORA_MOTION, count)
    return motion.trained(runs, f"{LORA_MOTION}-{count}", motion.MOTION_LORA, motion.MOTION_LORA_PHASES, data).config.output


EXPERIMENTS: dict[str, Callable[[Path], list[Row]]] = {
    "judge": the_judge,
    "models": models,
    "schedules": schedules,
    "convolution": convolution,
    "adapter": adapter,
    "motion-loras": motion_loras,
}
