"""Single frames of the world for training image models: their latents and captions, and the losses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demo.world import render
from demo.world.model import DEVICE
from demo.world.scenes import LORA_MOTIONS, MOTIONS, Scene, training_scenes
from demo.world.training_loop import towards_noise
from motion_module.noise_schedule import STABLE_DIFFUSION
from motion_module.training.image_model import ImageModel
from motion_module.training.latent_cache import fingerprint, replacing
from motion_module.training.sampling import ddim, guided, timesteps
from motion_module.training.validation import decoded

NO_CAPTION, SHORT_CAPTION = 0.1, 0.4
"""The fractions of captions that are dropped, and that drop each word with a probability of one half: so a model learns each
word by itself, not only in the combinations that it saw."""
WORDS = ("shape", "colour", "background", "motion", "size")
ENCODED_AT_ONCE = 32
GAMMA = 5.0
"""The signal-to-noise ratio above which a timestep counts less."""


class Stills:
    """Random stills in one style, with their captions."""

    def __init__(self, model: ImageModel, folder: Path, count: int, seed: int, style: str = "plain") -> None:
        """Encodes the stills, unless `folder` has their latents already; the file name depends on the autoencoder."""
        draw = np.random.default_rng(seed)
        every = training_scenes(MOTIONS + LORA_MOTIONS)
        takes = [(every[draw.integers(len(every))], int(draw.integers(2**31))) for _ in range(count)]
        self.scenes = [scene for scene, _ in takes]
        cache = folder / f"stills-{style}-{count}-{seed}-{fingerprint(model.autoencoder)[:8]}.pt"
        if not cache.exists():
            pictures = (render.still(scene, take, style) for scene, take in takes)
            with replacing(cache) as whole:
                torch.save(_moments(model, pictures, count), whole)
        self.moments = torch.load(cache, weights_only=True)
        self._tokens = lru_cache(None)(lambda text: model.text_encoder.tokens([text])[0].cpu())

    def batch(
        self, size: int, draw: np.random.Generator, noise: torch.Generator, among: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns latents `(size, 4, height, width)` and the tokens of their captions `(size, 77)`.

        `among`: the indices of the stills to draw from; all by default.
        """
        chosen = draw.choice(len(self.scenes) if among is None else among, size=size)
        mean, deviation = self.moments[torch.from_numpy(chosen)].float().chunk(2, dim=1)
        tokens = torch.stack([self._tokens(_caption(self.scenes[index], draw)) for index in chosen])
        return (mean + deviation * torch.randn(mean.shape, generator=noise)).to(DEVICE), tokens.to(DEVICE)


def _caption(scene: Scene, draw: np.random.Generator) -> str:
    luck = draw.random()
    if luck < NO_CAPTION:
        return ""
    short = luck < NO_CAPTION + SHORT_CAPTION
    return scene.described(frozenset(word for word in WORDS if short and draw.random() < 0.5))


@torch.no_grad()
def _moments(model: ImageModel, pictures: Iterable[NDArray[np.uint8]], count: int) -> Tensor:
    moments: list[Tensor] = []
    chunk: list[NDArray[np.uint8]] = []
    for index, picture in enumerate(pictures):
        chunk.append(picture)
        if len(chunk) == ENCODED_AT_ONCE or index == count - 1:
            batch = torch.from_numpy(np.stack(chunk)).permute(0, 3, 1, 2).float() / 127.5 - 1
            moments.append(model.autoencoder.moments(batch.to(DEVICE)).half().cpu())
            chunk = []
    return torch.cat(moments)


def noise_loss(model: ImageModel, latents: Tensor, tokens: Tensor, noise: torch.Generator) -> Tensor:
    """Returns the mean squared error of the predicted noise, with Min-SNR weights (arXiv 2303.09556)."""
    times = torch.randint(0, STABLE_DIFFUSION.steps, (len(latents),), generator=noise)
    errors, signal = errors_of(model, latents, tokens, noise, times)
    return (errors * (GAMMA * (1 - signal) / signal).clamp(max=1)).mean()


def velocity_loss(model: ImageModel, latents: Tensor, tokens: Tensor, noise: torch.Generator, lowest: int = 0) -> Tensor:
    """Returns the mean squared error of the velocity (arXiv 2202.00512), at timesteps from `lowest` on, mostly noisy ones.

    What is decided at noisy timesteps, such as the position of a shape, counts little in the error of the noise.
    """
    drawn = towards_noise(torch.rand(len(latents), generator=noise))
    times = (lowest + drawn * (STABLE_DIFFUSION.steps - lowest)).long().clamp(max=STABLE_DIFFUSION.steps - 1)
    errors, signal = errors_of(model, latents, tokens, noise, times)
    return (errors / signal).mean()


def errors_of(
    model: ImageModel, latents: Tensor, tokens: Tensor, noise: torch.Generator, times: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns each row's mean squared error of the noise, and its alpha-bar (the fraction of signal): both `(rows,)`.

    `latents`: `(rows, 4, height, width)`. `tokens`: `(rows, 77)`. `times`: `(rows,)`.
    """
    signal = STABLE_DIFFUSION.alphas_cumprod()[times].to(DEVICE)
    added = torch.randn(latents.shape, generator=noise).to(DEVICE)
    noised = signal.view(-1, 1, 1, 1) ** 0.5 * latents + (1 - signal.view(-1, 1, 1, 1)) ** 0.5 * added
    predicted = model.unet(noised, times.to(DEVICE), context=model.text_encoder.transformer(tokens)[0])
    return (predicted - added).square().mean(dim=(1, 2, 3)), signal


@torch.no_grad()
def made(model: ImageModel, texts: list[str], seed: int, steps: int = 20, scale: float = 5.0) -> np.ndarray:
    """Samples one still for each text. Returns `(texts, height, width, 3)`."""
    noise = torch.randn(len(texts), 4, render.SIDE // 8, render.SIDE // 8, generator=torch.Generator().manual_seed(seed))
    predict = guided(model.unet, model.text_encoder(texts), model.text_encoder([""]), scale)
    return decoded(model, ddim(predict, noise.to(DEVICE), STABLE_DIFFUSION, timesteps(STABLE_DIFFUSION, steps)))


def sheet(pictures: np.ndarray, columns: int = 6) -> np.ndarray:
    """Returns the pictures side by side in one image, in rows of `columns`."""
    rows = [np.concatenate(list(pictures[row : row + columns]), axis=1) for row in range(0, len(pictures), columns)]
    return np.concatenate(rows)
