"""The authors' UNet in place of the WebUI's: what a clip has to look like, made with nothing of the extension.

While it is armed, a plain request for a batch of pictures is sampled as a clip of so many frames, on the authors' schedule.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any

import torch
from modules import sd_models, shared
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
import published
import reference as authors

BETAS = torch.linspace(0.00085, 0.012, 1000, dtype=torch.float64)
"""`beta_schedule: linear` of the authors' inference.yaml."""


class Reference:
    def __init__(self) -> None:
        self._undo: Any = None
        self._latents: torch.Tensor | None = None

    def arm(self, module: str, frames: int, over_frames: bool, mask: list[float] | None, loras: dict[str, float]) -> None:
        """`module`: a file in the authors' layout. `mask`: of each frame, where it starts from a picture.

        `loras`: files with a full matrix for each weight that they change, by the checkpoint's or the module's key.
        """
        self.disarm()
        model = shared.sd_model
        unet = {key: value.float() for key, value in model.model.diffusion_model.state_dict().items()}
        motion = published.with_tables({key: value.float() for key, value in load_file(module).items()})
        for file, strength in loras.items():
            for key, change in load_file(file).items():
                weights = motion if key in motion else unet
                weights[key] = weights[key] + strength * change.reshape(weights[key].shape)
        if mask is not None:
            kernel = motion["conv_in.weight"][:, 4:]
            unet["input_blocks.0.0.weight"] = torch.cat([unet["input_blocks.0.0.weight"], kernel], dim=1)
        network = authors.AuthorsUNet(unet, motion, over_frames=over_frames)

        def forward(x: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor, **_: Any) -> torch.Tensor:
            clips = x.unflatten(0, (-1, frames)).transpose(1, 2)
            if mask is not None:
                likeness = torch.tensor(mask)[None, None, :, None, None].expand(len(clips), 1, *clips.shape[2:])
                picture = self._latents[:1, :, None].expand(len(clips), -1, *clips.shape[2:])
                clips = torch.cat([clips, likeness, picture], dim=1)
            out = network(clips, float(timesteps[0]), context.unflatten(0, (-1, frames)))
            return out.transpose(1, 2).flatten(0, 1)

        own = model.alphas_cumprod_original, model.alphas_cumprod
        model.alphas_cumprod_original = torch.cumprod(1 - BETAS, 0).float()
        sd_models.apply_alpha_schedule_override(model)
        model.model.diffusion_model.forward = forward

        def undo() -> None:
            model.alphas_cumprod_original, model.alphas_cumprod = own
            del model.model.diffusion_model.forward

        self._undo = undo

    def disarm(self) -> None:
        if self._undo is not None:
            self._undo()
            self._undo = None

    def about_to_sample(self, p: Any) -> None:
        """Remembers the latents of the picture that img2img started from last."""
        if (latents := getattr(p, "init_latent", None)) is not None:
            self._latents = latents


class EffectiveWeights:
    """What the matrices of motion layers and of one attention are while a clip is sampled, written to a file."""

    def __init__(self) -> None:
        self._file: str | None = None

    def arm(self, file: str) -> None:
        self._file = file

    def about_to_sample(self) -> None:
        if self._file is not None:
            self.write(self._file)
            self._file = None

    def write(self, file: str) -> None:
        """The motion module by our names, and the image UNet's `attn1.to_q` of its first transformer as it acts on vectors."""
        gc.collect()  # modules of earlier requests may wait for it
        (module,) = _modules_in_memory()
        tensors = {key: value.detach().clone() for key, value in module.state_dict().items()}
        query = shared.sd_model.model.diffusion_model.input_blocks[1][1].transformer_blocks[0].attn1.to_q
        with torch.no_grad():
            tensors["attn1.to_q"] = query(torch.eye(query.in_features)).T.contiguous()
        save_file(tensors, file)


def _modules_in_memory() -> list[Any]:
    kind = sys.modules["motion_module.network"].MotionModule
    return [thing for thing in gc.get_objects() if type(thing) is kind]
