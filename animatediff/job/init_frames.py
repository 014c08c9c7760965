"""Clips of img2img that start from one image, and may end with another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from modules import shared
from torch import Tensor

from motion_module import init_frames
from motion_module.initial_noise import noise_for_seeds
from motion_module.motion_strength import PerFrame
from motion_module.patching import patched

from .. import host
from ..request.choices import MIX
from ..request.params import Params

BY_ROW = ("init_latent", "image_conditioning", "overlay_images", "color_corrections")
"""The attributes of `p` in which the WebUI's `init` puts one row for each image."""


def give(p: Any, params: Params) -> list[str]:
    """Gives img2img the first image once, followed by the last frame if there is one. Returns warnings.

    The batch tab repeats the image for each row, which would set the number of rows again.
    """
    p.init_images = p.init_images[:1]
    if (last := params.last_frame) is None:
        return []
    p.init_images.append(last)
    if last.size == (p.width, p.height):
        return []
    sizes = f"is {last.width}×{last.height}; img2img resized it to {p.width}×{p.height}"
    return [f"AnimateDiff: Last frame (last_frame) {sizes}, as it does the first one."]


@contextmanager
def encoded_once(p: Any, params: Params) -> Iterator[None]:
    """Around the WebUI's `init`: it encodes each given image once, and afterwards every frame has its row of the result.

    The WebUI would encode a single image again for each row. Frames before the last one get the rows of the first image. If
    another extension has put other images in their place by now, nothing is changed.
    """
    frames, images = params.video_length, 1 if params.last_frame is None else 2
    if len(p.init_images) != images:
        yield
        return
    p.batch_size = images
    yield
    p.batch_size = frames
    order = [0] * (frames - images + 1) + [1] * (images - 1)
    for name in BY_ROW:
        rows = getattr(p, name, None)
        if rows is not None and len(rows) == images:
            setattr(p, name, rows[order] if isinstance(rows, Tensor) else [rows[index] for index in order])


class InitFrames:
    """What the frames of a clip start from, such as one or two encoded images, and how frames depart from it."""

    def __init__(self, params: Params, latents: Tensor, strengths: tuple[float, ...] | None = None) -> None:
        """`latents`: `(frames, 4, height, width)`; the last row is that of the last image, if one is given.

        Without one, the rows of the first image may differ in what a mask for each frame fills. `strengths`: the denoising
        strength of each frame, if the request says it; then rows may also be those of an image for each frame.
        """
        self._params = params
        self._strengths = strengths
        self._encoded = latents
        self._first, self._last = (latents[:1], latents[-1:]) if params.last_frame else (latents, latents)
        self._frames = len(latents)

    def latents(self, seeds: list[int], kept: Tensor | None = None) -> Tensor:
        """Returns what the frames of a video start from, before the sampler adds noise: `(frames, 4, height, width)`.

        `kept`: the inpainting mask `(4, height, width)`, or one for each frame; 1 where the image stays.
        """
        found = self._on_their_way(seeds)
        return found if kept is None else torch.lerp(found, self._encoded.to(found), kept.to(found))

    def _on_their_way(self, seeds: list[int]) -> Tensor:
        params, frames = self._params, self._frames
        if params.image_mode != MIX:
            return init_frames.between(self._first, self._last, frames)
        first, last = (params.latent_power, params.latent_scale), (params.latent_power_last, params.latent_scale_last)
        if params.last_frame is None:
            of_first, of_last = init_frames.faded(frames, *first), torch.zeros(frames)
        else:
            of_first, of_last = init_frames.faded_between(frames, first, last)
        noise = noise_for_seeds(self._first.expand(frames, -1, -1, -1), seeds)
        return init_frames.mixed(self._first, of_first, self._last, of_last, noise)

    def _shares(self, sampler: Any, steps: int) -> Tensor:
        """Returns which fraction of the sampler's steps each frame takes, `(frames,)`. `steps`: those that were asked for."""
        params = self._params
        if self._strengths is None:
            ends = {"last": params.last_frame is not None, "closed": params.loops}
            return init_frames.shares(self._frames, params.ramp_length, **ends)
        if shared.opts.data.get("img2img_fix_steps"):  # these are the steps of the largest strength
            steps = int(steps / min(max(self._strengths), init_frames.MOST_OF_STEPS))
        return init_frames.shares_of(self._strengths, steps, more=-1 if hasattr(sampler, "get_timesteps") else 1)

    @contextmanager
    def holding(self, sampler: Any, steps: int, latents: Tensor, progress: Callable[[], float]) -> Iterator[None]:
        """While open, a frame is held at what it starts from until its own denoising strength begins.

        A frame with a strength of 0 ends as the image itself: samplers by timesteps would leave a little noise in it.
        """
        shares = self._shares(sampler, steps).to(latents.device)
        is_picture = (shares == 0).view(-1, 1, 1, 1)
        denoiser, sample = sampler.model_wrap_cfg, sampler.sample_img2img
        denoise = denoiser.forward

        def forward(x: Tensor, sigma: Tensor, *others: Any, **named: Any) -> Tensor:
            held = ~init_frames.free(shares, progress())
            found = denoise(x, sigma, *others, **named)
            if not held.any():
                return found
            sampler.last_latent = torch.where(held.view(-1, 1, 1, 1), latents.to(found), sampler.last_latent)
            as_found = latents if not hasattr(sampler, "get_timesteps") else noise_in(x, latents, sigma)
            return torch.where(held.view(-1, 1, 1, 1), as_found.to(found), found)

        def sample_img2img(*arguments: Any, **named: Any) -> Tensor:
            found = sample(*arguments, **named)
            return torch.where(is_picture, latents.to(found), found)

        with patched(denoiser, "forward", forward), patched(sampler, "sample_img2img", sample_img2img):
            yield


def give_strength(p: Any, strengths: PerFrame | None) -> None:
    """Gives img2img the denoising strength of the frame with most."""
    if strengths is not None:
        p.denoising_strength = max(strengths) if isinstance(strengths, tuple) else strengths


def noise_in(x: Tensor, latents: Tensor, timesteps: Tensor) -> Tensor:
    """Returns the noise that turns these latents into `x` at timesteps `(frames,)`: samplers by timesteps predict noise.

    UniPC uses timesteps between whole ones, where the logarithm of the signal that is left lies on a line (arXiv 2206.00927,
    appendix D.4).
    """
    model = shared.sd_model
    logarithms = host.of(model).alphas_cumprod(model).to(x).log()
    times = timesteps.to(x).clamp(0, len(logarithms) - 1)
    below = times.floor().long().clamp(max=len(logarithms) - 2)
    left = torch.lerp(logarithms[below], logarithms[below + 1], times - below).exp().view(-1, 1, 1, 1)
    return (x - left.sqrt() * latents.to(x)) / (1 - left).sqrt()
