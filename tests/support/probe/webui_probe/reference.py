"""Replaces the WebUI's UNet by the authors': it gives the expected frames of a clip, without any code of the extension.

While it is armed, a plain request for a batch of images is sampled as a clip, on the authors' noise schedule.
"""

from __future__ import annotations

import base64
import gc
import io
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from modules import sd_samplers_common, shared
from PIL import Image
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
from support import authors_sparse, camera_weights, published_layouts
from support import authors_unet as authors
from webui_probe import webuis

BETAS = {
    "straight": torch.linspace(0.00085, 0.012, 1000, dtype=torch.float64),
    "straight to 0.014": torch.linspace(0.00085, 0.014, 1000, dtype=torch.float64),
    "sdxl": torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2,
    "sdxl to 0.020": torch.linspace(0.00085**0.5, 0.020**0.5, 1000, dtype=torch.float64) ** 2,
}
"""`linear` in the authors' inference.yaml and to 0.014 for AnimateLCM-I2V, SDXL's schedule, and `scaled_linear` to 0.020 in the
authors' branch for SDXL.
"""


def network_of(
    module: str, loras: dict[str, float], mask: list[float] | None, camera: str | None = None, poses: str = "", **facts: Any
) -> authors.AuthorsUNet:
    """Returns the authors' UNet with the weights of the loaded checkpoint.

    `camera`, `poses`: a file of CameraCtrl, and the text of a pose file. `facts`: keyword arguments of `AuthorsUNet`.
    """
    unet = {key: value.float() for key, value in webuis.unet().state_dict().items()}
    motion = published_layouts.with_tables({key: value.float() for key, value in load_file(module).items()})
    for file, strength in loras.items():
        for key, change in load_file(file).items():
            weights = motion if key in motion else unet
            weights[key] = weights[key] + strength * change.reshape(weights[key].shape)
    if mask is not None:
        kernel = motion["conv_in.weight"][:, 4:]
        unet["input_blocks.0.0.weight"] = torch.cat([unet["input_blocks.0.0.weight"], kernel], dim=1)
    if camera is not None:
        weights = load_file(camera)
        motion = {**motion, **weights}
        facts["camera"] = lambda height, width: camera_weights.authors_features(
            weights, camera_weights.authors_rays(poses, 8 * height, 8 * width)
        )
    return authors.AuthorsUNet(unet, motion, **facts)


def with_sizes(vector: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    """Returns SDXL's vector with other sizes at its end, each as cosines and sines of increasing wavelengths."""
    width = shared.sd_model.conditioner.embedders[-1].outdim
    rates = torch.exp(-math.log(10_000) * torch.arange(width // 2, dtype=torch.float64) / (width // 2))
    angles = torch.tensor(sizes, dtype=torch.float64)[:, None] * rates
    embedded = torch.cat([angles.cos(), angles.sin()], dim=1).flatten().float()
    return torch.cat([vector[:, : -len(embedded)], embedded.expand(len(vector), -1)], dim=1)


class SparseNetwork:
    """The authors' SparseCtrl network with its pictures, which have the proportions of the video."""

    def __init__(
        self, file: str, frames: list[int], pictures: list[str], strength: float = 1.0, mask_at: list[int] | None = None
    ) -> None:
        self._network = authors_sparse.AuthorsSparseCtrl({key: value.float() for key, value in load_file(file).items()})
        self._frames = frames
        self._pictures = [Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB") for text in pictures]
        self._strength, self._mask_at = strength, mask_at

    def added(self, clips: torch.Tensor, timestep: float, text: torch.Tensor) -> list[torch.Tensor]:
        """Returns what is added to the UNet in a call. `clips`: `(clips, 4, frames, height, width)`."""
        count, _, frames, height, width = clips.shape
        sized = [picture.resize((8 * width, 8 * height), Image.Resampling.LANCZOS) for picture in self._pictures]
        levels = torch.stack([torch.from_numpy(np.asarray(one)).float() / 255 for one in sized]).permute(0, 3, 1, 2)
        if self._network.takes_latents:
            levels = sd_samplers_common.images_tensor_to_samples(levels, None, shared.sd_model).float()
        shown = levels.transpose(0, 1)[None].expand(count, -1, -1, -1, -1)
        added = self._network.added(shown, self._frames, frames, timestep, text, mask_at=self._mask_at)
        return [self._strength * features for features in added]


class Reference:
    """Replaces the loaded UNet's forward and the model's noise schedule while it is armed."""

    def __init__(self) -> None:
        self._undo: Any = None
        self._latents: torch.Tensor | None = None

    def arm(
        self,
        module: str,
        frames: int,
        mask: list[float] | None,
        loras: dict[str, float],
        betas: str,
        sizes: list[int] | None,
        sparse: list[dict[str, Any]],
        shares: list[list[list[float]]] | None = None,
        shows_picture: bool = False,
        **facts: Any,
    ) -> None:
        """Replaces the UNet.

        `module`: a file in the authors' layout. `mask`: for each frame, how closely it follows the picture that it starts from.
        `loras`: files with a full matrix for each weight that they change, by the checkpoint's or the module's key. `sizes`:
        six numbers for SDXL's size conditioning, instead of the request's. `shares`: see `AuthorsUNet`.
        `sparse`: SparseCtrl networks, each with `file`, `frames`, `pictures` in base64, `strength`, and `mask_at`, where its
        mask is 1 if not there.
        `shows_picture`: whether its image encoder sees the picture of the last request of img2img.
        """
        self.disarm()
        network = network_of(module, loras, mask, shares=None if shares is None else torch.tensor(shares), **facts)
        controls = [SparseNetwork(**one) for one in sparse]

        def forward(
            x: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor, y: torch.Tensor | None = None, **_: Any
        ) -> torch.Tensor:
            clips = x.unflatten(0, (-1, frames)).transpose(1, 2)
            network.picture = self._latents[:1] if shows_picture else None
            if y is not None:
                y = (with_sizes(y, sizes) if sizes else y).unflatten(0, (-1, frames))
            if mask is not None:
                likeness = torch.tensor(mask)[None, None, :, None, None].expand(len(clips), 1, *clips.shape[2:])
                picture = self._latents[:1, :, None].expand(len(clips), -1, *clips.shape[2:])
                clips = torch.cat([clips, likeness, picture], dim=1)
            text = context.unflatten(0, (-1, frames))
            added = [control.added(clips, float(timesteps[0]), text) for control in controls]
            in_sum = [sum(of_controls) for of_controls in zip(*added)] or None
            out = network(clips, float(timesteps[0]), text, y, in_sum)
            return out.transpose(1, 2).flatten(0, 1)

        give_back, unet = webuis.lend_schedule(torch.cumprod(1 - BETAS[betas], 0).float()), webuis.unet()
        unet.forward = forward

        def undo() -> None:
            give_back()
            del unet.forward

        self._undo = undo

    def disarm(self) -> None:
        if self._undo is not None:
            self._undo()
            self._undo = None

    def about_to_sample(self, p: Any) -> None:
        """Remembers the latents of the picture that img2img started from most recently."""
        if (latents := getattr(p, "init_latent", None)) is not None:
            self._latents = latents


class LentSchedule:
    """While it is armed, plain pictures are sampled with the noise schedule of most motion modules."""

    def __init__(self) -> None:
        self._undo: Callable[[], None] = lambda: None

    def arm(self, on: bool) -> None:
        self._undo()
        self._undo = webuis.lend_schedule(torch.cumprod(1 - BETAS["straight"], 0).float()) if on else lambda: None


@torch.no_grad()
def differences(module: str, own_file: str, frames: int, **facts: Any) -> dict[str, float]:
    """Returns the largest difference between the extension's UNet and the authors', for each order in which rows may come.

    `own_file`: the module's file that the extension reads.
    """
    of = {name: sys.modules[f"motion_module.{name}"] for name in ("attach", "checkpoint", "row_layout", "motion_layers")}
    unet, network = webuis.unet(), network_of(module, {}, None, **facts)
    description, layers = of["checkpoint"].load(Path(own_file))
    torch.manual_seed(0)
    text_width = webuis.text_width(unet)
    noise, text = torch.randn(3, frames, 4, 8, 8), torch.randn(3, frames, 7, text_width)
    vectors = torch.randn(3, frames, unet.label_emb[0][0].in_features)
    expected = network(noise.transpose(1, 2), 500, text, vectors).transpose(1, 2)
    together = [(clip, frame) for clip in range(3) for frame in range(frames)]
    by_frame = [(part, frame) for frame in range(frames) for part in range(2)]
    negative = [(2, frame) for frame in range(frames)]
    ways = {
        "one clip": (1, [together[:frames]]),
        "three clips": (1, [together]),
        "a call for each": (1, [together[:frames], together[frames : 2 * frames]]),
        "joined by AND": (2, [by_frame + negative]),
        "joined by AND, negative apart": (2, [by_frame, negative]),
    }
    largest: dict[str, float] = {}
    for way, (parts, calls) in ways.items():
        layout_of = partial(of["row_layout"].layout_of_call, frames=frames, parts=parts)
        with of["attach"].attached(unet, of["motion_layers"].Motion(layers), description.require_motion_module(), layout_of):
            for order in calls:
                clip, frame = (torch.tensor(numbers) for numbers in zip(*order))
                times = torch.full((len(order),), 500)
                out = unet(noise[clip, frame], timesteps=times, context=text[clip, frame], y=vectors[clip, frame])
                off = float((out - expected[clip, frame]).abs().max())
                largest[way] = max(off, largest.get(way, 0.0))
    return {**largest, "spread": float(expected.std())}


class EffectiveWeights:
    """Writes the effective matrices of the motion layers, and of one attention layer, to a file while a clip is sampled."""

    def __init__(self) -> None:
        self._file: str | None = None

    def arm(self, file: str) -> None:
        self._file = file

    def about_to_sample(self) -> None:
        if self._file is not None:
            self.write(self._file)
            self._file = None

    def write(self, file: str) -> None:
        """Writes the motion module by our names, and the first `attn1.to_q` of the image UNet as it acts on vectors."""
        gc.collect()  # removes the modules of earlier requests
        (module,) = _modules_in_memory()
        tensors = {key: value.detach().clone() for key, value in module.state_dict().items()}
        query = webuis.unet().input_blocks[1][1].transformer_blocks[0].attn1.to_q
        with torch.no_grad():
            tensors["attn1.to_q"] = query(torch.eye(query.weight.shape[1])).T.contiguous()
        save_file(tensors, file)


def cameras() -> dict[str, int]:
    """Returns how many tensors the cameras of jobs keep, also those that nobody can reach any more."""
    kind = sys.modules["motion_module.camera_ctrl"].Camera
    kept = [held for thing in gc.get_objects() if type(thing) is kind for held in (*thing._features, *thing._merges)]
    return {"kept": len(kept)}


def _modules_in_memory() -> list[Any]:
    kind = sys.modules["motion_module.network"].MotionModule
    return [thing for thing in gc.get_objects() if type(thing) is kind]
