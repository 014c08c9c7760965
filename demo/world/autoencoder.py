"""Trains the world's autoencoder on stills of all its styles.

    .venv/bin/python -m demo.world.autoencoder RUNS

The loss is the mean absolute error of the pixels and of their differences from their neighbours, which sharpens edges. A small
weight is on the divergence from a normal distribution, as in LDM (arXiv 2112.10752, section 3.1).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from demo.world import render
from demo.world.model import DEVICE, new_model
from demo.world.scenes import LORA_MOTIONS, MOTIONS, training_scenes
from demo.world.training_loop import Recipe, learned

SEED = 1
STEPS, FINISHING = 1100, 600
CROPS, CROP, PICTURES = 32, 64, 8
"""Training starts with many crops, for their many colours; its last quarter uses whole pictures, which the models will see.
Then the learning rate starts high again, with crops and whole pictures in turn, and only whole pictures in the last third."""
RATE = 1e-3
DIVERGENCE = 3e-4


def stills(draw: np.random.Generator, count: int) -> Tensor:
    """Returns random stills `(count, 3, height, width)` between -1 and 1, in all styles, a quarter of them with a watermark."""
    every = training_scenes(MOTIONS + LORA_MOTIONS)
    pictures = [
        render.still(
            every[draw.integers(len(every))],
            int(draw.integers(2**31)),
            str(draw.choice(render.STYLES)),
            watermark=draw.random() < 0.25,
        )
        for _ in range(count)
    ]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def batch(step: int) -> Tensor:
    """Returns the pictures of one training step."""
    draw = np.random.default_rng([SEED, step])
    late = (step - STEPS) / FINISHING
    if (0.75 * STEPS <= step < STEPS) or late >= 2 / 3 or (late >= 0 and step % 2):
        return stills(draw, PICTURES)
    corners = draw.integers((render.SIDE - CROP) // 4, 3 * (render.SIDE - CROP) // 4, (CROPS, 2))
    return torch.stack([still[:, y : y + CROP, x : x + CROP] for still, (y, x) in zip(stills(draw, CROPS), corners)])


def rate(step: int) -> float:
    if step < STEPS:
        return RATE * min(1, step / 30, 2 - 1.96 * step / STEPS)
    return RATE * (1.02 - (step - STEPS) / FINISHING)


def loss_of(vae: nn.Module, step: int) -> Tensor:
    pictures, noise = batch(step).to(DEVICE), torch.Generator().manual_seed(step)
    mean, log_variance = vae.quant_conv(vae.encoder(pictures)).chunk(2, dim=1)  # type: ignore[operator]
    log_variance = log_variance.clamp(-30, 20)
    latents = mean + torch.exp(0.5 * log_variance) * torch.randn(mean.shape, generator=noise).to(DEVICE)
    error = vae.decoder(vae.post_quant_conv(latents)) - pictures  # type: ignore[operator]
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
    return error.abs().mean() + 0.5 * edges + DIVERGENCE * divergence


@torch.no_grad()
def give_unit_spread(vae: nn.Module, scale: float, draw: np.random.Generator) -> None:
    """Rescales the latents so that, multiplied by the published 0.18215, each channel has mean 0 and standard deviation 1."""
    latents = vae.quant_conv(vae.encoder(stills(draw, 256).to(DEVICE)))[:, :4]  # type: ignore[operator]
    mean, spread = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3)) * scale
    inward, outward = vae.quant_conv, vae.post_quant_conv
    outward.bias += outward.weight[:, :, 0, 0] @ mean  # type: ignore[operator,union-attr,index]
    outward.weight *= spread[None, :, None, None]  # type: ignore[operator]
    inward.weight[:4] /= spread[:, None, None, None]  # type: ignore[operator,index]
    inward.bias[:4] = (inward.bias[:4] - mean) / spread  # type: ignore[operator,index]
    inward.bias[4:] -= 2 * torch.log(spread)  # type: ignore[operator,index]


def train(folder: Path) -> Path:
    """Trains and writes `autoencoder.pt`. An interrupted training continues."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    vae = new_model(folder).autoencoder
    vae.quant_conv.bias.data[4:] -= 4  # low variance at first, since noise would only slow the start
    recipe = Recipe(STEPS + FINISHING, rate, average=0.995, decay=1e-4)
    vae = learned(vae, lambda step: loss_of(vae, step), recipe, folder / "autoencoder-state.pt").eval()
    give_unit_spread(vae, vae.scale, np.random.default_rng(SEED))
    torch.save(vae.state_dict(), folder / "autoencoder.pt")
    return folder / "autoencoder.pt"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="the folder for the results of trainings")
    print(train(parser.parse_args().runs))


if __name__ == "__main__":
    main()
