"""Trains what moves in the world, with the trainers that users have: an adapter, a motion module, and two motion LoRAs.

    .venv/bin/python -m demo.world.motion RUNS [adapter|module|circling|swinging …]

The motion module learns from clips in the base's style. The adapter learns, on single frames, what clips with a watermark have
that the base's stills have not; what it is good for is asked in `demo.paper`, with modules that learn from such clips. Each
training begins with the committed files of those before it, and goes on where it was cut off.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from demo.world import render
from demo.world.clips import write_clips
from demo.world.model import MOTION_MODULE, checkpoint_in
from demo.world.scenes import LORA_MOTIONS, MOTIONS
from demo.world.training_loop import stages_of, towards_noise
from motion_module.training.cache import Example
from motion_module.training.config import Config, config_of
from motion_module.training.loop import Batch, Training
from motion_module.training.subjects import Animated

SEED = 4
CLIPS, LORA_CLIPS = 6_000, 50
PROMPTS = (
    "a red circle moving left on a blue background",
    "a large yellow star spinning on a green background",
    "a blue square growing on a white background",
    "a green triangle bouncing on a yellow background",
)
OBJECTIVE = "3"
"""Raise it with every change of `MotionTraining` that alters what is learned: trainings and clips of the paper are made anew
then."""
HIDDEN_FROM = 0.9
"""From this part of the timesteps on, clips may be hidden in their noise altogether."""
LEAST_SIGNAL = 0.0047
"""What is left of the signal at the last step of Stable Diffusion's schedule. Schedules that leave less get no more weight."""
Recipe = dict[str, Any]
"""Options of a training, as a user writes them, but for the paths of what it learns from and where it leaves its file."""
Subject = Callable[[nn.Module, Config], Animated]
"""Makes what is trained, of a UNet: in place of what the recipe names."""
SCHEDULE = {"straight_in": "sqrt_betas", "first": 0.00085, "last": 0.012}
"""The base's own. On AnimateDiff's, which leaves less of the signal, the base's error is three times as large to begin with,
and a module repairs that before it learns anything that moves."""


@dataclass(frozen=True)
class Phase:
    """A part of a training. `hidden`: how many of its clips are hidden in their noise. `shares`: how often a motion comes, next
    to others; "" stands for clips whose captions name none.
    """

    steps: int
    hidden: float = 0.0
    shares: dict[str, float] = field(default_factory=lambda: dict.fromkeys((*MOTIONS, ""), 1.0))


SHARED: Recipe = {
    "size": render.SIDE,
    "frames": render.FRAMES,
    "stride": 1,
    "seed": SEED,
    "noise_schedule": SCHEDULE,
    "licence": "Apache-2.0",
}
ADAPTER: Recipe = {
    **SHARED,
    "train": "domain adapter",
    "stride": 5,
    "batch": 32,
    "learning_rate": 2e-3,
    "ema": 0.98,
    "rank": 16,
}
ADAPTER_PHASES = (Phase(700),)
MODULE: Recipe = {
    **SHARED,
    "train": "motion module",
    "batch": 32,
    "learning_rate": 1e-3,
    "warm_up": 50,
    "ema": 0.995,
    "save_every": 50,
    "validation": {"prompts": list(PROMPTS), "every": 450, "steps": 20, "cfg": 5.0},
}
MODULE_PHASES = (
    Phase(100, hidden=1.0, shares={"bouncing": 1.0}),
    Phase(100, hidden=1.0, shares={"bouncing": 1.0, "standing still": 1.0}),
    Phase(150, hidden=1.0),
    Phase(1_000, hidden=0.4),
)
MOTION_LORA: Recipe = {
    **SHARED,
    "train": "motion lora",
    "batch": 4,
    "learning_rate": 1e-3,
    "ema": 0.98,
    "rank": 8,
    "motion_module": str(MOTION_MODULE),
}
MOTION_LORA_PHASES = (Phase(300, hidden=0.4),)


class ByMotion:
    """In which order clips come: each motion as often as the phase says. Like `Order`, known for each step."""

    def __init__(self, examples: list[Example], batch: int, seed: int, phases: tuple[Phase, ...]) -> None:
        self._of_motion: dict[str, list[int]] = defaultdict(list)
        for index, example in enumerate(examples):
            self._of_motion[next((motion for motion in MOTIONS if motion in example.caption), "")].append(index)
        self._batch, self._seed, self._phases = batch, seed, phases

    def at(self, index: int) -> list[int]:
        """The examples of batch `index`, counted from the start of the training."""
        draw = np.random.default_rng([self._seed, index])
        shares = {motion: share for motion, share in phase_at(self._phases, index).shares.items() if self._of_motion[motion]}
        parts = np.array(list(shares.values()))
        motions = draw.choice(list(shares), size=self._batch, p=parts / parts.sum())
        return [int(draw.choice(self._of_motion[motion])) for motion in motions]


def phase_at(phases: tuple[Phase, ...], step: int) -> Phase:
    """The phase that a step, counted from the start of the training, is in."""
    return next(phase for phase, end in zip(phases, accumulate(phase.steps for phase in phases)) if step < end)


class MotionTraining(Training):
    """Learns most where there is hardly anything but noise: there a motion is decided.

    The noise is easy to tell there whatever moves. With the error of the noise alone, at timesteps that are all alike, five
    hundred steps of four clips taught frames to be alike, and no motion; and an adapter made the base worse there. So the
    loss is weighed as that of the velocity (arXiv 2202.00512), and timesteps are drawn towards the noise.

    Even the last timestep leaves traces of a clip, over sixteen frames enough to tell where its shape goes; sampling begins
    with noise alone. Without the clips that are hidden, a module follows the traces and takes no notice of the caption.
    """

    def __init__(self, config: Config, phases: tuple[Phase, ...], subject: Subject | None = None) -> None:
        super().__init__(config, subject)
        self.phases = phases
        self.order = ByMotion(self.examples, config.batch, config.seed, phases)

    def batch(self, index: int) -> Batch:
        batch, steps = super().batch(index), self.config.noise_schedule.steps
        draw = torch.Generator().manual_seed(index)
        hidden = torch.rand(batch.times.shape, generator=draw).to(batch.times.device) < phase_at(self.phases, index).hidden
        lowest = HIDDEN_FROM * steps * hidden
        times = (lowest + (steps - lowest) * towards_noise(batch.times / steps)).long()
        return _hidden(replace(batch, times=times), hidden, self.alphas)

    def loss(self, batch: Batch) -> Tensor:
        return self.losses(batch).div(self.alphas[batch.times].clamp(min=LEAST_SIGNAL)).mean()

    def rate(self) -> float:
        return super().rate() * (0.505 + 0.495 * math.cos(math.pi * self.step / self.config.steps))


def _hidden(batch: Batch, chosen: Tensor, alphas: Tensor) -> Batch:
    """The batch with a noise that takes the chosen clips away: added to them, it leaves what was drawn, and nothing else."""
    left = alphas[batch.times].view(-1, 1, 1, 1, 1)
    taking = (batch.noise - left**0.5 * batch.latents) / (1 - left) ** 0.5
    return replace(batch, noise=torch.where(chosen.view(-1, 1, 1, 1, 1), taking, batch.noise))


def clips(runs: Path, *, watermark: bool = False) -> Path:
    """All that moves. With a watermark, as stock footage has it, where that is wanted."""
    return write_clips(runs / ("clips-marked" if watermark else "clips"), MOTIONS, CLIPS, SEED, watermark=watermark)


def clips_of(runs: Path, lesson: str, count: int = LORA_CLIPS) -> Path:
    """Some clips of one motion, without a watermark."""
    return write_clips(runs / f"clips-{lesson}-{count}", (lesson,), count, SEED, watermark=False)


def trained(
    runs: Path,
    name: str,
    recipe: Recipe,
    phases: tuple[Phase, ...],
    data: Path,
    subject: Subject | None = None,
) -> MotionTraining:
    """A training that is done, now or before. Its file is `name` in `runs`. Raises SystemExit where it was interrupted."""
    folder = runs / f"{name}-{_digest(recipe, phases)}-training"
    _share_cache(folder, runs / f"cache-{data.name}")
    options = {
        **recipe,
        "base": str(checkpoint_in(runs / "committed")),
        "data": str(data),
        "output": str(runs / f"{name}.safetensors"),
        "folder": str(folder),
        "steps": sum(phase.steps for phase in phases),
    }
    training = MotionTraining(config_of(options, runs), phases, subject)
    if not training.run():
        raise SystemExit(f"Stopped at step {training.step}. The same command goes on from there.")
    return training


def _digest(recipe: Recipe, phases: tuple[Phase, ...]) -> str:
    """So that no training goes on from the state of another recipe: a training itself knows nothing of phases."""
    facts = [OBJECTIVE, recipe, [asdict(phase) for phase in phases]]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]


def _share_cache(folder: Path, cache: Path) -> None:
    """All trainings on the same clips find them in one cache."""
    folder.mkdir(parents=True, exist_ok=True)
    cache.mkdir(exist_ok=True)
    if not (folder / "cache").exists():
        (folder / "cache").symlink_to(cache.resolve(), target_is_directory=True)


STAGES: dict[str, Callable[[Path], Training]] = {
    "adapter": lambda runs: trained(runs, "adapter", ADAPTER, ADAPTER_PHASES, clips(runs, watermark=True)),
    "module": lambda runs: trained(runs, "motion", MODULE, MODULE_PHASES, clips(runs)),
    **{
        lesson: lambda runs, lesson=lesson: trained(runs, lesson, MOTION_LORA, MOTION_LORA_PHASES, clips_of(runs, lesson))
        for lesson in LORA_MOTIONS
    },
}


def main() -> None:
    runs, stages = stages_of(__doc__, STAGES)
    for stage in stages:
        print(STAGES[stage](runs).config.output)


if __name__ == "__main__":
    main()
