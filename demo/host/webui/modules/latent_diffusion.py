"""The Stable Diffusion 1 model of the embedded host: LDM's UNet and autoencoder, and CLIP's text encoder from transformers.

The WebUI takes this class from another repository. The names of the parts are those in published checkpoints.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

import torch
from ldm.modules import attention
from ldm.modules.diffusionmodules import model as autoencoder
from ldm.modules.diffusionmodules import openaimodel, util
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from modules import devices
from modules.sd_hijack_clip import FrozenCLIPEmbedderWithCustomWordsBase
from torch import nn
from torch.nn import functional as F


class DiffusionWrapper(nn.Module):
    conditioning_key = "crossattn"

    def __init__(self, **unet: Any) -> None:
        super().__init__()
        self.diffusion_model = UNetModel(**unet)
        self.diffusion_model.dtype = devices.dtype

    def forward(self, x: torch.Tensor, t: torch.Tensor, c_crossattn: list[torch.Tensor]) -> torch.Tensor:
        return self.diffusion_model(x, t, context=torch.cat(c_crossattn, dim=1))


class AutoencoderKL(nn.Module):
    def __init__(self, ddconfig: dict[str, Any], embed_dim: int) -> None:
        super().__init__()
        with contextlib.redirect_stdout(io.StringIO()):  # LDM's classes print their shapes when they are built
            self.encoder = autoencoder.Encoder(**ddconfig)
            self.decoder = autoencoder.Decoder(**ddconfig)
        self.quant_conv = nn.Conv2d(2 * ddconfig["z_channels"], 2 * embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(embed_dim, ddconfig["z_channels"], 1)


class LatentDiffusion(nn.Module):
    is_sd1, is_sd2, is_sdxl, is_sd3 = True, False, False, False
    alphas_cumprod: torch.Tensor
    alphas_cumprod_original: torch.Tensor
    sd_checkpoint_info: Any

    def __init__(self, config: dict[str, Any], transformer: nn.Module, tokenizer: object) -> None:
        """`config`: the `params` of a `.yaml` of a Stable Diffusion 1 model."""
        super().__init__()
        first_stage = config["first_stage_config"]["params"]
        self.model = DiffusionWrapper(**{**config["unet_config"]["params"], "use_checkpoint": False})
        self.first_stage_model = AutoencoderKL(first_stage["ddconfig"], first_stage["embed_dim"])
        self.cond_stage_model = FrozenCLIPEmbedderWithCustomWordsBase(transformer, tokenizer)
        self.scale_factor = config["scale_factor"]
        ends = config["linear_start"] ** 0.5, config["linear_end"] ** 0.5
        betas = torch.linspace(*ends, config["timesteps"], dtype=torch.float64) ** 2
        self.trained_alphas_cumprod = torch.cumprod(1 - betas, dim=0).float()
        self.register_buffer("alphas_cumprod", self.trained_alphas_cumprod.clone())

    @property
    def device(self) -> torch.device:
        return self.alphas_cumprod.device

    def apply_model(self, x: torch.Tensor, t: torch.Tensor, cond: dict[str, list[torch.Tensor]]) -> torch.Tensor:
        """Predicts the noise in `x` `(rows, 4, height, width)` at timesteps `t` `(rows,)`."""
        context = [part.to(devices.dtype) for part in cond["c_crossattn"]]
        return self.model(x.to(devices.dtype), t, c_crossattn=context).to(x.dtype)

    def get_learned_conditioning(self, texts: list[str]) -> torch.Tensor:
        return self.cond_stage_model(texts)

    def decode_first_stage(self, latents: torch.Tensor) -> torch.Tensor:
        """Returns pictures `(rows, 3, height, width)` between -1 and 1. Decodes one at a time to save memory."""
        vae = self.first_stage_model
        scaled = (latents / self.scale_factor).to(devices.dtype_vae)
        return torch.cat([vae.decoder(vae.post_quant_conv(row[None])) for row in scaled]).float()

    def encode_first_stage(self, pictures: torch.Tensor) -> torch.Tensor:
        """Returns latents of pictures between -1 and 1, sampled from the encoder with torch's global generator."""
        vae = self.first_stage_model
        moments = torch.cat([vae.quant_conv(vae.encoder(row[None])) for row in pictures.to(devices.dtype_vae)])
        mean, log_variance = moments.float().chunk(2, dim=1)
        spread = torch.exp(0.5 * log_variance.clamp(-30, 20))
        return self.scale_factor * (mean + spread * torch.randn(mean.shape).to(mean))


def _attend(self: nn.Module, x: torch.Tensor, context: torch.Tensor | None = None, mask: Any = None) -> torch.Tensor:
    """LDM's cross attention with torch's fused kernel, which the WebUI uses on GPUs."""
    rows, tokens, _ = x.shape
    context = x if context is None else context

    def heads(y: torch.Tensor) -> torch.Tensor:
        return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    out = F.scaled_dot_product_attention(heads(self.to_q(x)), heads(self.to_k(context)), heads(self.to_v(context)))
    return self.to_out(out.transpose(1, 2).reshape(rows, tokens, -1))


def _attend_pixels(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The autoencoder's attention with torch's fused kernel."""
    normed = self.norm(x)
    q, k, v = (layer(normed).flatten(2).transpose(1, 2).contiguous() for layer in (self.q, self.k, self.v))
    out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
    return x + self.proj_out(out)


class _TorchOfUNet:
    """torch, except for `cat`: at sizes that do not halve evenly, it resizes the input from below to the skip connection's."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def cat(tensors: list[torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
        upward, skip = tensors
        if upward.shape[-2:] != skip.shape[-2:]:
            upward = F.interpolate(upward, skip.shape[-2:], mode="nearest")
        return torch.cat([upward, skip], *args, **kwargs)


def _timestep_embedding(timesteps: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """LDM's embedding of timesteps, which it computes in single precision, in the dtype of the UNet."""
    return util.timestep_embedding(timesteps, *args, **kwargs).to(devices.dtype)


openaimodel.th = _TorchOfUNet()
openaimodel.timestep_embedding = _timestep_embedding
util.GroupNorm32.forward = nn.GroupNorm.forward  # LDM's gives weights of half precision an input of single precision
attention.CrossAttention.forward = _attend
autoencoder.AttnBlock.forward = _attend_pixels
