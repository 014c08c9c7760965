"""A Stable Diffusion 1 model for training: LDM's UNet and autoencoder, and CLIP's text encoder, from a checkpoint.

These are the classes that the WebUI uses. They are part of it, in `repositories/stable-diffusion-stability-ai`, or of the
package `stable-diffusion-sdkit`. Nothing else of the WebUI is needed for training.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MethodType
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from ..checkpoint import describe
from ..checkpoint_keys import kind_of_checkpoint, published_keys
from ..errors import MissingDependency
from ..weight_files import CheckpointError, WeightFile, open_weights

PUBLISHED_TEXT_ENCODER = "openai/clip-vit-large-patch14"
STABLE_DIFFUSION_1: dict[str, Any] = {
    "linear_start": 0.00085,
    "linear_end": 0.012,
    "timesteps": 1000,
    "scale_factor": 0.18215,
    "unet_config": {
        "params": {
            "image_size": 32,
            "in_channels": 4,
            "out_channels": 4,
            "model_channels": 320,
            "attention_resolutions": [4, 2, 1],
            "num_res_blocks": 2,
            "channel_mult": [1, 2, 4, 4],
            "num_heads": 8,
            "use_spatial_transformer": True,
            "transformer_depth": 1,
            "context_dim": 768,
            "legacy": False,
        }
    },
    "first_stage_config": {
        "params": {
            "embed_dim": 4,
            "ddconfig": {
                "double_z": True,
                "z_channels": 4,
                "resolution": 256,
                "in_channels": 3,
                "out_ch": 3,
                "ch": 128,
                "ch_mult": [1, 2, 4, 4],
                "num_res_blocks": 2,
                "attn_resolutions": [],
                "dropout": 0.0,
            },
        }
    },
    "cond_stage_config": {"params": {"version": PUBLISHED_TEXT_ENCODER}},
}
"""The published model configuration (`v1-inference.yaml`), for checkpoints without a `.yaml` of the same name."""

TEXT_TOKENS = 77
Prediction = Literal["eps", "v"]


class ImageModel(nn.Module):
    """UNet, autoencoder and text encoder, whose weights have the names of published checkpoints.

    `predicts`: what the UNet predicts: the noise, or v (arXiv 2202.00512).
    """

    def __init__(self, description: Mapping[str, Any]) -> None:
        """`description`: the `params` of a model configuration. Raises MissingDependency."""
        super().__init__()
        self.predicts: Prediction = description.get("parameterization", "eps")
        if self.predicts not in get_args(Prediction):
            raise CheckpointError(
                f"The checkpoint predicts {self.predicts}, as the .yaml beside it says. A training needs one that predicts "
                "eps (noise) or v (velocity). Choose another checkpoint as base."
            )
        first_stage = description["first_stage_config"]["params"]
        self.model = nn.Module()
        self.model.diffusion_model = new_unet(description["unet_config"]["params"])
        self.first_stage_model = Autoencoder(first_stage["ddconfig"], first_stage["embed_dim"], description["scale_factor"])
        self.cond_stage_model = TextEncoder(
            description.get("cond_stage_config", {}).get("params", {}).get("version") or PUBLISHED_TEXT_ENCODER
        )

    @property
    def unet(self) -> nn.Module:
        return self.model.diffusion_model  # type: ignore[return-value]

    @property
    def autoencoder(self) -> Autoencoder:
        return self.first_stage_model

    @property
    def text_encoder(self) -> TextEncoder:
        return self.cond_stage_model


class Autoencoder(nn.Module):
    """LDM's `AutoencoderKL`, without its losses."""

    def __init__(self, shape: Mapping[str, Any], channels: int, scale: float) -> None:
        super().__init__()
        _require_ldm()
        from ldm.modules.diffusionmodules import model as ldm

        with contextlib.redirect_stdout(io.StringIO()):  # LDM's classes print their shapes
            self.encoder, self.decoder = ldm.Encoder(**shape), ldm.Decoder(**shape)
        self.quant_conv = nn.Conv2d(2 * shape["z_channels"], 2 * channels, 1)
        self.post_quant_conv = nn.Conv2d(channels, shape["z_channels"], 1)
        self.scale = scale
        for block in self.modules():
            if type(block).__name__.endswith("AttnBlock"):
                block.forward = MethodType(_attend_pixels, block)

    def moments(self, images: Tensor) -> Tensor:
        """Returns scaled mean and standard deviation of the latents, `(rows, 8, height/8, width/8)`.

        `images`: `(rows, 3, height, width)`, from -1 to 1.
        """
        mean, log_variance = self.quant_conv(self.encoder(images)).chunk(2, dim=1)
        return self.scale * torch.cat([mean, torch.exp(0.5 * log_variance.clamp(-30, 20))], dim=1)

    def decode(self, latents: Tensor) -> Tensor:
        """Returns images from -1 to 1, `(rows, 3, 8·height, 8·width)`, from scaled latents `(rows, 4, height, width)`."""
        return self.decoder(self.post_quant_conv(latents / self.scale))


class TextEncoder(nn.Module):
    """The last layer of CLIP's text encoder with its final norm, which Stable Diffusion 1 was trained with."""

    def __init__(self, version: str) -> None:
        """`version`: a folder, or the name of a model in the cache of transformers. Raises MissingDependency."""
        super().__init__()
        from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

        try:
            self.transformer = CLIPTextModel(CLIPTextConfig.from_pretrained(version, local_files_only=True))
            self.tokenizer = CLIPTokenizer.from_pretrained(version, local_files_only=True)
        except OSError as error:
            raise MissingDependency(
                f"The tokenizer of the text encoder, {version!r}, is not on this machine. Start the WebUI once with this "
                "checkpoint to download it."
            ) from error

    def tokens(self, texts: list[str]) -> Tensor:
        """Returns the token ids of texts, `(texts, 77)`; longer texts are truncated."""
        encoded = self.tokenizer(texts, padding="max_length", truncation=True, max_length=TEXT_TOKENS, return_tensors="pt")
        return encoded["input_ids"].to(self.device)

    @property
    def device(self) -> torch.device:
        return next(self.transformer.parameters()).device

    def forward(self, texts: list[str]) -> Tensor:
        """Returns the embeddings of texts, `(texts, 77, width)`."""
        return self.transformer(self.tokens(texts))[0]


def load_image_model(path: Path) -> ImageModel:
    """Reads the model of a checkpoint file, and freezes it. Raises CheckpointError or MissingDependency.

    As in the WebUI, a `.yaml` of the same name describes the model, and keys may have other names (`checkpoint_keys.py`).
    """
    file = open_weights(path)
    keys = published_keys(file.entries)
    _require_stable_diffusion_1(path, file, keys)
    config = path.with_suffix(".yaml")
    described = None
    try:
        described = _described(config)
        model = ImageModel({**described, "parameterization": "v"} if "v_pred" in keys else described)
    except (CheckpointError, MissingDependency):
        raise
    except Exception as error:  # LDM's classes raise anything for values that make no model
        if described is STABLE_DIFFUSION_1:
            raise
        raise CheckpointError(
            f"{config.name} does not describe a Stable Diffusion 1 model. Move it to another folder."
        ) from error
    own = {key: tensor for key, tensor in model.state_dict().items() if not key.endswith("position_ids")}
    missing = [key for key in own if key not in keys]
    misshapen = [key for key in own if key in keys and file.entries[keys[key]].shape != own[key].shape]
    if missing or misshapen:
        raise CheckpointError(
            f"{path.name} is not a complete Stable Diffusion 1 checkpoint: it lacks weights ({len(missing)}), or has them in "
            f"another shape ({len(misshapen)}), such as {(missing + misshapen)[0]}. Choose another checkpoint as base."
        )
    with torch.no_grad():
        for key, tensor in own.items():
            tensor.copy_(file.weight(keys[key]))
    return model.eval().requires_grad_(False)


PARTS = {
    "model.diffusion_model.": "UNet",
    "first_stage_model.": "autoencoder",
    "cond_stage_model.transformer.": "text encoder",
}
"""The parts of a checkpoint by the prefix of their keys."""


def _require_stable_diffusion_1(path: Path, file: WeightFile, keys: Iterable[str]) -> None:
    """Raises CheckpointError if a file is another model, or if a whole part is missing."""
    kind = kind_of_checkpoint(file.entries)
    if kind not in (None, "SD 1.5"):
        raise CheckpointError(
            f"{path.name} is {kind}, but the base of a training is Stable Diffusion 1. Choose another checkpoint."
        )
    missing = [part for start, part in PARTS.items() if not any(key.startswith(start) for key in keys)]
    if len(missing) == len(PARTS):
        raise CheckpointError(f"{path.name} is {describe(path).kind}, not a Stable Diffusion 1 checkpoint. Choose one as base.")
    if missing:
        raise CheckpointError(
            f"{path.name} is not a complete Stable Diffusion 1 checkpoint: it has no {' and no '.join(missing)}. "
            "Choose another checkpoint as base."
        )


def _described(config: Path) -> dict[str, Any]:
    """Returns the description of a model in a file beside its checkpoint; the published one if the file is something else."""
    content = yaml.safe_load(config.read_text(encoding="utf-8")) if config.is_file() else None
    model = content.get("model") if isinstance(content, dict) else None
    return model["params"] if isinstance(model, dict) else STABLE_DIFFUSION_1


def new_unet(shape: Mapping[str, Any]) -> nn.Module:
    """Returns an untrained UNet. `shape`: the `params` of `unet_config`. Raises MissingDependency."""
    _require_ldm()
    from ldm.modules.diffusionmodules.openaimodel import UNetModel

    unet: nn.Module = UNetModel(**{**shape, "use_checkpoint": False})
    for block in unet.modules():
        if type(block).__name__.endswith("CrossAttention"):
            block.forward = MethodType(_attend, block)
    return unet


def _require_ldm() -> None:
    """Raises MissingDependency if LDM's classes are not installed."""
    if importlib.util.find_spec("ldm") is None:
        raise MissingDependency(
            "The classes of the image model (package ldm) are not installed. Add the WebUI's folder "
            "repositories/stable-diffusion-stability-ai to PYTHONPATH, or use the Python of `python -m demo`."
        )


def _attend(block: Any, x: Tensor, context: Tensor | None = None, mask: Any = None) -> Tensor:
    """Computes LDM's cross-attention with torch's fused kernel: the same result with less memory."""
    context = x if context is None else context

    def heads(y: Tensor) -> Tensor:
        return y.unflatten(-1, (block.heads, -1)).transpose(1, 2)

    mixed = F.scaled_dot_product_attention(heads(block.to_q(x)), heads(block.to_k(context)), heads(block.to_v(context)))
    return block.to_out(mixed.transpose(1, 2).flatten(2))


def _attend_pixels(block: Any, x: Tensor) -> Tensor:
    """Computes the autoencoder's attention with torch's fused kernel."""
    normed = block.norm(x)
    query, key, value = (layer(normed).flatten(2).transpose(1, 2) for layer in (block.q, block.k, block.v))
    mixed = F.scaled_dot_product_attention(query, key, value)
    return x + block.proj_out(mixed.transpose(1, 2).reshape(x.shape))


def named_weights(model: ImageModel) -> Iterator[tuple[str, Tensor]]:
    """Yields the weights of a checkpoint file with their published names."""
    for key, tensor in model.state_dict().items():
        if not key.endswith("position_ids"):
            yield key, tensor
