"""Clips that show the progress of a running training."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .config import PIXELS_PER_LATENT, Config
from .image_model import ImageModel
from .latent_cache import Embeddings, Example
from .sampling import ddim, guided, noise_of, timesteps
from .trained_parts import Animated


def validation_clips(
    animated: Animated, examples: list[Example], model: ImageModel, embeddings: Embeddings, config: Config
) -> list[tuple[str, NDArray[np.uint8]]]:
    """Returns the prompts of `config`, each with a clip `(frames, height, width, 3)` that the UNet of `animated` generates.

    `examples`: the training clips, of which some frames may be shown to what is trained.
    """
    clips, unet = [], animated.unet
    for prompt in config.validation.prompts:
        device = next(unet.parameters()).device
        side = config.size // PIXELS_PER_LATENT
        pictures = animated.shown_for(prompt, examples)
        height, width = (side, side) if pictures is None else pictures.shape[3:]
        noise = torch.randn(config.frames, 4, height, width, generator=torch.Generator().manual_seed(config.seed)).to(device)
        context = embeddings.of([prompt, ""]).to(device)
        predict = guided(unet, context[:1].expand(config.frames, -1, -1), context[1:], config.validation.cfg)
        if model.predicts == "v":
            predict = noise_of(predict, config.noise_schedule)
        with animated.showing(pictures):
            latents = ddim(predict, noise, config.noise_schedule, timesteps(config.noise_schedule, config.validation.steps))
        clips.append((prompt, decoded(model, latents)))
    return clips


@torch.no_grad()
def decoded(model: ImageModel, latents: Tensor) -> NDArray[np.uint8]:
    """Returns latents `(rows, 4, height, width)` as images `(rows, 8·height, 8·width, 3)`, decoded one by one to save
    memory.
    """
    with torch.autocast(latents.device.type, enabled=False):  # Stable Diffusion's autoencoder overflows in half precision
        images = torch.cat([model.autoencoder.decode(row.float()) for row in latents.split(1)])
    array: NDArray[np.uint8] = ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return array
