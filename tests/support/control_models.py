"""For tests with sd-webui-controlnet: its folder, and random control models in the published layouts.

What they do to a picture is noise.

ControlNet's widths are fixed by that extension, so it goes with the checkpoint sd15; T2I-adapters, ControlLLLites and
IP-Adapters also go with tiny ones. The ControlNet built into Forge takes any widths.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import save_file

from demo.weights import (
    FAMILIES,
    MOTION_GAINS,
    SD15,
    TINY,
    Gains,
    Shapes,
    Size,
    Tensors,
    checkpoint_shapes,
    draw_all,
    motion_blocks,
    motion_shapes,
    position_table,
)
from support.server import webui_dir

HINT_CHANNELS = (16, 16, 32, 32, 96, 96, 256)
"""The convolutions that bring a control image from pixels to latents."""
SECOND_ATTENTION = ("attention_blocks.1.", ".norms.1.")
"""Parts of the names of what a motion module has, and SparseCtrl has not."""
CLIP_WIDTH = 1024
"""The width of the image embeddings of ViT-H."""
GAINS: Gains = ((r"zero_convs|middle_block_out", 0.3), (r"to_[kv]_ip", 3.0), (r"lllite.*up", 4.0))
STRONG_HINTS: Gains = ((r"input_hint_block", 2.0), *GAINS)
"""For models whose hints are to change a picture by much."""


def controlnet_dir() -> Path | None:
    """The folder of sd-webui-controlnet: $CONTROLNET_DIR, or among the extensions of the WebUI."""
    webui = webui_dir()
    folder = os.environ.get("CONTROLNET_DIR") or (webui and webui / "extensions" / "sd-webui-controlnet")
    return Path(folder) if folder and Path(folder).is_dir() else None


def make_all(folder: Path) -> None:
    """Writes the models that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    models = {
        "control_sd15_random": controlnet_shapes(SD15),
        "t2iadapter_sd15_random": adapter_shapes(SD15),
        "t2iadapter_tiny_random": adapter_shapes(TINY),
        "t2iadapter_sdxl_random": adapter_shapes(TINY, patch=16),
        "t2iadapter_large_random": adapter_shapes(TINY, patch=16),  # without a name that tells what it is for
        "ip-adapter_tiny_random": ip_adapter_shapes(TINY),
        "lllite_tiny_random": lllite_shapes(TINY.channels, ("input_blocks_1_1", "output_blocks_11_1")),
        "lllite_sdxl_random": lllite_shapes(2 * TINY.channels, ("input_blocks_4_1", "output_blocks_5_1")),
    }
    strong = {"control_lora_sd15_random": control_lora_shapes(SD15), "control_union_sd15_random": union_shapes(SD15)}
    for gains, some in ((GAINS, models), (STRONG_HINTS, strong)):
        for seed, (name, shapes) in enumerate(some.items()):
            if not (file := folder / f"{name}.safetensors").exists():
                save_file(draw_all(shapes, seed, gains), file)
    clip = folder / "annotators" / "clip_vision" / "clip_h.pth"
    clip.parent.mkdir(parents=True, exist_ok=True)
    # ControlNet loads it loosely, and leaves the random values that its model begins with.
    torch.save({"unused": torch.zeros(1)}, clip, _use_new_zipfile_serialization=False)


def make_sparse(folder: Path) -> None:
    """Writes both SparseCtrl models, as far as they are not there yet: that for photographs, and that for scribbles."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, kind in enumerate(("rgb", "scribble"), 10):
        if not (file := folder / f"sparsectrl_sd15_{kind}_random.safetensors").exists():
            save_file(sparse_ctrl(seed, takes_latents=kind == "rgb"), file)


def make_narrow(folder: Path) -> None:
    """Writes a ControlNet of the tiny checkpoint's widths, for ControlNets that go by the file, if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (file := folder / "control_tiny_random.safetensors").exists():
        save_file(draw_all(controlnet_shapes(TINY), 20, STRONG_HINTS), file)


def sparse_ctrl(seed: int, *, takes_latents: bool) -> Tensors:
    """A SparseCtrl model: a ControlNet with motion layers of one attention, whose hints have a channel for the mask too."""
    shapes = {name.removeprefix("control_model."): shape for name, shape in controlnet_shapes(SD15).items()}
    shapes = {name: shape for name, shape in shapes.items() if not name.startswith("input_hint_block")}
    hint = "input_hint_block.0"
    if takes_latents:
        shapes |= _convolution(hint, 4 + 1, SD15.channels, 3)
    else:
        shapes |= _convolution(f"{hint}.conv_in", 3 + 1, HINT_CHANNELS[0], 3)
        for index, (before, after) in enumerate(pairwise(HINT_CHANNELS)):
            shapes |= _convolution(f"{hint}.blocks.{index}", before, after, 3)
        shapes |= _convolution(f"{hint}.conv_out", HINT_CHANNELS[-1], SD15.channels, 3)
    return draw_all(shapes, seed, STRONG_HINTS) | sparse_ctrl_motion(seed)


def sparse_ctrl_motion(seed: int) -> Tensors:
    """The motion layers of a SparseCtrl model."""
    shapes: Shapes = {}
    tables: Tensors = {}
    for prefix, width in motion_blocks(SD15, FAMILIES[-1]):
        if prefix.startswith("down_blocks"):
            block = motion_shapes(prefix, width)
            shapes |= {name: shape for name, shape in block.items() if not any(part in name for part in SECOND_ATTENTION)}
            attention = f"{prefix}temporal_transformer.transformer_blocks.0.attention_blocks.0."
            tables[attention + "pos_encoder.pe"] = position_table(FAMILIES[-1].pe_length, width)
    return draw_all(shapes, seed, MOTION_GAINS) | tables


def controlnet_shapes(size: Size) -> Shapes:
    """The encoder half of the UNet, an encoder of the control image, and a convolution for each feature that is added."""
    prefix = "model.diffusion_model."
    unet = {name.removeprefix(prefix): shape for name, shape in checkpoint_shapes(size).items() if name.startswith(prefix)}
    shapes = {name: shape for name, shape in unet.items() if name.startswith(("input_blocks", "middle_block", "time_embed"))}
    channels = [3, *HINT_CHANNELS, size.channels]
    for index, (before, after) in enumerate(pairwise(channels)):
        shapes |= _convolution(f"input_hint_block.{2 * index}", before, after, 3)
    widths = [size.widths[level] for level in (0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3)]
    for index, width in enumerate(widths):
        shapes |= _convolution(f"zero_convs.{index}.0", width, width, 1)
    return {
        f"control_model.{name}": shape for name, shape in (shapes | _convolution("middle_block_out.0", width, width, 1)).items()
    }


def control_lora_shapes(size: Size, rank: int = 8) -> Shapes:
    """A Control-LoRA: of what the UNet has too, each matrix is a change of low rank; the rest is as in a ControlNet."""
    shapes: Shapes = {"lora_controlnet": (0,)}
    for name, shape in controlnet_shapes(size).items():
        name = name.removeprefix("control_model.")
        if len(shape) == 1 or not name.startswith(("input_blocks", "middle_block.", "time_embed")):
            shapes[name] = shape
            continue
        layer, (after, before, *kernel) = name.removesuffix(".weight"), shape
        shapes |= {f"{layer}.up": (after, rank, *[1] * len(kernel)), f"{layer}.down": (rank, before, *kernel)}
    return shapes


def union_shapes(size: Size, types: int = 6) -> Shapes:
    """A ControlNet union: a ControlNet that is told the type of its control image, in the layout of SD 1.5."""
    width, time = size.channels, 4 * size.channels
    shapes: Shapes = {"task_embedding": (types, width)}
    layer = "transformer_layes.0"
    shapes |= {f"{layer}.attn.in_proj_weight": (3 * width, width), f"{layer}.attn.in_proj_bias": (3 * width,)}
    for norm in ("ln_1", "ln_2"):
        shapes |= {f"{layer}.{norm}.weight": (width,), f"{layer}.{norm}.bias": (width,)}
    linear = {
        f"{layer}.attn.out_proj": (width, width),
        f"{layer}.mlp.c_fc": (4 * width, width),
        f"{layer}.mlp.c_proj": (width, 4 * width),
        "spatial_ch_projs": (width, width),
        "control_add_embedding.linear_1": (time, 256 * types),
        "control_add_embedding.linear_2": (time, time),
    }
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return controlnet_shapes(size) | {f"control_model.{name}": shape for name, shape in shapes.items()}


def adapter_shapes(size: Size, patch: int = 8) -> Shapes:
    """A T2I-adapter: four levels of two blocks. `patch`: the pixels, along each side, that it takes together; 16 for SDXL."""
    shapes = _convolution("conv_in", 3 * patch**2, size.channels, 3)
    before = size.channels
    for level, width in enumerate(size.widths):
        for block in range(2):
            name = f"body.{2 * level + block}"
            if block == 0 and width != before:
                shapes |= _convolution(f"{name}.in_conv", before, width, 1)
            shapes |= _convolution(f"{name}.block1", width, width, 3) | _convolution(f"{name}.block2", width, width, 1)
        before = width
    return shapes


def ip_adapter_shapes(size: Size, tokens: int = 4) -> Shapes:
    """An IP-Adapter: a projection of the image embedding to some tokens, and their keys and values in each cross-attention."""
    width = size.text_width
    shapes: Shapes = {
        "image_proj.proj.weight": (tokens * width, CLIP_WIDTH),
        "image_proj.proj.bias": (tokens * width,),
        "image_proj.norm.weight": (width,),
        "image_proj.norm.bias": (width,),
    }
    order = (0, 0, 1, 1, 2, 2, *(2, 2, 2, 1, 1, 1, 0, 0, 0), 2)  # of down, up and middle blocks
    for index, level in enumerate(order):
        for matrix in "kv":
            shapes[f"ip_adapter.{2 * index + 1}.to_{matrix}_ip.weight"] = (size.widths[level], width)
    return shapes


def lllite_shapes(width: int, places: Iterable[str], embedding: int = 32, hidden: int = 16) -> Shapes:
    """A ControlLLLite: at some projections of the UNet, of one width, convolutions of the control image and a small network."""
    shapes: Shapes = {}
    for place in places:
        name = f"lllite_unet_{place}_transformer_blocks_0_attn1_to_q"
        shapes |= _convolution(f"{name}.conditioning1.0", 3, embedding // 2, 4)
        shapes |= _convolution(f"{name}.conditioning1.2", embedding // 2, embedding, 2)
        layers = (("down", width, hidden), ("mid", hidden + embedding, hidden), ("up", hidden, width))
        for layer, before, after in layers:
            shapes |= {f"{name}.{layer}.0.weight": (after, before), f"{name}.{layer}.0.bias": (after,)}
    return shapes


def _convolution(name: str, before: int, after: int, kernel: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (after, before, kernel, kernel), f"{name}.bias": (after,)}
