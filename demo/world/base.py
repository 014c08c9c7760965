"""Trains the world's image model, UNet and text encoder, from scratch, on stills in the plain style.

    .venv/bin/python -m demo.world.base RUNS

The first part follows Stable Diffusion 1: the loss on the noise, a tenth of the captions dropped, an average of the weights.
The model then knows what things look like, but ignores "left", "right", "up" and "down": the position of a shape is decided at
the noisiest timesteps, which count little in that loss. So the text encoder and the transformers continue with a loss on the
velocity, at first only on shapes that move in a direction, since the words are not learned among other motions. That loses some
of what was known of colours and shapes, so all weights continue together after that.

Turned shapes are still drawn round at this point. Their angle is decided at medium timesteps, which count little in the second
loss. So the last part uses the first loss again, on many turned shapes.
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
DIRECTION_WORDS, SPREAD = ("left", "right", "up", "down"), 0.067
"""Words whose embeddings are drawn again for the second part, with this standard deviation."""


@dataclass(frozen=True)
class Phase:
    """A phase of the second or third part."""

    steps: int
    moving: float
    """The fraction of stills with shapes that move in a direction."""
    rate: float
    """The highest learning rate."""
    average: float
    """The decay of the average of the weights."""
    lowest: int = 0
    """The lowest timestep that is trained on."""
    batch: int = BATCH


AS_THEY_COME = 4 / 11
"""The fraction of moving shapes among all motions."""
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
"""The last part, and the fraction of spinning shapes among its stills."""


def train(folder: Path) -> Path:
    """Trains and writes the checkpoint. Needs `autoencoder.pt`. An interrupted training continues."""
    torch.manual_seed(SEED)
    model = new_model(folder)
    model.autoencoder.load_state_dict(torch.load(folder / "autoencoder.pt", weights_only=True))
    model.autoencoder.requires_grad_(False)
    stills = Stills(model, folder, STILLS, SEED)
    for part in (looks, directions, together, turned):
        model = part(model, stills, folder)
    pictures = made(model, [scene.caption for scene in held_out_scenes(24, SEED)], SEED)
    Image.fromarray(sheet(pictures)).save(folder / "base.png")
    write_checkpoint(model, folder / "base.safetensors", made_by("python -m demo.world.base RUNS", SEED))
    return folder / "base.safetensors"


def looks(model: ImageModel, stills: Stills, folder: Path) -> ImageModel:
    """The first part: what things look like. Returns the average of the weights."""

    def loss(step: int) -> Tensor:
        draw, noise = np.random.default_rng([SEED, step]), torch.Generator().manual_seed(step)
        return noise_loss(model, *stills.batch(BATCH, draw, noise), noise)

    return learned(model, loss, Recipe(STEPS, rate, AVERAGE, decay=0.01), folder / "base-state.pt")


def directions(model: ImageModel, stills: Stills, folder: Path) -> ImageModel:
    """The second part: the words of direction. Returns the average of the weights."""
    vectors = model.text_encoder.transformer.get_input_embeddings().weight.data
    for word in DIRECTION_WORDS:
        vectors[model.text_encoder.tokens([word])[0, 1]] = SPREAD * torch.randn(vectors.shape[1]).to(DEVICE)
    for name, weight in model.named_parameters():
        weight.requires_grad_(name.startswith("cond_stage_model") or "transformer_blocks" in name)
    for number, phase in enumerate(PHASES):
        model = _taught(model, phase, stills, number, folder)
    return model


def together(model: ImageModel, stills: Stills, folder: Path) -> ImageModel:
    """The third part: looks and directions together. Returns the average of the weights."""
    model.requires_grad_(True)
    model.autoencoder.requires_grad_(False)
    for number, phase in enumerate(TOGETHER, start=len(PHASES)):
        model = _taught(model, phase, stills, number, folder)
    return model


def turned(model: ImageModel, stills: Stills, folder: Path) -> ImageModel:
    """The last part: shapes at any angle. Returns the average of the weights."""
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
    parser.add_argument("runs", type=Path, help="the folder into which `demo.world.autoencoder` wrote its result")
    print(train(parser.parse_args().runs))


if __name__ == "__main__":
    main()
