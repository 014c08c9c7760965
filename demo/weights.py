"""Makes random weights for the tests: checkpoints, motion modules and a LoRA. What they generate is meaningless.

    .venv/bin/python -m demo.weights FOLDER

Nothing is downloaded. The files have the layout of published ones, so the WebUI and the extension load them as usual, but their
values come from fixed seeds. The distribution is uniform, which takes only integer arithmetic, so every machine makes the same
files.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import re
import shutil
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from demo.checkpoint_config import config_params, write_config
from demo.clip_text_encoder import text_config, write_text_folder
from motion_module.training.image_model import STABLE_DIFFUSION_1

RECIPE = "1"
"""Raise it with every change that alters a file, so that existing caches are made again."""

Tensors = dict[str, torch.Tensor]
Shapes = dict[str, tuple[int, ...]]
Gains = tuple[tuple[str, float], ...]
"""Regular expressions for tensor names, each with a gain; 1 keeps the variance of what passes through."""


@dataclass(frozen=True)
class Size:
    """The widths of a Stable Diffusion 1 model; everything else is as in SD 1.5."""

    name: str
    channels: int
    text_width: int
    text_heads: int

    @property
    def widths(self) -> tuple[int, int, int, int]:
        """The channels of the four UNet levels, from full resolution down."""
        return self.channels, 2 * self.channels, 4 * self.channels, 4 * self.channels


TINY = Size("tiny", channels=32, text_width=64, text_heads=4)
SD15 = Size("sd15", channels=320, text_width=768, text_heads=12)

TEXT_LAYERS = 2


@dataclass(frozen=True)
class Family:
    """What distinguishes the files of the published motion module families."""

    name: str
    has_mid_block: bool
    pe_length: int


FAMILIES = Family("v1", False, 24), Family("v2", True, 32), Family("v3", False, 32)


# --- numbers ---------------------------------------------------------------------------------------------------

CHECKPOINT_GAINS: Gains = (
    (r"diffusion_model\.out\.2\.weight", 0.2),
    (r"first_stage_model\.decoder\.conv_out\.weight", 0.35),
    (r"first_stage_model\.quant_conv\.weight", 5.0),
)
MOTION_GAINS: Gains = (
    (r"\.to_[qk]\.weight", 1.5),
    (r"\.proj_out\.weight", 2.0),
)


def draw(name: str, shape: tuple[int, ...], seed: int, gains: Gains = ()) -> torch.Tensor:
    """Returns random fp16 values for one tensor. Each tensor has its own random stream, so their order does not matter.

    Matrices and kernels keep the variance of what passes through them, times the squared gain of the first pattern that
    matches. The weights of norms are near one, biases near zero.
    """
    stream = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
    unit = stream.random(shape, dtype=np.float32)
    centred = torch.from_numpy(unit).sub_(0.5).mul_(math.sqrt(12))
    if len(shape) > 1:
        gain = next((gain for pattern, gain in gains if re.search(pattern, name)), 1.0)
        fan_in = shape[1] if "embedding" in name else math.prod(shape[1:])
        return centred.mul_(gain / math.sqrt(fan_in)).half()
    if name.endswith("weight"):
        return centred.mul_(0.1).add_(1.0).half()
    return centred.mul_(0.05).half()


def draw_all(shapes: Shapes, seed: int, gains: Gains) -> Tensors:
    """Returns random values for every named shape."""
    return {name: draw(name, shape, seed, gains) for name, shape in shapes.items()}


# --- checkpoints -----------------------------------------------------------------------------------------------


def unet_params(size: Size) -> dict:
    """Returns the arguments of the UNet class."""
    shape = {"model_channels": size.channels, "context_dim": size.text_width, "use_checkpoint": False}
    return {**STABLE_DIFFUSION_1["unet_config"]["params"], **shape}


def vae_params() -> dict:
    """Returns the arguments of the autoencoder: the SD 1.5 layout, a quarter as wide."""
    return {**STABLE_DIFFUSION_1["first_stage_config"]["params"]["ddconfig"], "ch": 32}


def text_params(size: Size) -> dict:
    """Returns the arguments of the text encoder."""
    return text_config(size.text_width, size.text_heads, TEXT_LAYERS)


def checkpoint_shapes(size: Size) -> Shapes:
    """Returns name and shape of every weight of a checkpoint, from the model classes, without allocating memory."""
    from transformers import CLIPTextConfig, CLIPTextModel

    with redirect_stdout(io.StringIO()):  # LDM prints when it is imported
        from ldm.modules.diffusionmodules.model import Decoder, Encoder
        from ldm.modules.diffusionmodules.openaimodel import UNetModel
    with torch.device("meta"), redirect_stdout(io.StringIO()):  # its VAE prints when it is built
        parts = {
            "model.diffusion_model.": UNetModel(**unet_params(size)),
            "first_stage_model.encoder.": Encoder(**vae_params()),
            "first_stage_model.decoder.": Decoder(**vae_params()),
            "first_stage_model.quant_conv.": torch.nn.Conv2d(8, 8, 1),
            "first_stage_model.post_quant_conv.": torch.nn.Conv2d(4, 4, 1),
            "cond_stage_model.transformer.": CLIPTextModel(CLIPTextConfig(**text_params(size))),
        }
    return {
        prefix + name: tuple(parameter.shape) for prefix, part in parts.items() for name, parameter in part.named_parameters()
    }


def noise_schedule() -> Tensors:
    """Returns the noise schedule that published SD 1.5 files carry. The WebUI copies it over its own when it loads them."""
    first, last, steps = (STABLE_DIFFUSION_1[name] for name in ("linear_start", "linear_end", "timesteps"))
    betas = torch.linspace(first**0.5, last**0.5, steps, dtype=torch.float64) ** 2
    alphas_cumprod = torch.cumprod(1.0 - betas, dim=0)
    return {"betas": betas.float(), "alphas_cumprod": alphas_cumprod.float()}


def add_noise_path(tensors: Tensors, channels: int, last_block: int = 11) -> None:
    """Makes the UNet's output resemble its input, through the skip connection from its first to its last block.

    A trained UNet predicts the noise in its input, and sampling removes that noise. Without this, a random UNet leaves all of
    it in the picture, and sampler, steps and noise schedule hardly matter. Each latent channel goes through a positive and a
    negative copy, because silu(x) - silu(-x) = x.
    """
    unet = "model.diffusion_model."
    copies = torch.arange(channels)
    latent, sign = copies % 4, (1.0 - 2.0 * ((copies // 4) % 2)).half()
    tensors[unet + "input_blocks.0.0.weight"][copies, latent, 1, 1] += sign
    tensors[unet + f"output_blocks.{last_block}.0.skip_connection.weight"][copies, channels + copies, 0, 0] += 6.0
    tensors[unet + "out.2.weight"][latent, copies, 1, 1] += sign * (1.6 * 8 / channels)


def silence_vae_noise(tensors: Tensors) -> None:
    """Makes the encoder deterministic, so that the same picture always gives the same latents.

    The last four of the encoder's eight outputs are log variances; the WebUI clamps them at -30.
    """
    tensors["first_stage_model.quant_conv.weight"][4:] = 0
    tensors["first_stage_model.quant_conv.bias"][4:] = -30


def checkpoint(size: Size, seed: int) -> Tensors:
    """Returns a complete random checkpoint."""
    tensors = draw_all(checkpoint_shapes(size), seed, CHECKPOINT_GAINS)
    add_noise_path(tensors, size.channels)
    silence_vae_noise(tensors)
    return tensors | noise_schedule()


# --- motion modules --------------------------------------------------------------------------------------------


def motion_blocks(size: Size, family: Family) -> Iterator[tuple[str, int]]:
    """Yields the key prefix and the width of every motion block of a file."""
    for level, width in enumerate(size.widths):
        for index in range(2):
            yield f"down_blocks.{level}.motion_modules.{index}.", width
    for level, width in enumerate(reversed(size.widths)):
        for index in range(3):
            yield f"up_blocks.{level}.motion_modules.{index}.", width
    if family.has_mid_block:
        yield "mid_block.motion_modules.0.", size.widths[-1]


def motion_shapes(prefix: str, width: int) -> Shapes:
    """Returns name and shape of every weight of one motion block."""
    block = "transformer_blocks.0."
    shapes: Shapes = {}
    for norm in ("norm", block + "norms.0", block + "norms.1", block + "ff_norm"):
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    linear = {"proj_in": (width, width), "proj_out": (width, width)}
    linear |= {block + "ff.net.0.proj": (8 * width, width), block + "ff.net.2": (width, 4 * width)}
    for attention in (block + "attention_blocks.0.", block + "attention_blocks.1."):
        shapes |= {f"{attention}{name}.weight": (width, width) for name in ("to_q", "to_k", "to_v")}
        linear[attention + "to_out.0"] = (width, width)
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return {f"{prefix}temporal_transformer.{name}": shape for name, shape in shapes.items()}


def position_table(length: int, width: int) -> torch.Tensor:
    """Returns the sinusoidal positional encoding `(1, length, width)`, in full precision as in the authors' files."""
    position = torch.arange(length, dtype=torch.float64)[:, None]
    frequency = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(10000.0) / width))
    table = torch.zeros(1, length, width, dtype=torch.float64)
    table[0, :, 0::2] = torch.sin(position * frequency)
    table[0, :, 1::2] = torch.cos(position * frequency)
    return table.float()


def motion_module(size: Size, family: Family) -> Tensors:
    """Returns a complete random motion module, with the authors' keys. Each family has its own seed."""
    seed = 10 + FAMILIES.index(family)
    tensors: Tensors = {}
    for prefix, width in motion_blocks(size, family):
        tensors |= draw_all(motion_shapes(prefix, width), seed, MOTION_GAINS)
        for index in range(2):
            attention = f"{prefix}temporal_transformer.transformer_blocks.0.attention_blocks.{index}."
            tensors[attention + "pos_encoder.pe"] = position_table(family.pe_length, width)
    return tensors


# --- LoRA ------------------------------------------------------------------------------------------------------


def lora(size: Size, seed: int, rank: int = 4) -> Tensors:
    """Returns a LoRA for the self- and cross-attention of the UNet's down blocks, with the keys of kohya's trainer."""
    tensors: Tensors = {}
    for level, width in enumerate(size.widths[:3]):
        for index in range(2):
            block = f"lora_unet_down_blocks_{level}_attentions_{index}_transformer_blocks_0_"
            for layer in ("attn1_to_q", "attn1_to_v", "attn1_to_out_0", "attn2_to_q", "attn2_to_out_0"):
                down, up = f"{block}{layer}.lora_down.weight", f"{block}{layer}.lora_up.weight"
                tensors[down] = draw(down, (rank, width), seed)
                tensors[up] = draw(up, (width, rank), seed)
                tensors[f"{block}{layer}.alpha"] = torch.tensor(float(rank)).half()
    return tensors


# --- files -----------------------------------------------------------------------------------------------------


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yields a temporary path, which is renamed to `path` at the end: an interrupted run leaves no incomplete file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_tensors(path: Path, make: Callable[[], Tensors]) -> None:
    """Saves the tensors that `make` returns, unless the file exists."""
    if path.exists():
        return
    with written_whole(path) as partial:
        if path.suffix == ".safetensors":
            save_file(make(), partial)
        else:
            torch.save({"state_dict": make()}, partial)
            _without(partial, (".format_version", ".storage_alignment"))
    print(f"made {path}", flush=True)


def _without(archive: Path, names: tuple[str, ...]) -> None:
    """Removes entries that recent versions of torch add: the WebUI refuses a file with them as malicious."""
    whole = archive.with_suffix(".whole")
    archive.rename(whole)
    with zipfile.ZipFile(whole) as before, zipfile.ZipFile(archive, "w") as after:
        for entry in before.infolist():
            if not entry.filename.endswith(names):
                after.writestr(entry, before.read(entry))
    whole.unlink()


def write_checkpoints(cache: Path) -> None:
    """Writes the checkpoints of the tests.

    `tiny-swap` exists twice under one stem, so the two share a `.yaml`. Only between such files does the WebUI load weights
    into the existing model instead of building a new one.
    """
    write_checkpoint(cache, "tiny-a.safetensors", TINY, seed=1)
    write_checkpoint(cache, "tiny-b.safetensors", TINY, seed=2)
    write_checkpoint(cache, "tiny-swap.safetensors", TINY, seed=3)
    write_checkpoint(cache, "tiny-swap.ckpt", TINY, seed=4)
    write_checkpoint(cache, "sd15.safetensors", SD15, seed=5)


def write_checkpoint(cache: Path, name: str, size: Size, seed: int) -> None:
    """Writes one checkpoint, its `.yaml` beside it, and the folder of the text encoder that the `.yaml` names."""
    text_folder = write_text_folder(cache / "text" / size.name, text_params(size))
    path = cache / "checkpoints" / name
    write_tensors(path, lambda: checkpoint(size, seed))
    write_config(path, config_params(text_folder, unet_params(size), vae_params()))


def write_motion_modules(cache: Path) -> None:
    """Writes one motion module for each size and family, and one with the key prefix of a distributed trainer."""
    folder = cache / "motion"
    for size in (TINY, SD15):
        for family in FAMILIES:
            path = folder / f"mm_{size.name}_{family.name}.safetensors"
            write_tensors(path, lambda size=size, family=family: motion_module(size, family))
    v3 = FAMILIES[-1]
    write_tensors(
        folder / "mm_tiny_v3.ckpt",
        lambda: {f"module.{name}": tensor for name, tensor in motion_module(TINY, v3).items()},
    )


def drop_other_recipe(cache: Path) -> None:
    """Empties a cache of another RECIPE. Raises FileExistsError if the folder holds anything but a cache."""
    stamp = cache / "recipe.txt"
    if not stamp.exists() and cache.exists() and any(cache.iterdir()):
        raise FileExistsError(f"{cache} holds other files already")
    if stamp.exists() and stamp.read_text() != RECIPE:
        for folder in ("checkpoints", "motion", "lora"):
            shutil.rmtree(cache / folder, ignore_errors=True)
    cache.mkdir(parents=True, exist_ok=True)
    stamp.write_text(RECIPE)


def make_weights(cache: Path) -> None:
    """Makes the files that the cache folder lacks."""
    cache = cache.absolute()
    drop_other_recipe(cache)
    write_checkpoints(cache)
    write_motion_modules(cache)
    write_tensors(cache / "lora" / "lora_tiny.safetensors", lambda: lora(TINY, seed=20))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="an empty folder, or one that this command has filled before")
    folder = parser.parse_args().folder
    try:
        make_weights(folder)
    except OSError as error:
        sys.exit(
            f"The weights could not be made: {error}.\n{folder} must be writable, with 4.5 GB free. To use another folder in "
            "the tests, set ANIMATEDIFF_TEST_CACHE."
        )


if __name__ == "__main__":
    main()
