"""Small SDXL checkpoints with random weights, and a LoRA for them, in the published layout, for tests in the live WebUI.

Each checkpoint has a `.yaml` with its model configuration, which has tiny text encoders. The architecture of the second text
encoder is in the probe extension (`webui_probe/architectures/`), since OpenCLIP finds architectures by name.
"""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from demo.clip_text_encoder import write_if_changed, write_text_folder
from demo.weights import (
    CHECKPOINT_GAINS,
    TEXT_LAYERS,
    TINY,
    Shapes,
    Tensors,
    add_noise_path,
    draw,
    draw_all,
    silence_vae_noise,
    text_params,
    vae_params,
    write_tensors,
)

RECIPE = "2"
"""The version of the files. Raise it with every change of their content."""
HEAD_WIDTH = 16
"""Channels per attention head of the UNet; SDXL has 64."""
SIZE_WIDTH = 16
"""The width of the embedding of each number in the size conditioning; SDXL has 256."""
DEPTH = 2
"""Consecutive transformers at both levels that have any; SDXL has 2 and 10, its refiner 4."""
OPEN_CLIP = "animatediff-tiny"
OPEN_CLIP_WIDTH = 64
ENCODERS = "sgm.modules.encoders.modules."


@dataclass(frozen=True)
class Kind:
    """A kind of checkpoint. `numbers`: the conditions of the UNet besides the text: sizes, and for the refiner a score."""

    levels: tuple[int, ...]
    text_width: int
    numbers: tuple[str, ...]

    @property
    def vector(self) -> int:
        """The width of the vector that is embedded in addition to the timestep."""
        counts = {"aesthetic_score": 1}
        return OPEN_CLIP_WIDTH + SIZE_WIDTH * sum(counts.get(name, 2) for name in self.numbers)


SIZES = ("original_size_as_tuple", "crop_coords_top_left")
BASE = Kind((1, 2, 4), TINY.text_width + OPEN_CLIP_WIDTH, (*SIZES, "target_size_as_tuple"))
REFINER = Kind((1, 2, 4, 4), OPEN_CLIP_WIDTH, (*SIZES, "aesthetic_score"))


def unet_params(kind: Kind) -> dict[str, Any]:
    """Returns the parameters that LDM's UNet and SGM's have in common."""
    return {
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": TINY.channels,
        "attention_resolutions": [4, 2],
        "num_res_blocks": 2,
        "channel_mult": list(kind.levels),
        "num_head_channels": HEAD_WIDTH,
        "use_spatial_transformer": True,
        "use_linear_in_transformer": True,
        "transformer_depth": DEPTH,
        "context_dim": [kind.text_width] * DEPTH,
        "legacy": False,
        "use_checkpoint": False,
    }


def open_clip_shapes() -> Shapes:
    """Returns the shapes of OpenCLIP's text encoder by name."""
    width = OPEN_CLIP_WIDTH
    shapes: Shapes = {"token_embedding.weight": (49408, width), "positional_embedding": (77, width), "logit_scale": ()}
    shapes |= {"text_projection": (width, width), "ln_final.weight": (width,), "ln_final.bias": (width,)}
    for index in range(TEXT_LAYERS):
        block = f"transformer.resblocks.{index}."
        shapes |= {f"{block}{norm}.{part}": (width,) for norm in ("ln_1", "ln_2") for part in ("weight", "bias")}
        linear = {"attn.out_proj": (width, width), "mlp.c_fc": (4 * width, width), "mlp.c_proj": (width, 4 * width)}
        for name, shape in linear.items():
            shapes |= {f"{block}{name}.weight": shape, f"{block}{name}.bias": shape[:1]}
        shapes |= {f"{block}attn.in_proj_weight": (3 * width, width), f"{block}attn.in_proj_bias": (3 * width,)}
    return shapes


def checkpoint_shapes(kind: Kind) -> Shapes:
    """Returns the shape of every weight by name. SGM's UNet has LDM's names, and a label embedding."""
    from transformers import CLIPTextConfig, CLIPTextModel

    with redirect_stdout(io.StringIO()):  # LDM prints as it is imported
        from ldm.modules.diffusionmodules.model import Decoder, Encoder
        from ldm.modules.diffusionmodules.openaimodel import UNetModel
    with torch.device("meta"), redirect_stdout(io.StringIO()):  # its VAE prints too
        parts = {
            "model.diffusion_model.": UNetModel(image_size=32, **unet_params(kind)),
            "first_stage_model.encoder.": Encoder(**vae_params()),
            "first_stage_model.decoder.": Decoder(**vae_params()),
            "first_stage_model.quant_conv.": torch.nn.Conv2d(8, 8, 1),
            "first_stage_model.post_quant_conv.": torch.nn.Conv2d(4, 4, 1),
        }
        if kind is BASE:
            parts["conditioner.embedders.0.transformer."] = CLIPTextModel(CLIPTextConfig(**text_params(TINY)))
    shapes = {
        prefix + name: tuple(parameter.shape) for prefix, part in parts.items() for name, parameter in part.named_parameters()
    }
    embedding = 4 * TINY.channels
    for name, inputs in (("label_emb.0.0", kind.vector), ("label_emb.0.2", embedding)):
        shapes |= {
            f"model.diffusion_model.{name}.weight": (embedding, inputs),
            f"model.diffusion_model.{name}.bias": (embedding,),
        }
    prefix = f"conditioner.embedders.{int(kind is BASE)}.model."
    return shapes | {prefix + name: shape for name, shape in open_clip_shapes().items()}


def checkpoint(kind: Kind, seed: int) -> Tensors:
    """Returns all weights of a random checkpoint."""
    tensors = draw_all(checkpoint_shapes(kind), seed, CHECKPOINT_GAINS)
    add_noise_path(tensors, TINY.channels, 3 * len(kind.levels) - 1)
    silence_vae_noise(tensors)
    return tensors


def description(kind: Kind, text_folder: Path) -> dict[str, Any]:
    """Returns the model configuration for the WebUI."""
    unet = {**unet_params(kind), "num_classes": "sequential", "adm_in_channels": kind.vector}
    unet |= {"spatial_transformer_attn_type": "softmax-xformers", "context_dim": kind.text_width}
    if kind is REFINER:
        unet["context_dim"] = [kind.text_width] * len(kind.levels)
    denoiser = "sgm.modules.diffusionmodules."
    parts = {
        "weighting_config": {"target": denoiser + "denoiser_weighting.EpsWeighting"},
        "scaling_config": {"target": denoiser + "denoiser_scaling.EpsScaling"},
        "discretization_config": {"target": denoiser + "discretizer.LegacyDDPMDiscretization"},
    }
    params = {
        "scale_factor": 0.13025,
        "disable_first_stage_autocast": True,
        "denoiser_config": {"target": denoiser + "denoiser.DiscreteDenoiser", "params": {"num_idx": 1000, **parts}},
        "network_config": {"target": denoiser + "openaimodel.UNetModel", "params": unet},
        "conditioner_config": {
            "target": "sgm.modules.GeneralConditioner",
            "params": {"emb_models": embedders(kind, text_folder)},
        },
        "first_stage_config": {
            "target": "sgm.models.autoencoder.AutoencoderKLInferenceWrapper",
            "params": {
                "embed_dim": 4,
                "monitor": "val/rec_loss",
                "ddconfig": vae_params(),
                "lossconfig": {"target": "torch.nn.Identity"},
            },
        },
    }
    return {"model": {"target": "sgm.models.diffusion.DiffusionEngine", "params": params}}


def embedders(kind: Kind, text_folder: Path) -> list[dict[str, Any]]:
    """Returns the embedders of text and numbers, in the order in which their results are concatenated."""
    clip = {"version": str(text_folder), "layer": "hidden", "layer_idx": TEXT_LAYERS - 1}
    open_clip = {"arch": OPEN_CLIP, "version": "", "freeze": True, "layer": "penultimate"}
    open_clip |= {"always_return_pooled": True, "legacy": False}
    of_text = [("txt", "FrozenCLIPEmbedder", clip)] if kind is BASE else []
    of_text.append(("txt", "FrozenOpenCLIPEmbedder2", open_clip))
    of_numbers = [(name, "ConcatTimestepEmbedderND", {"outdim": SIZE_WIDTH}) for name in kind.numbers]
    return [
        {"is_trainable": False, "input_key": key, "target": ENCODERS + target, "params": params}
        for key, target, params in [*of_text, *of_numbers]
    ]


def lora(seed: int, rank: int = 4) -> Tensors:
    """Returns a LoRA with kohya's keys for SDXL: for attentions of the UNet and of each text encoder."""
    widths = {
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q": 2 * TINY.channels,
        "lora_unet_input_blocks_8_1_transformer_blocks_1_attn1_to_v": 4 * TINY.channels,
        "lora_unet_output_blocks_5_1_transformer_blocks_1_attn1_to_out_0": 2 * TINY.channels,
        "lora_te1_text_model_encoder_layers_0_self_attn_q_proj": TINY.text_width,
    }
    for name in ("q", "k", "v", "out"):  # in OpenCLIP's attention, the WebUI changes all four or none
        widths[f"lora_te2_text_model_encoder_layers_0_self_attn_{name}_proj"] = OPEN_CLIP_WIDTH
    tensors: Tensors = {}
    for name, width in widths.items():
        for part, shape in (("lora_down.weight", (rank, width)), ("lora_up.weight", (width, rank))):
            tensors[f"{name}.{part}"] = draw(f"{name}.{part}", shape, seed)
        tensors[f"{name}.alpha"] = torch.tensor(float(rank)).half()
    return tensors


def make_weights(cache: Path) -> None:
    """Writes the files that are missing in the folder of `demo.weights`."""
    text_folder = write_text_folder(cache / "text" / TINY.name, text_params(TINY))
    names = {"tiny-xl-a": (BASE, 31), "tiny-xl-b": (BASE, 32), "tiny-xl-refiner": (REFINER, 33)}
    files = {cache / "checkpoints" / f"{name}.safetensors": kind_and_seed for name, kind_and_seed in names.items()}
    lora_file = cache / "lora" / "lora_tiny_xl.safetensors"
    stamp = cache / "sdxl-recipe.txt"
    if not stamp.exists() or stamp.read_text() != RECIPE:
        for path in (*files, lora_file):
            path.unlink(missing_ok=True)
    for path, (kind, seed) in files.items():
        write_tensors(path, lambda kind=kind, seed=seed: checkpoint(kind, seed))
        write_if_changed(path.with_suffix(".yaml"), json.dumps(description(kind, text_folder), indent=2))
    write_tensors(lora_file, lambda: lora(34))
    stamp.write_text(RECIPE)
