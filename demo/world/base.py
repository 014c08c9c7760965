"""Trains the world's image model, UNet and text encoder from nothing, on stills in the plain style.

    .venv/bin/python -m demo.world.base RUNS

The recipe of Stable Diffusion 1: the noise of latents, a tenth of the captions left out, the mean of the weights kept.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from demo.world.model import made_by, new_model, write_checkpoint
from demo.world.scenes import held_out_scenes
from demo.world.stills import Stills, loss_of, made, sheet

SEED = 2
STILLS = 24_000
STEPS = 4_500
BATCH = 32
RATE, WARM_UP = 6e-4, 200
AVERAGE = 0.999


def train(folder: Path) -> Path:
    """Trains and writes the checkpoint; goes on where it was cut off. Needs `autoencoder.pt`."""
    torch.manual_seed(SEED)
    model = new_model(folder)
    model.autoencoder.load_state_dict(torch.load(folder / "autoencoder.pt", weights_only=True))
    model.autoencoder.requires_grad_(False)
    stills = Stills(model, folder / "stills-plain.pt", STILLS, SEED)
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=RATE, weight_decay=0.01, fused=True)
    averaged = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(AVERAGE))
    state_file, first = folder / "base-state.pt", 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        averaged.load_state_dict(state["averaged"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    started, losses = time.monotonic(), []
    for step in range(first, STEPS):
        draw, noise = np.random.default_rng([SEED, step]), torch.Generator().manual_seed(step)
        optimizer.param_groups[0]["lr"] = RATE * min(1, step / WARM_UP, 0.505 + 0.5 * math.cos(math.pi * step / STEPS))
        loss = loss_of(model, *stills.batch(BATCH, draw, noise), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        averaged.update_parameters(model)
        losses.append(loss.item())
        if step % 50 == 49:
            print(f"step {step + 1}: loss {np.mean(losses[-50:]):.4f}, {time.monotonic() - started:.0f} s", flush=True)
        if step % 500 == 499 or step == STEPS - 1:
            state = {"model": model.state_dict(), "averaged": averaged.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**state, "step": step + 1}, state_file)
            pictures = made(averaged.module, [scene.caption for scene in held_out_scenes(24, SEED)], SEED)
            Image.fromarray(sheet(pictures)).save(folder / f"base-{step + 1}.png")
    write_checkpoint(averaged.module, folder / "base.safetensors", made_by("python -m demo.world.base RUNS", SEED))
    return folder / "base.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="the folder where `demo.world.autoencoder` left its result")
    print(train(parser.parse_args().runs))


if __name__ == "__main__":
    main()
