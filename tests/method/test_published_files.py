"""The exact key lists, shapes and number formats of the published files, without their contents.

Where a size in bytes is known from the place of publication, the file made here has the same, which it could hardly have with
other keys or shapes.
"""

import time

import pytest
import torch

from motion_module.checkpoint import describe
from motion_module.lora import kinds_of
from motion_module.weight_files import CheckpointError
from support import sparse_files
from support.published_layouts import FAMILIES, XL_FAMILIES, in_diffusers_layout, in_hotshots_layout, module_weights

WIDTHS = (320, 640, 1280, 1280)
F32, F16 = torch.float32, torch.float16


def module_entries(family, dtype, change=lambda weights: weights):
    with torch.device("meta"):
        weights = change(module_weights(family, WIDTHS[:3] if family in XL_FAMILIES else WIDTHS))
    return {key: (dtype, tuple(value.shape)) for key, value in weights.items()}


def lora_entries(rank, places, matrices, dtype=F32):
    entries = {}
    for place, width, text in places:
        for matrix in matrices:
            inputs = text if "attn2" in matrix and ("to_k" in matrix or "to_v" in matrix) else width
            entries[f"{place}{matrix}_lora.down.weight"] = (dtype, (rank, inputs))
            entries[f"{place}{matrix}_lora.up.weight"] = (dtype, (width, rank))
    return entries


def motion_lora():
    places = [(f"down_blocks.{i}.motion_modules.{j}.", WIDTHS[i], 0) for i in range(4) for j in range(2)]
    places += [(f"up_blocks.{i}.motion_modules.{j}.", WIDTHS[-1 - i], 0) for i in range(4) for j in range(3)]
    places += [("mid_block.motion_modules.0.", 1280, 0)]
    block = "temporal_transformer.transformer_blocks.0.attention_blocks.{}.processor.{}"
    return lora_entries(64, places, [block.format(k, name) for k in (0, 1) for name in ("to_q", "to_k", "to_v", "to_out")])


def adapter():
    places = [(f"down_blocks.{i}.attentions.{j}.", WIDTHS[i], 768) for i in range(3) for j in range(2)]
    places += [(f"up_blocks.{i}.attentions.{j}.", WIDTHS[-1 - i], 768) for i in range(1, 4) for j in range(3)]
    places += [("mid_block.attentions.0.", 1280, 768)]
    block = "transformer_blocks.0.{}.processor.{}"
    return lora_entries(
        128, places, [block.format(k, n) for k in ("attn1", "attn2") for n in ("to_q", "to_k", "to_v", "to_out")]
    )


# name, family, dtype, tensors, bytes where they are known, change of the keys
MODULES = [
    ("mm_sd_v14.ckpt", "v1", F32, 560, None),
    ("mm_sd_v15.ckpt", "v1", F32, 560, None),
    ("mm_sd15_v1.safetensors", "v1", F16, 560, None),
    ("temporaldiff-v1-animatediff.safetensors", "temporaldiff", F32, 560, 1_672_020_256),
    ("mm-Stabilized_mid.pth", "stabilized", F32, 560, None),
    ("mm_sd_v15_v2.ckpt", "v2", F32, 588, None),
    ("mm_sd15_v2.safetensors", "v2", F16, 588, 908_929_664),
    ("mm-p_0.75.pth", "v2", F32, 588, None),
    ("v3_sd15_mm.ckpt", "v3", F32, 560, None),
    ("lt_long_mm_32_frames.ckpt", "long-32", F32, 588, None),
    ("lt_long_mm_16_64_frames_v1.1.ckpt", "long-64", F32, 588, None),
    ("AnimateLCM_sd15_t2v.ckpt", "lcm", F32, 546, None),
    ("mm_sd15_AnimateLCM.safetensors", "lcm", F16, 546, 906_505_488),
    *[(f"animatediff_lightning_{n}step_comfyui.safetensors", f"lightning-{n}", F16, 588, 908_929_664) for n in (1, 2, 4, 8)],
    ("AnimateLCM_sd15_i2v.ckpt", "lcm-i2v", F32, 584, None),
    ("mm_sd15_AnimateLCM_i2v.safetensors", "lcm-i2v", F16, 584, None),
    ("pia.ckpt", "pia", F32, 562, None),
    ("mm_sdxl_v10_beta.ckpt", "xl-beta", F32, 420, None),
    ("mm_sdxl_hs.safetensors", "hotshot", F16, 420, None),  # HotShot-XL in the authors' keys
]
IN_HOTSHOTS = [("hsxl_temporal_layers.safetensors", F32), ("hsxl_temporal_layers.f16.safetensors", F16)]
IN_DIFFUSERS = [
    *[(f"animatediff_lightning_{n}step_diffusers.safetensors", f"lightning-{n}", 567, 907_702_248) for n in (1, 2, 4, 8)],
    ("animatediff-motion-adapter-v1-5-2/diffusion_pytorch_model.safetensors", "v2", 567, None),
    ("animatediff-motion-adapter-v1-5-3/diffusion_pytorch_model.safetensors", "v3", 540, None),
    ("PIA-condition-adapter/diffusion_pytorch_model.safetensors", "pia", 542, None),
    ("animatediff-motion-adapter-sdxl-beta/diffusion_pytorch_model.safetensors", "xl-beta", 405, None),
]


def write(path, entries, nested=False):
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".safetensors":
        sparse_files.write_safetensors(path, entries, {"format": "pt"} if path.name.startswith("temporaldiff") else None)
    else:
        sparse_files.write_torch(path, entries, nested=nested)
    return path


def described(path):
    before = time.monotonic()
    description = describe(path)
    assert time.monotonic() - before < 2
    assert path.stat().st_blocks * 512 < 4_000_000, "the file holds nothing but its header"
    return description


@pytest.mark.parametrize(("name", "family", "dtype", "tensors", "size"), MODULES, ids=[row[0] for row in MODULES])
def test_published_modules_are_identified(tmp_path, name, family, dtype, tensors, size):
    entries = module_entries(family, dtype)
    assert len(entries) == tensors
    path = write(tmp_path / name, entries)
    assert size is None or path.stat().st_size == size
    description = described(path)
    assert description.require_motion_module().key == family
    assert description.layout == "original" and description.dtypes == (str(dtype)[6:],)
    assert description.length == ({**FAMILIES, **XL_FAMILIES}[family].positions or 64)
    assert bool(description.assumed) == (family in ("temporaldiff", "stabilized") or "lightning" in family)


@pytest.mark.parametrize(("name", "family", "tensors", "size"), IN_DIFFUSERS, ids=[row[0] for row in IN_DIFFUSERS])
def test_published_modules_in_diffusers_layout_are_identified(tmp_path, name, family, tensors, size):
    entries = module_entries(family, F16, in_diffusers_layout)
    assert len(entries) == tensors
    path = write(tmp_path / name, entries)
    assert size is None or path.stat().st_size == size
    description = described(path)
    assert description.require_motion_module().key == family
    assert description.layout == "diffusers"


def test_a_dump_of_a_complete_unet_is_identified(tmp_path):
    entries = {f"module.{key}": value for key, value in module_entries("v3", F32).items()}
    entries["module.conv_in.weight"] = (F32, (320, 4, 3, 3))
    entries["module.down_blocks.0.resnets.0.conv1.weight"] = (F32, (320, 320, 3, 3))
    description = described(write(tmp_path / "dump.ckpt", entries, nested=True))
    assert description.require_motion_module().key == "v3"
    assert len(description.other) == 2


@pytest.mark.parametrize(
    ("name", "entries", "tensors", "kind"),
    [
        ("v2_lora_ZoomIn.ckpt", motion_lora, 336, "motion"),
        ("v3_sd15_adapter.ckpt", adapter, 256, "image"),
    ],
)
def test_published_loras_are_identified(tmp_path, name, entries, tensors, kind):
    assert len(entries()) == tensors
    description = described(write(tmp_path / name, entries()))
    assert description.is_lora and kinds_of(entries()) == {kind}


@pytest.mark.parametrize(("name", "dtype"), IN_HOTSHOTS)
def test_hotshots_own_files_are_identified(tmp_path, name, dtype):
    entries = module_entries("hotshot", dtype, in_hotshots_layout)
    description = described(write(tmp_path / name, entries))
    assert description.require_motion_module().key == "hotshot" and description.layout == "hotshot"
    assert description.alternatives == (description.family,) and not description.assumed and description.length == 24


def test_hotshots_complete_unet_is_identified(tmp_path):
    entries = module_entries("hotshot", F16, in_hotshots_layout)
    entries["down_blocks.0.resnets.0.conv1.weight"] = (F16, (320, 320, 3, 3))
    description = described(write(tmp_path / "unet" / "diffusion_pytorch_model.safetensors", entries))
    assert description.require_motion_module().key == "hotshot" and len(description.other) == 1


TOWER = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0."
CAMERA = {f"{TOWER}cc_projection.weight": (F32, (320, 332)), f"{TOWER}cc_projection.bias": (F32, (320,))}
ZEROSCOPES = "down_blocks.0.temp_attentions.0.transformer_blocks.0.fuser."
ADAPTER = {"conv_in.weight": (F32, (320, 128, 3, 3)), "body.0.block1.weight": (F32, (320, 320, 3, 3))}
VIDEO = {"conv_in.weight": (F16, (320, 8, 3, 3)), "down_blocks.0.resnets.0.conv1.weight": (F16, (320, 320, 3, 3))}
OTHERS = [
    (
        "AnimateLCM-SVD-xt.safetensors",
        {**VIDEO, "down_blocks.0.resnets.0.temporal_res_block.conv1.weight": (F16, (320, 320, 3, 1, 1))},
        "Stable Video Diffusion model, such as AnimateLCM-SVD",
    ),
    (
        "AnimateLCM-SVD-Comfy.safetensors",
        {
            "model.diffusion_model.input_blocks.1.0.time_stack.in_layers.0.weight": (F16, (320,)),
            "conditioner.embedders.0.open_clip.model.ln_final.weight": (F16, (1280,)),
        },
        "such as AnimateLCM-SVD",
    ),
    ("motionctrl_animatediff_cmcm.ckpt", {**module_entries("v3", F32), **CAMERA}, "a MotionCtrl module for camera motion"),
    ("motionctrl_animatediff_omcm.ckpt", ADAPTER, "a MotionCtrl module for object motion"),
    (
        "unet_cam_model.ckpt",
        {f"{ZEROSCOPES}attn.to_k_temp_xy.weight": (F32, (320, 1024)), f"{ZEROSCOPES}alpha_attn": (F32, ())},
        "a Direct-a-Video module for Zeroscope",
    ),
]


@pytest.mark.parametrize(("name", "entries", "kind"), OTHERS, ids=[row[0] for row in OTHERS])
def test_files_of_other_methods_are_refused_by_name(tmp_path, name, entries, kind):
    description = described(write(tmp_path / name, entries))
    with pytest.raises(CheckpointError, match="cannot be used as a motion module") as caught:
        description.require_motion_module()
    assert kind in str(caught.value)
