"""The experiments of the paper (arXiv 2307.04725), and of its first version, in the small world.

Each trains what it needs in a folder, going on where it was cut off, and gives the rows of its table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from demo.paper.judging import SEED
from demo.paper.makers import Clip, Maker, WithMotion, animated, frame_by_frame, zero_shot
from demo.world import motion, render
from demo.world.model import LORAS, MOTION_MODULE
from demo.world.scenes import LESSONS, Scene, held_out_scenes
from demo.world.styles import personalised
from demo.world.thresholds import BASE_PROMPTS, STYLE_PROMPTS
from motion_module.noise import ANIMATEDIFF, STABLE_DIFFUSION, NoiseSchedule
from motion_module.training.image_model import ImageModel
from motion_module.training.loop import Training
from motion_module.training.temporal_convolution import TemporalConvolutions
from motion_module.training.validation import decoded

FEW = 60
"""Prompts where not the claim is tested, but what changes it."""
ABLATION: dict[str, Any] = {"steps": 1_200, "batch": 2, "validation": {}}
"""How the modules of an ablation are trained: all alike, and less than the one that is given away."""
SCHEDULES = {
    "sd": ("Stable Diffusion's", STABLE_DIFFUSION),
    "a": ("A, AnimateDiff's", ANIMATEDIFF),
    "b": ("B", NoiseSchedule("betas", first=1e-4, last=0.02)),
}
ADAPTER_STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
LESSON, LESSON_CLIPS = LESSONS[0], (1, 5, 20, 50)


@dataclass(frozen=True)
class Row:
    """`file`: what its verdicts are called. `make`: of a scene and a seed, a clip. `style`: what it has to be in."""

    name: str
    file: str
    make: Callable[[Scene, int], Clip]
    scenes: list[Scene]
    style: str = "plain"


def of(model: ImageModel, make: Maker) -> Callable[[Scene, int], Clip]:
    return lambda scene, seed: make(model, scene.caption, seed)


def _model(runs: Path, style: str = "plain") -> ImageModel:
    return personalised(runs / "committed", style)


def real_clips(runs: Path) -> list[Row]:
    """The judge's own error: on clips that the world draws, as they are and through the autoencoder."""
    model, scenes, rows = _model(runs), held_out_scenes(FEW, SEED), []
    for style in render.STYLES:
        drawn, coded = partial(_drawn, style), partial(_coded, model, style)
        rows.append(Row(f"{style}, drawn", f"drawn-{style}", drawn, scenes, style))
        rows.append(Row(f"{style}, drawn, encoded and decoded", f"coded-{style}", coded, scenes, style))
    return rows


def _drawn(style: str, scene: Scene, seed: int) -> Clip:
    return render.clip(scene, seed, style)


@torch.no_grad()
def _coded(model: ImageModel, style: str, scene: Scene, seed: int) -> Clip:
    pictures = torch.from_numpy(_drawn(style, scene, seed)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return decoded(model, model.autoencoder.moments(pictures).chunk(2, dim=1)[0])


def compared(runs: Path) -> list[Row]:
    """(a) Frame by frame, Text2Video-Zero, and the motion module, on the base and on models that it never saw."""
    ours, rows = WithMotion(MOTION_MODULE), []
    few, many = held_out_scenes(STYLE_PROMPTS, SEED), held_out_scenes(BASE_PROMPTS, SEED)
    for style in render.STYLES:
        model = _model(runs, style)
        rows.append(Row(f"{style}, frame by frame", f"{style}-frame-by-frame", of(model, frame_by_frame), few, style))
        rows.append(Row(f"{style}, Text2Video-Zero", f"{style}-text2video-zero", of(model, zero_shot), few, style))
        rows.append(Row(f"{style}, ours", f"{style}-ours", of(model, ours), many if style == "plain" else few, style))
    return rows


def schedules(runs: Path) -> list[Row]:
    """(b) The noise schedules of the paper's first version."""
    model, rows = _model(runs), []
    for key, (name, schedule) in SCHEDULES.items():
        described = {"straight_in": schedule.straight_in, "first": schedule.first, "last": schedule.last}
        module = _trained(motion.module(runs, f"schedule-{key}", noise_schedule=described, **ABLATION))
        rows.append(Row(name, f"schedule-{key}", of(model, WithMotion(module)), held_out_scenes(FEW, SEED)))
    return rows


def convolution(runs: Path) -> list[Row]:
    """(c) Temporal convolutions in place of temporal transformers, trained alike."""
    model, scenes = _model(runs), held_out_scenes(FEW, SEED)
    transformer = WithMotion(_trained(motion.module(runs, "schedule-a", **ABLATION)))
    training = Training(motion.module(runs, "convolution", **ABLATION), TemporalConvolutions)
    training.run()
    module = training.animated.motion
    assert module is not None
    module.load_state_dict(training.averaged.module.state_dict())
    convolutions: Maker = lambda model, caption, seed: animated(model, module, transformer.family, caption, seed)  # noqa: E731
    return [
        Row("temporal transformer", "schedule-a", of(model, transformer), scenes),
        Row("temporal convolution", "convolution", of(model, convolutions), scenes),
    ]


def adapter(runs: Path) -> list[Row]:
    """(d) The domain adapter at several strengths, and a module that was trained without one."""
    model, scenes, file = _model(runs), held_out_scenes(FEW, SEED), LORAS / "adapter.safetensors"
    strengths = [(strength, WithMotion(MOTION_MODULE, adapters={file: strength})) for strength in ADAPTER_STRENGTHS]
    rows = [Row(f"adapter at {s:g}", f"adapter-{s:g}", of(model, make), scenes) for s, make in strengths]
    for name, file_name, more in (("with", "schedule-a", {}), ("without", "no-adapter", {"domain_adapter": None})):
        module = WithMotion(_trained(motion.module(runs, file_name, **more, **ABLATION)))
        rows.append(Row(f"trained {name} it, for a shorter time; none in use", file_name, of(model, module), scenes))
    return rows


def lessons(runs: Path) -> list[Row]:
    """(e) Motion LoRAs of one motion, from several numbers of clips."""
    model, scenes = _model(runs), [replace(scene, motion=LESSON) for scene in held_out_scenes(FEW, SEED)]
    rows = [Row("no LoRA", f"{LESSON}-0", of(model, WithMotion(MOTION_MODULE)), scenes)]
    for clips in LESSON_CLIPS:
        make = WithMotion(MOTION_MODULE, motion_loras={_trained(motion.lesson(runs, LESSON, clips)): 1.0})
        rows.append(Row(f"{clips} clip{'s' if clips > 1 else ''}", f"{LESSON}-{clips}", of(model, make), scenes))
    return rows


def _trained(config: Any) -> Path:
    """The file of a training, which is done where it is not yet."""
    Training(config).run()
    return config.output


EXPERIMENTS: dict[str, Callable[[Path], list[Row]]] = {
    "judge": real_clips,
    "models": compared,
    "schedules": schedules,
    "convolution": convolution,
    "adapter": adapter,
    "lessons": lessons,
}
