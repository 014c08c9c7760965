"""Trains what moves in the world, with the trainers that users have: an adapter, a motion module, and two motion LoRAs.

    .venv/bin/python -m demo.world.motion RUNS [adapter|module|circling|swinging …]

The clips have a watermark, as stock footage has. The adapter learns it, on single frames; the motion module is trained with the
adapter in place, and so has no need to. Each begins with the committed files of those before it, and goes on where it was cut
off.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from demo.world import render
from demo.world.clips import write_clips
from demo.world.model import LORAS, MOTION_MODULE, checkpoint_in
from demo.world.scenes import LESSONS, MOTIONS
from motion_module.training.config import Config, config_of
from motion_module.training.loop import Training

SEED = 4
CLIPS, LESSON_CLIPS = 3_000, 50
PROMPTS = (
    "a red circle moving left on a blue background",
    "a large yellow star spinning on a green background",
    "a blue square growing on a white background",
    "a purple triangle bouncing on a yellow background",
)
SHARED: dict[str, Any] = {"size": render.SIDE, "frames": render.FRAMES, "stride": 1, "seed": SEED, "licence": "Apache-2.0"}


def adapter(runs: Path, **options: Any) -> Config:
    return _config(
        runs, "adapter", train="domain adapter", stride=8, steps=500, batch=32, learning_rate=1e-3, ema=0.98, rank=8, **options
    )


def module(runs: Path, name: str = "motion", **options: Any) -> Config:
    defaults: dict[str, Any] = {
        "train": "motion module",
        "steps": 4_000,
        "batch": 4,
        "learning_rate": 8e-4,
        "warm_up": 100,
        "ema": 0.998,
        "save_every": 250,
        "domain_adapter": str(LORAS / "adapter.safetensors"),
        "validation": {"prompts": list(PROMPTS), "every": 500, "steps": 20, "cfg": 5.0},
    }
    return _config(runs, name, **{**defaults, **options})


def lesson(runs: Path, motion: str, clips: int = LESSON_CLIPS, **options: Any) -> Config:
    """A motion LoRA that learns a motion from some clips without a watermark."""
    folder = write_clips(runs / f"clips-{motion}-{clips}", (motion,), clips, SEED, watermark=False)
    defaults: dict[str, Any] = {
        "train": "motion lora",
        "data": str(folder),
        "steps": 300,
        "batch": 4,
        "learning_rate": 1e-3,
        "ema": 0.98,
        "rank": 8,
        "motion_module": str(MOTION_MODULE),
    }
    return _config(runs, motion if clips == LESSON_CLIPS else f"{motion}-{clips}", **{**defaults, **options})


def _config(runs: Path, name: str, **options: Any) -> Config:
    if "data" not in options:
        options["data"] = str(write_clips(runs / "clips", MOTIONS, CLIPS, SEED, watermark=True))
    paths = {"base": str(checkpoint_in(runs / "committed")), "output": str(runs / f"{name}.safetensors")}
    return config_of({**SHARED, **paths, **options}, runs)


def main() -> None:
    stages = {"adapter": adapter, "module": module, **{motion: lambda runs, m=motion: lesson(runs, m) for motion in LESSONS}}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="a folder for what trainings leave")
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"{', '.join(stages)}; all without any")
    options = parser.parse_args()
    for stage in options.stages or stages:
        Training(stages[stage](options.runs.resolve())).run()


if __name__ == "__main__":
    main()
