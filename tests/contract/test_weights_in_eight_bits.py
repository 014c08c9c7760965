"""A checkpoint whose UNet is stored in eight bits: a clip is what the authors' UNet makes of the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from demo.weights import write_tensors
from support.animation import animate, difference, frames_of
from support.server import PROBE, REPOSITORY

FRAMES = 4
JOB = {"steps": 3, "negative_prompt": "bad", "sampler_name": "Euler"}
ROUNDED = 10
"""Levels of 255 by which a clip of the unrounded weights differs at least."""
NAME = "tiny-eight-bits.safetensors"


def in_eight_bits(path):
    weights = load_file(path)
    of_unet = {name for name in weights if name.startswith("model.diffusion_model.")}
    return {name: tensor.to(torch.float8_e4m3fn) if name in of_unet else tensor for name, tensor in weights.items()}


@pytest.fixture(scope="module")
def server(start_host, weights):
    folder = weights / "checkpoints"
    write_tensors(folder / NAME, lambda: in_eight_bits(folder / "tiny-a.safetensors"))
    (folder / NAME).with_suffix(".yaml").write_text((folder / "tiny-a.yaml").read_text())
    server = start_host(extensions=[REPOSITORY, PROBE], options={"sd_model_checkpoint": NAME})
    yield server
    server.stop()
    for file in folder.glob(f"{NAME.partition('.')[0]}.*"):
        file.unlink()


def test_frames_are_those_of_the_authors_unet_with_the_rounded_weights(server, weights):
    before = frames_of(server.txt2img(**JOB))
    clip = animate("v3", video_length=FRAMES)
    made = frames_of(server.txt2img(**clip, **JOB))
    module = weights / "motion" / "mm_tiny_v3.safetensors"
    assert server.post("/probe/v1/reference", {"module": str(module), "frames": FRAMES}).ok
    try:
        batch = {"batch_size": FRAMES, "override_settings": {"return_grid": False}}
        assert difference(made, frames_of(server.txt2img(**batch, **JOB))) <= 2
    finally:
        assert server.post("/probe/v1/reference", {}).ok
    unrounded = {"override_settings": {"sd_model_checkpoint": "tiny-a.safetensors"}}
    assert difference(made, frames_of(server.txt2img(**clip, **JOB, **unrounded))) >= ROUNDED
    np.testing.assert_array_equal(frames_of(server.txt2img(**JOB)), before)
