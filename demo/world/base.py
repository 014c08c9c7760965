"""Trains the world's image model, UNet and text encoder from nothing, on stills in the plain style.

    .venv/bin/python -m demo.world.base RUNS

The recipe of Stable Diffusion 1: the noise of latents, a tenth of the captions left out, the mean of the weights kept.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from demo.world.learn import Recipe, learned
from demo.world.model import made_by, new_model, write_checkpoint
from demo.world.scenes import held_out_scenes
from demo.world.stills import Stills, loss_of, made, sheet

SEED = 2
STILLS = 24_000
STEPS = 7_100
BATCH = 32
RATE, WARM_UP = 6e-4, 200
AVERAGE = 0.999


def train(folder: Path) -> Path:
    """Trains and writes the checkpoint; goes on where it was cut off. Needs `autoencoder.pt`."""
    torch.manual_seed(SEED)
    model = new_model(folder)
    model.autoencoder.load_state_dict(torch.load(folder / "autoencoder.pt", weights_only=True))
    model.autoencoder.requires_grad_(False)
    stills = Stills(model, folder, STILLS, SEED)

    def loss(step: int) -> Tensor:
        draw, noise = np.random.default_rng([SEED, step]), torch.Generator().manual_seed(step)
        return loss_of(model, *stills.batch(BATCH, draw, noise), noise)

    averaged = learned(model, loss, Recipe(STEPS, rate, AVERAGE, decay=0.01), folder / "base-state.pt")
    pictures = made(averaged, [scene.caption for scene in held_out_scenes(24, SEED)], SEED)
    Image.fromarray(sheet(pictures)).save(folder / "base.png")
    write_checkpoint(averaged, folder / "base.safetensors", made_by("python -m demo.world.base RUNS", SEED))
    return folder / "base.safetensors"


def rate(step: int) -> float:
    return RATE * min(1, step / WARM_UP, 0.505 + 0.5 * math.cos(math.pi * step / STEPS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="the folder where `demo.world.autoencoder` left its result")
    print(train(parser.parse_args().runs))


if __name__ == "__main__":
    main()
