"""Trains the world's image model, UNet and text encoder from nothing, on stills in the plain style.

    .venv/bin/python -m demo.world.base RUNS

First with the recipe of Stable Diffusion 1: the noise of latents, a tenth of the captions left out, the mean of the weights
kept. The model learns what things look like then, but takes no notice of "left", "right", "up" and "down": where a shape is, is
decided where there is hardly anything but noise, and that loss hardly counts it. So text encoder and transformers go on with
another one, at first with nothing but shapes that move somewhere, since among others those words are not told apart. That
costs some of what was known of colours and shapes; so all goes on together after that.

Shapes that are turned are still drawn as something round then. At which angle they are is decided in the middle of the noise,
where the second loss hardly looks; so the last part has the first one's loss again, and many of these shapes.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from demo.world.model import DEVICE, made_by, new_model, write_checkpoint
from demo.world.scenes import held_out_scenes
from demo.world.stills import Stills, made, noise_loss, sheet, velocity_loss
from demo.world.training_loop import Recipe, learned
from motion_module.training.image_model import ImageModel

SEED = 2
STILLS = 24_000
BATCH = 32
STEPS, RATE, WARM_UP, AVERAGE = 7_100, 6e-4, 200, 0.999
PLACE_WORDS, SPREAD = ("left", "right", "up", "down"), 0.067
"""Words whose vectors start anew, with this standard deviation, for the second part."""


@dataclass(frozen=True)
class Phase:
    """A part of what follows the first one.

    `moving`: what part of the stills is of shapes that move somewhere. `average`: how much of the mean of the weights is kept
    in a step. `lowest`: the timestep from which on noise is drawn. `batch`: stills in a step.
    """

    steps: int
    moving: float
    rate: float
    average: float
    lowest: int = 0
    batch: int = BATCH


AS_THEY_COME = 4 / 11
"""The part of all motions that lead somewhere."""
PHASES = (
    Phase(300, 1.0, 2e-3, 0.9, lowest=900),
    Phase(700, 0.6, 1.5e-3, 0.995),
    Phase(1_000, AS_THEY_COME, 1e-3, 0.995),
)
TOGETHER = (
    Phase(3_000, AS_THEY_COME, RATE, 0.995),
    Phase(400, AS_THEY_COME, 8e-4, 0.995, batch=256),
)
"""The third part."""
TURNED_STEPS, TURNED_RATE, SPINNING = 1_700, 6e-4, 0.45
"""The last part, and how many of its stills are of shapes that spin."""


def train(folder: Path) -> Path:
    """Trains and writes the checkpoint; goes on where it was cut off. Needs `autoencoder.pt`."""
    torch.manual_seed(SEED)
    model = new_model(folder)
    model.autoencoder.load_state_dict(torch.load(folder / "autoencoder.pt", weights_only=True))
    model.autoencoder.requires_grad_(False)
    stills = Stills(model, folder, STILLS, SEED)
    for part in (looks, places, together, turned):
        model = part(model, stills, folder)
    pictures = made(model, [scene.caption for scene in held_out_scenes(24, SEED)], SEED)
    Image.fromarray(sheet(pictures)).save(folder / "base.png")
    write_checkpoint(model, folder / "base.safetensors", made_by("python -m demo.world.base RUNS", SEED))
    return folder / "base.safetensors"


def looks(model: ImageModel, stills: Stills, folder: Path) -> ImageModel:
    """The first part: what things look like. Returns the mean of the weights."""

    def loss(step: int) -> Tensor:
        draw, noise = np.random.default_rng([SEED, step]), torch.Generator().manual_seed(step)
        return noise_loss(model, *stills.batch(BATCH, draw, noise), noise)

    return learned(model, loss, Recipe(STEPS, rate, AVERAGE, decay=0.01), folder / "base-state.pt")


def places(model: ImageModel, stills: Stills, folder: Path) -> ImageModel:
    """The second part: where they are. Returns the mean of the weights."""
    vectors = model.text_encoder.transformer.get_input_embeddings().weight.data
    for word in PLACE_WORDS:
        vectors[model.text_encoder.tokens([word])[0, 1]] = SPREAD * torch.randn(vectors.shape[1]).to(DEVICE)
    for name, weight in model.named_parameters():
        weight.requires_grad_(name.startswith("cond_stage_model") or "transformer_blocks" in name)
    for number, phase in enumerate(PHASES):
        model = _taught(model, phase, stills, number, folder)
    return model


def together(model: ImageModel, stills: Stills, folder: Path) -> ImageModel:
    """The third part: what things look like, where they are. Returns the mean of the weights."""
    model.requires_grad_(True)
    model.autoencoder.requires_grad_(False)
    for number, phase in enumerate(TOGETHER, start=len(PHASES)):
        model = _taught(model, phase, stills, number, folder)
    return model


def turned(model: ImageModel, stills: Stills, folder: Path) -> ImageModel:
    """The last part: shapes at any angle. Returns the mean of the weights."""
    spinning = [index for index, scene in enumerate(stills.scenes) if scene.motion == "spinning"]
    many = round(SPINNING * BATCH)

    def loss(step: int) -> Tensor:
        draw, noise = np.random.default_rng([SEED, 9, step]), torch.Generator().manual_seed(9 * 10**6 + step)
        batches = stills.batch(many, draw, noise, spinning), stills.batch(BATCH - many, draw, noise)
        latents, tokens = (torch.cat(part) for part in zip(*batches))
        return noise_loss(model, latents, tokens, noise)

    recipe = Recipe(TURNED_STEPS, _falling(TURNED_RATE, TURNED_STEPS), 0.99)
    return learned(model, loss, recipe, folder / "base-turned-state.pt")


def _taught(model: ImageModel, phase: Phase, stills: Stills, number: int, folder: Path) -> ImageModel:
    moving = [index for index, scene in enumerate(stills.scenes) if scene.motion.startswith("moving")]
    others = [index for index, scene in enumerate(stills.scenes) if not scene.motion.startswith("moving")]
    among = moving + others[: round(len(moving) * (1 / phase.moving - 1))]

    def loss(step: int) -> Tensor:
        draw, noise = np.random.default_rng([SEED, number, step]), torch.Generator().manual_seed(10**5 * (number + 1) + step)
        return velocity_loss(model, *stills.batch(phase.batch, draw, noise, among), noise, phase.lowest)

    recipe = Recipe(phase.steps, _falling(phase.rate, phase.steps), phase.average)
    return learned(model, loss, recipe, folder / f"base-places-{number}-state.pt")


def _falling(highest: float, steps: int) -> Callable[[int], float]:
    return lambda step: highest * min(1, step / 30, 0.51 + 0.49 * math.cos(math.pi * step / steps))


def rate(step: int) -> float:
    return RATE * min(1, step / WARM_UP, 0.505 + 0.5 * math.cos(math.pi * step / STEPS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="the folder where `demo.world.autoencoder` left its result")
    print(train(parser.parse_args().runs))


if __name__ == "__main__":
    main()
