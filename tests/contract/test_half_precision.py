"""Clips in half precision: as near to single precision as plain pictures are, with no tensor of another dtype or device."""

from __future__ import annotations

import shutil
from functools import cache

import numpy as np
import pytest
import torch

from demo.weights import write_tensors
from support.animation import animate, frames_of, made_once
from support.authors_sparse import sparse_weights
from support.camera_weights import camera_weights, nested, pose_file
from support.pictures import encode, gradient, mean_difference
from support.server import PROBE, REPOSITORY

FRAMES = 4
FACTOR = 5
"""How many times further from single precision a clip may be than plain pictures, which are 0.1 to 0.2 levels away in float16,
and 1 to 1.6 in bfloat16. Clips were 1.6 to 3.1 times as far. In float16, they are 9 to 16 times as far if motion layers
compute in bfloat16.
"""
SMALL = {"width": 32, "height": 32, "steps": 3, "negative_prompt": "bad"}
LARGER = {"width": 64, "height": 64}
LORA = "motion_for_half_precision"
QUERY = "down_blocks.0.motion_modules.1.temporal_transformer.transformer_blocks.0.attention_blocks.0.processor.to_q_lora"
MASK = np.tile(np.where(np.arange(32) < 16, 255, 0).astype(np.uint8), (32, 1))
WINDOWS = {"video_length": 10, "batch_size": 4, "overlap": 1}
CLIPS = {
    "v1": ({"model": "mm_tiny_v1.safetensors"}, {}),
    "v2 and a motion LoRA": ({"model": "mm_tiny_v2.safetensors"}, {"prompt": f"a cat <lora:{LORA}:0.8>"}),
    "v3": ({}, {}),
    "windows of the UNet": (WINDOWS, {}),
    "windows of the attention": ({**WINDOWS, "context_mode": "motion attention"}, {}),
    "light steps": ({"speed": "Fast"}, {**LARGER, "steps": 10}),
    "SparseCtrl": ({"sparse_ctrl": "sparse.ckpt", "sparse_pictures": [encode(gradient())]}, {}),
    "camera": ({"camera": "camera.ckpt", "camera_poses": pose_file(FRAMES)}, LARGER),
    "strength of frames": ({"motion_effect_frames": "0: 0.3\n3: 1", "motion_scale_frames": "0: 0.5\n3: 1.5"}, {}),
    "mask": ({"motion_mask": encode(MASK)}, {}),
}
"""The parameters of each clip, and the rest of its request."""


def request_for(name, **args):
    own, request = CLIPS[name]
    return {**SMALL, **animate(**{**own, **args}), **request}


def plain_request(name):
    """Returns the request for a plain batch of as many pictures, of the same size, from the same seeds, in as many steps."""
    args, request = CLIPS[name]
    alike = {key: value for key, value in request.items() if key != "prompt"}
    return {**SMALL, "batch_size": args.get("video_length", FRAMES), "override_settings": {"return_grid": False}, **alike}


@pytest.fixture(scope="module")
def settings(tmp_path_factory, weights):
    """Settings that name a folder of motion modules, SparseCtrl and CameraCtrl. A motion LoRA lies among the others."""
    folder = tmp_path_factory.mktemp("motion")
    for family in ("v1", "v2", "v3"):
        shutil.copy(weights / "motion" / f"mm_tiny_{family}.safetensors", folder)
    torch.manual_seed(7)
    torch.save(sparse_weights("RGB", text_width=64), folder / "sparse.ckpt")
    torch.save(nested(camera_weights()), folder / "camera.ckpt")
    lora = {f"{QUERY}.down.weight": torch.randn(4, 32) / 4, f"{QUERY}.up.weight": torch.randn(32, 4) / 4}
    file = weights / "lora" / f"{LORA}.safetensors"
    write_tensors(file, lambda: lora)
    yield {"animatediff_model_path": str(folder)}
    file.unlink()


@pytest.fixture(scope="module", autouse=True)
def _on_the_embedded_host(request):
    if request.config.getoption("--host") != "embedded":
        pytest.skip("a live WebUI has the precision that it was started with")


@pytest.fixture(scope="module")
def single(host, settings):
    """Makes pictures in single precision."""
    with host.settings(**settings):
        yield made_once(host.txt2img)


@pytest.fixture(scope="module", params=["float16", "bfloat16"])
def half(request, start_host, settings):
    """A host of half precision; `dtype` is its name, and `made` makes pictures."""
    server = start_host(extensions=[REPOSITORY, PROBE], options=settings, extra_args=["--dtype", request.param])
    server.dtype, server.made = request.param, made_once(server.txt2img)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def clip(half):
    """Makes a clip of a name. Returns its frames, and the dtypes and devices of the tensors that its layers had."""

    @cache
    def make(name):
        half.post("/probe/v1/dtypes", {"on": True}).raise_for_status()
        try:
            frames = frames_of(half.txt2img(**request_for(name)))
        finally:
            found = half.post("/probe/v1/dtypes", {"on": False}).json()
        return frames, found

    return make


@pytest.mark.parametrize("name", CLIPS)
def test_a_clip_is_as_near_to_single_precision_as_plain_pictures(half, clip, single, name):
    plain, (frames, _) = plain_request(name), clip(name)
    limit = FACTOR * mean_difference(half.made(**plain), single(**plain))
    assert 0 < mean_difference(frames, single(**request_for(name))) < limit


@pytest.mark.parametrize("name", CLIPS)
def test_no_tensor_has_another_dtype_or_device(half, clip, name):
    layers = {"motion layers", *({"SparseCtrl"} & {name})}
    expected = {"blocks", *layers, *(f"weights of {one}" for one in layers)}
    assert clip(name)[1] == {where: [f"{half.dtype} on cpu"] for where in expected}


def test_motion_acts(half, clip):
    still = half.made(**request_for("v3", motion_effect=0.0))
    assert mean_difference(clip("v3")[0], still) > 10
