"""The training loop of the world's image models, and the command line of its trainings."""

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

from motion_module.training.latent_cache import replacing

SAVE_EVERY, PRINT_EVERY = 200, 50
MOST_GRADIENT = 1.0


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters of a training."""

    steps: int
    rate: Callable[[int], float]
    """The learning rate of each step."""
    average: float
    """The decay of the average of the weights."""
    decay: float = 0.0
    """The weight decay."""


def towards_noise(fraction: Tensor) -> Tensor:
    """Moves uniform timesteps, as fractions between 0 and 1, so that most are near 1, the noisiest."""
    return 1 - (1 - fraction) ** 2


def learned(module: Any, loss_of: Callable[[int], Tensor], recipe: Recipe, state_file: Path) -> Any:
    """Trains the weights of a module that require gradients. Returns a copy of the module with the average of its weights.

    `loss_of`: computes the loss of a step. An interrupted training continues from `state_file`.
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
        if done % PRINT_EVERY == 0:
            recent = np.mean(losses[-PRINT_EVERY:])
            print(f"step {done} of {recipe.steps}: loss {recent:.4f}, {time.monotonic() - started:.0f} s", flush=True)
        if done % SAVE_EVERY == 0 or done == recipe.steps:
            with replacing(state_file) as whole:
                torch.save({"step": done, **{name: part.state_dict() for name, part in parts.items()}}, whole)
    return averaged.module


def _restored(parts: dict[str, nn.Module | torch.optim.Optimizer], state_file: Path) -> int:
    """Restores the last saved state. Returns the number of steps that it has trained."""
    if not state_file.exists():
        return 0
    state = torch.load(state_file, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return state["step"]


def stages_of(description: str | None, known: Iterable[str]) -> tuple[Path, list[str]]:
    """Reads the command line. Returns the folder for results, and the chosen stages out of `known`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="the folder for the results of trainings")
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"{', '.join(known)} (default: all)")
    options = parser.parse_args()
    for name in options.stages:
        if name not in known:
            parser.error(f"there is no stage {name}; choose from {', '.join(known)}")
    return options.runs.resolve(), options.stages or list(known)
