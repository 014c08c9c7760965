"""At SD 1.5 size: the same frames as those of the established extension in `data/reference_frames.npz`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from animation import difference, frames_of
from server import PROBE, REPOSITORY

REFERENCE = np.load(Path(__file__).parent / "data" / "reference_frames.npz")
SAMPLERS = {
    "Euler a": {"sampler_name": "Euler a"},
    "DDIM": {"sampler_name": "DDIM"},
    "DPM++ 2M": {"sampler_name": "DPM++ 2M", "scheduler": "Karras"},
}
POWER = 10
"""What is wrong must miss by at least this many levels, where what is right misses by one at most."""


@pytest.fixture(scope="module")
def full_size(start_host):
    server = start_host(extensions=[REPOSITORY, PROBE], options={"sd_model_checkpoint": "sd15.safetensors"})
    yield server
    server.stop()


def crop(frames):
    """The part of each frame that the reference keeps."""
    return frames[:, 16:48, 16:48]


def request_of(family, sampler):
    args = {"enable": True, "model": f"mm_sd15_{family}.safetensors", "video_length": 16, "format": ["Frame"]}
    return {**SAMPLERS[sampler], "negative_prompt": "bad", "alwayson_scripts": {"AnimateDiff": {"args": [args]}}}


ON_BOTH_HOSTS = [("v1", "DDIM"), ("v2", "Euler a"), ("v3", "DPM++ 2M")]
IN_THE_WEBUI = [(family, sampler) for family in ("v1", "v2", "v3") for sampler in SAMPLERS]
at_length = pytest.mark.webui_only("at full size each family and each sampler once is enough outside the WebUI")


@pytest.mark.parametrize(
    ("family", "sampler"),
    ON_BOTH_HOSTS + [pytest.param(*pair, marks=at_length) for pair in IN_THE_WEBUI if pair not in ON_BOTH_HOSTS],
)
def test_frames_are_those_of_the_established_extension(full_size, family, sampler):
    frames = crop(frames_of(full_size.txt2img(**request_of(family, sampler))))
    assert difference(frames, REFERENCE[f"{family}/{sampler}"]) <= 1


@at_length
class TestThePowerOfTheComparison:
    """Each of these is a fault that the comparison has to see."""

    def test_the_module_switched_off(self, full_size):
        stills = crop(frames_of(full_size.txt2img(**SAMPLERS["DDIM"], negative_prompt="bad", batch_size=16, **without_grid())))
        assert difference(stills, REFERENCE["v3/DDIM"]) >= POWER

    @pytest.mark.parametrize("fault", ["no positions", "frames permuted", "schedule of the checkpoint", "norms per frame"])
    def test_a_fault_in_the_method(self, full_size, fault):
        family = "v1" if fault == "norms per frame" else "v3"
        full_size.post("/probe/v1/break-method", {"how": fault})
        try:
            frames = crop(frames_of(full_size.txt2img(**request_of(family, "DDIM"))))
        finally:
            full_size.post("/probe/v1/break-method", {"how": None})
        assert difference(frames, REFERENCE[f"{family}/DDIM"]) >= POWER


def without_grid():
    return {"override_settings": {"return_grid": False}}
