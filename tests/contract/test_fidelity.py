"""At SD 1.5 size: frames equal those of sd-webui-animatediff in `data/reference_frames.npz`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support.animation import difference, frames_of
from support.server import PROBE, REPOSITORY

REFERENCE = np.load(Path(__file__).parent / "data" / "reference_frames.npz")
SAMPLERS = {
    "Euler a": {"sampler_name": "Euler a"},
    "DDIM": {"sampler_name": "DDIM"},
    "DPM++ 2M": {"sampler_name": "DPM++ 2M", "scheduler": "Karras"},
}
pytestmark = pytest.mark.not_on(("Forge", "Neo"), "it takes no checkpoint with a narrow VAE")
POWER = 10
"""Wrong frames must differ by at least this many levels; right ones differ by at most one."""


@pytest.fixture(scope="module")
def full_size(start_host):
    server = start_host(extensions=[REPOSITORY, PROBE], options={"sd_model_checkpoint": "sd15.safetensors"})
    yield server
    server.stop()


def crop(frames):
    """Returns the part of each frame that the reference stores."""
    return frames[:, 16:48, 16:48]


def request_of(family, sampler):
    args = {"enable": True, "model": f"mm_sd15_{family}.safetensors", "video_length": 16, "format": ["Frame"]}
    return {**SAMPLERS[sampler], "negative_prompt": "bad", "alwayson_scripts": {"AnimateDiff": {"args": [args]}}}


at_length = pytest.mark.webui_only("at full size one comparison is enough outside the WebUI")


@pytest.mark.parametrize(
    ("family", "sampler"),
    [
        ("v1", "DDIM"),
        pytest.param("v2", "Euler a", marks=at_length),
        pytest.param("v3", "DPM++ 2M", marks=at_length),
    ],
)
def test_frames_equal_those_of_sd_webui_animatediff(full_size, family, sampler):
    """Each family and each sampler once. `test_weight_files.py` tests every family at a small size."""
    frames = crop(frames_of(full_size.txt2img(**request_of(family, sampler))))
    assert difference(frames, REFERENCE[f"{family}/{sampler}"]) <= 1


@at_length
def test_the_comparison_detects_that_the_module_is_off(full_size):
    stills = crop(frames_of(full_size.txt2img(**SAMPLERS["DDIM"], negative_prompt="bad", batch_size=16, **without_grid())))
    assert difference(stills, REFERENCE["v1/DDIM"]) >= POWER


def without_grid():
    return {"override_settings": {"return_grid": False}}
