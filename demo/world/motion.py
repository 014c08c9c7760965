"""Trains a domain adapter, a motion module, two motion LoRAs and a SparseCtrl network in the world, with the extension's own
trainers.

    .venv/bin/python -m demo.world.motion RUNS [adapter|module|sparse-ctrl|circling|swinging …]

The motion module is trained on clips in the base's style. The adapter is trained on single frames of clips with a watermark,
which the base's stills do not have; `demo.paper` measures its effect on modules that are trained on such clips. Each training
starts from the committed files of those before it, and continues if it was interrupted.
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
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from demo.world import render
from demo.world.clips import write_clips
from demo.world.model import MOTION_MODULE, SPARSE_CTRL, checkpoint_in
from demo.world.scenes import LORA_MOTIONS, MOTIONS
from demo.world.training_loop import stages_of, towards_noise
from motion_module.training.config import Config, config_of
from motion_module.training.latent_cache import Example
from motion_module.training.loop import Batch, Training
from motion_module.training.trained_parts import Animated

SEED = 4
CLIPS, LORA_CLIPS, SPARSE_CTRL_CLIPS = 6_000, 50, 600
PROMPTS = (
    "a red circle moving left on a blue background",
    "a large yellow star spinning on a green background",
    "a blue square growing on a white background",
    "a green triangle bouncing on a yellow background",
)
OBJECTIVE = "3"
"""Raise it with every change of `MotionTraining` that alters what is learned, so that trainings and clips of the paper are made
again."""
HIDDEN_FROM = 0.9
"""The fraction of the timesteps from which on a clip may be hidden completely in its noise."""
LEAST_SIGNAL = 0.0047
"""The signal at the last timestep of Stable Diffusion's schedule. It bounds the weight of a loss on schedules with less."""
Recipe = dict[str, Any]
"""The options of a training, as in a user's configuration file, without the paths of its data and its output."""
Subject = Callable[[nn.Module, Config], Animated]
"""Makes the trained part for a UNet, instead of the one that the recipe names."""
SCHEDULE = {"straight_in": "sqrt_betas", "first": 0.00085, "last": 0.012}
"""The schedule of the base. On AnimateDiff's, which leaves less signal, the base's error starts three times as large, and a
module repairs that before it learns any motion."""


@dataclass(frozen=True)
class Phase:
    """A phase of a training. The names of its fields are part of the digests in committed files of verdicts."""

    steps: int
    hidden: float = 0.0
    """The fraction of clips that are hidden completely in their noise."""
    shares: dict[str, float] = field(default_factory=lambda: dict.fromkeys((*MOTIONS, ""), 1.0))
    """The relative frequency of each motion; "" stands for clips whose captions name none."""


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
SPARSE_CTRL_RECIPE: Recipe = {
    **SHARED,
    "train": "sparsectrl",
    "batch": 4,
    "learning_rate": 1e-3,
    "warm_up": 50,
    "ema": 0.99,
    "save_every": 50,
    "motion_module": str(MOTION_MODULE),
}
SPARSE_CTRL_PHASES = (Phase(900, hidden=0.3),)


class ByMotion:
    """The order of the training clips: each motion as often as the phase says. As with `Order`, every step is determined."""

    def __init__(self, examples: list[Example], batch: int, seed: int, phases: tuple[Phase, ...]) -> None:
        self._of_motion: dict[str, list[int]] = defaultdict(list)
        for index, example in enumerate(examples):
            self._of_motion[next((motion for motion in MOTIONS if motion in example.caption), "")].append(index)
        self._batch, self._seed, self._phases = batch, seed, phases

    def at(self, index: int) -> list[int]:
        """Returns the examples of batch `index`, counted from the start of the training."""
        draw = np.random.default_rng([self._seed, index])
        shares = {motion: share for motion, share in phase_at(self._phases, index).shares.items() if self._of_motion[motion]}
        parts = np.array(list(shares.values()))
        motions = draw.choice(list(shares), size=self._batch, p=parts / parts.sum())
        return [int(draw.choice(self._of_motion[motion])) for motion in motions]


def phase_at(phases: tuple[Phase, ...], step: int) -> Phase:
    """Returns the phase of a step, counted from the start of the training."""
    return next(phase for phase, end in zip(phases, accumulate(phase.steps for phase in phases)) if step < end)


class MotionTraining(Training):
    """A training with most of its weight on the noisiest timesteps, where the motion is decided.

    The noise is easy to predict there, whatever moves. With the loss on the noise and uniform timesteps, five hundred steps of
    four clips made frames alike but taught no motion, and an adapter made the base worse at these timesteps. So the loss is
    weighted as a loss on the velocity (arXiv 2202.00512), and timesteps are drawn towards the noise.

    Even the last timestep leaves traces of a clip, which over sixteen frames show where its shape goes; but sampling starts
    from noise alone. Without hidden clips, a module follows the traces and ignores the caption.
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
    """Returns the batch with noise that cancels the chosen clips: added to them, it gives the drawn noise and nothing else."""
    signal = alphas[batch.times].view(-1, 1, 1, 1, 1)
    cancelling = (batch.noise - signal**0.5 * batch.latents) / (1 - signal) ** 0.5
    return replace(batch, noise=torch.where(chosen.view(-1, 1, 1, 1, 1), cancelling, batch.noise))


def clips(runs: Path, count: int = CLIPS, *, watermark: bool = False) -> Path:
    """Writes clips of all motions. Returns their folder. `watermark`: adds a watermark, as in stock footage."""
    name = ("clips-marked" if watermark else "clips") + ("" if count == CLIPS else f"-{count}")
    return write_clips(runs / name, MOTIONS, count, SEED, watermark=watermark)


def clips_of(runs: Path, name: str, count: int = LORA_CLIPS) -> Path:
    """Writes clips of one motion, without a watermark. Returns their folder."""
    return write_clips(runs / f"clips-{name}-{count}", (name,), count, SEED, watermark=False)


def trained(
    runs: Path,
    name: str,
    recipe: Recipe,
    phases: tuple[Phase, ...],
    data: Path,
    subject: Subject | None = None,
) -> MotionTraining:
    """Trains, unless that was done before, and returns the finished training. Its output is the file `name` in `runs`.

    Raises SystemExit if the user interrupts it.
    """
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
        raise SystemExit(f"Stopped at step {training.step}. Run the same command to continue.")
    return training


def _digest(recipe: Recipe, phases: tuple[Phase, ...]) -> str:
    """Returns a digest of recipe and phases, so that no training continues from the state of another recipe."""
    facts = [OBJECTIVE, recipe, [asdict(phase) for phase in phases]]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]


def _share_cache(folder: Path, cache: Path) -> None:
    """Links the training's cache to one that all trainings on the same clips share."""
    folder.mkdir(parents=True, exist_ok=True)
    cache.mkdir(exist_ok=True)
    if not (folder / "cache").exists():
        (folder / "cache").symlink_to(cache.resolve(), target_is_directory=True)


def sparse_ctrl(runs: Path) -> Training:
    """Trains a SparseCtrl network. Beside its file writes one of half its size, with matrices in eight bits (E4M3)."""
    training = trained(runs, "sparse-ctrl", SPARSE_CTRL_RECIPE, SPARSE_CTRL_PHASES, clips(runs, SPARSE_CTRL_CLIPS))
    with safe_open(training.config.output, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        small = {key: tensor.to(torch.float8_e4m3fn) if tensor.dim() > 1 else tensor for key, tensor in tensors.items()}
        save_file(small, runs / SPARSE_CTRL.name, file.metadata())
    return training


STAGES: dict[str, Callable[[Path], Training]] = {
    "adapter": lambda runs: trained(runs, "adapter", ADAPTER, ADAPTER_PHASES, clips(runs, watermark=True)),
    "module": lambda runs: trained(runs, "motion", MODULE, MODULE_PHASES, clips(runs)),
    "sparse-ctrl": sparse_ctrl,
    **{
        name: lambda runs, name=name: trained(runs, name, MOTION_LORA, MOTION_LORA_PHASES, clips_of(runs, name))
        for name in LORA_MOTIONS
    },
}


def main() -> None:
    runs, stages = stages_of(__doc__, STAGES)
    for stage in stages:
        print(STAGES[stage](runs).config.output)


if __name__ == "__main__":
    main()
