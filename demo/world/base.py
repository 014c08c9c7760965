"""Trains the world's image model, UNet and text encoder from nothing, on stills in the plain style.

    .venv/bin/python -m demo.world.base RUNS

The recipe of Stable Diffusion 1: the noise of latents, a tenth of the captions left out, the mean of the weights kept. What is
added is a weight of each timestep (Min-SNR, arXiv 2303.09556, gamma 5), which learns faster.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from demo.world import render
from demo.world.model import new_model
from demo.world.scenes import LESSONS, MOTIONS, Scene, held_out_scenes, training_scenes
from motion_module.noise import STABLE_DIFFUSION
from motion_module.training.image_model import ImageModel
from motion_module.training.sampling import ddim, guided, timesteps

SEED = 2
STILLS = 24_000
STEPS = 6_000
BATCH = 32
RATE, WARM_UP = 6e-4, 200
NO_CAPTION, OPEN_CAPTION = 0.1, 0.05
AVERAGE = 0.999
GAMMA = 5.0


def takes() -> Iterator[tuple[Scene, int]]:
    """What the stills show: scenes and the seeds of their takes."""
    draw = np.random.default_rng(SEED)
    every = training_scenes(MOTIONS + LESSONS)
    for _ in range(STILLS):
        yield every[draw.integers(len(every))], int(draw.integers(2**31))


@torch.no_grad()
def cached_moments(model: ImageModel, file: Path) -> Tensor:
    """The stills as `Autoencoder.moments`, in half precision, made once."""
    if file.exists():
        return torch.load(file, weights_only=True)
    moments, chunk = [], []
    for index, (scene, seed) in enumerate(takes()):
        chunk.append(render.still(scene, seed))
        if len(chunk) == 32 or index == STILLS - 1:
            pictures = torch.from_numpy(np.stack(chunk)).permute(0, 3, 1, 2).float() / 127.5 - 1
            moments.append(model.autoencoder.moments(pictures).half())
            chunk = []
    torch.save(torch.cat(moments), file)
    return torch.cat(moments)


class Captions:
    """Token ids of what a still's caption may be."""

    def __init__(self, model: ImageModel) -> None:
        self.scenes = [scene for scene, _ in takes()]
        texts = sorted({"", *(s.caption for s in self.scenes), *(s.open_caption for s in self.scenes)})
        self.index = {text: position for position, text in enumerate(texts)}
        self.tokens = model.text_encoder.tokens(texts)

    def drawn(self, chosen: np.ndarray, draw: np.random.Generator) -> Tensor:
        """A caption for each chosen still, `(stills, 77)`."""
        luck = draw.random(len(chosen))
        texts = [
            "" if p < NO_CAPTION else scene.open_caption if p < NO_CAPTION + OPEN_CAPTION else scene.caption
            for p, scene in zip(luck, (self.scenes[index] for index in chosen))
        ]
        return self.tokens[[self.index[text] for text in texts]]


def loss_of(model: ImageModel, latents: Tensor, tokens: Tensor, noise: torch.Generator) -> Tensor:
    alphas = STABLE_DIFFUSION.alphas_cumprod()
    times = torch.randint(0, STABLE_DIFFUSION.steps, (len(latents),), generator=noise)
    left = alphas[times].view(-1, 1, 1, 1)
    added = torch.randn(latents.shape, generator=noise)
    context = model.text_encoder.transformer(tokens)[0]
    found = model.unet(left**0.5 * latents + (1 - left) ** 0.5 * added, times, context=context)
    ratio = left / (1 - left)
    return ((found - added) ** 2 * (GAMMA / ratio).clamp(max=1)).mean()


def train(folder: Path, steps: int = STEPS) -> Path:
    """Trains and writes `base.pt`; goes on where it was cut off. Needs `autoencoder.pt`."""
    torch.manual_seed(SEED)
    model = new_model(folder)
    model.autoencoder.load_state_dict(torch.load(folder / "autoencoder.pt", weights_only=True))
    model.autoencoder.requires_grad_(False)
    moments, captions = cached_moments(model, folder / "stills.pt"), Captions(model)
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
    for step in range(first, steps):
        draw, noise = np.random.default_rng([SEED, step]), torch.Generator().manual_seed(step)
        chosen = draw.integers(STILLS, size=BATCH)
        mean, deviation = moments[torch.from_numpy(chosen)].float().chunk(2, dim=1)
        latents = mean + deviation * torch.randn(mean.shape, generator=noise)
        optimizer.param_groups[0]["lr"] = RATE * min(1, step / WARM_UP, 0.5 * (1 + np.cos(np.pi * step / steps)) + 0.005)
        loss = loss_of(model, latents, captions.drawn(chosen, draw), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        averaged.update_parameters(model)
        losses.append(loss.item())
        if step % 50 == 49:
            print(f"step {step + 1}: loss {np.mean(losses[-50:]):.4f}, {time.monotonic() - started:.0f} s", flush=True)
        if step % 500 == 499 or step == steps - 1:
            state = {"model": model.state_dict(), "averaged": averaged.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**state, "step": step + 1}, state_file)
            Image.fromarray(sheet(averaged.module, held_out_scenes(24, SEED))).save(folder / f"base-{step + 1}.png")
    torch.save(averaged.module.state_dict(), folder / "base.pt")
    return folder / "base.pt"


@torch.no_grad()
def stills_of(model: ImageModel, texts: list[str], seed: int, steps: int = 20, scale: float = 5.0) -> np.ndarray:
    """One still for each text, `(texts, height, width, 3)`."""
    noise = torch.randn(len(texts), 4, render.SIDE // 8, render.SIDE // 8, generator=torch.Generator().manual_seed(seed))
    predict = guided(model.unet, model.text_encoder(texts), model.text_encoder([""]), scale)
    pictures = model.autoencoder.decode(ddim(predict, noise, STABLE_DIFFUSION, timesteps(STABLE_DIFFUSION, steps)))
    return ((pictures.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def sheet(model: ImageModel, scenes: list[Scene]) -> np.ndarray:
    """A still of each scene, side by side, six in a row."""
    training = model.training
    model.eval()
    pictures = stills_of(model, [scene.caption for scene in scenes], SEED)
    model.train(training)
    return np.concatenate([np.concatenate(list(pictures[row : row + 6]), axis=1) for row in range(0, len(pictures), 6)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="the folder where `demo.world.autoencoder` left its result")
    print(train(parser.parse_args().runs))


if __name__ == "__main__":
    main()
