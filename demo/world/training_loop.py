"""The loop by which the world's image models are trained, and the command line of trainings."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from motion_module.training.cache import replacing

SAVED_EVERY, SAID_EVERY = 200, 50
MOST_GRADIENT = 1.0


@dataclass(frozen=True)
class Recipe:
    """`rate`: of each step. `average`: how much of the mean of the weights is kept in a step. `decay`: of the weights."""

    steps: int
    rate: Callable[[int], float]
    average: float
    decay: float = 0.0


def towards_noise(part: Tensor) -> Tensor:
    """Of timesteps that are spread evenly, as parts of all from 0 to below 1, others of which most are near the noise."""
    return 1 - (1 - part) ** 2


def learned(module: Any, loss_of: Callable[[int], Tensor], recipe: Recipe, state_file: Path) -> Any:
    """Trains what of a `module` takes gradients, and returns a copy of it with the mean of the weights.

    `loss_of`: of a step. Where the training was cut off, it goes on from `state_file`.
    """
    learning = [weight for weight in module.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learning, weight_decay=recipe.decay)
    mean_of = torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.average)
    averaged = torch.optim.swa_utils.AveragedModel(module, multi_avg_fn=mean_of)
    parts = {"module": module, "averaged": averaged, "optimizer": optimizer}
    first = _restored(parts, state_file)
    started, losses = time.monotonic(), []
    for step in range(first, recipe.steps):
        optimizer.param_groups[0]["lr"] = recipe.rate(step)
        loss = loss_of(step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, MOST_GRADIENT)
        optimizer.step()
        optimizer.zero_grad()
        averaged.update_parameters(module)
        losses.append(loss.item())
        done = step + 1
        if done % SAID_EVERY == 0:
            recent = np.mean(losses[-SAID_EVERY:])
            print(f"step {done} of {recipe.steps}: loss {recent:.4f}, {time.monotonic() - started:.0f} s", flush=True)
        if done % SAVED_EVERY == 0 or done == recipe.steps:
            with replacing(state_file) as whole:
                torch.save({"step": done, **{name: part.state_dict() for name, part in parts.items()}}, whole)
    return averaged.module


def _restored(parts: dict[str, nn.Module | torch.optim.Optimizer], state_file: Path) -> int:
    """Gives the parts back what they were at the last saved step, and returns how many steps that was."""
    if not state_file.exists():
        return 0
    state = torch.load(state_file, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return state["step"]


def stages_of(description: str | None, known: Iterable[str]) -> tuple[Path, list[str]]:
    """From the command line: the folder for what trainings leave, and which of the known stages are wanted."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="a folder for what trainings leave")
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"{', '.join(known)}; all without any")
    options = parser.parse_args()
    for name in options.stages:
        if name not in known:
            parser.error(f"there is no {name}; there are {', '.join(known)}")
    return options.runs.resolve(), options.stages or list(known)
