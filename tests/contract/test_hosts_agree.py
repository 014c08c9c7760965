"""The embedded host against the live WebUI: the same request must give the same frames."""

from __future__ import annotations

from typing import Any

import pytest

from support.animation import animate, difference, frames_of
from support.pictures import encode, gradient
from support.server import PROBE, REPOSITORY, EmbeddedHost

pytestmark = pytest.mark.webui_only("it compares the embedded host with the WebUI")

HIRES = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent", "denoising_strength": 0.6}
REFINER = {"refiner_checkpoint": "tiny-b.safetensors", "refiner_switch_at": 0.5}
REQUESTS: dict[str, dict[str, Any]] = {
    "Euler a": {"sampler_name": "Euler a"},
    "DDIM": {"sampler_name": "DDIM"},
    "DPM++ 2M": {"sampler_name": "DPM++ 2M"},
    "DPM++ 2M Karras": {"sampler_name": "DPM++ 2M", "scheduler": "Karras"},
    "emphasis, editing, AND": {"prompt": "a (red:1.3) [cat:dog:0.5] AND [a] boat :0.6", "steps": 6},
    "long negative prompt": {"negative_prompt": " ".join(["word"] * 90)},
    "NGMS": {"override_settings": {"s_min_uncond": 4.0}, "steps": 6},
    "hires fix": HIRES,
    "refiner": REFINER,
    "LoRA": {"prompt": "a cat <lora:lora_tiny:0.7>"},
}

OF_THE_HOST = {
    "hires fix": pytest.mark.not_on(("Forge", "Neo", "reForge"), "its second pass takes whole timesteps: 4 levels"),
    "refiner": pytest.mark.not_on(("Neo",), "its refiner takes over at another step, also in plain pictures: 34 levels there"),
    "NGMS": pytest.mark.not_on(("reForge",), "its NGMS differs, also in plain pictures: 6 levels there"),
}
"""What differs from AUTOMATIC1111 without this extension too."""


@pytest.fixture(scope="module")
def embedded(start_host):
    server = start_host(EmbeddedHost, extensions=[REPOSITORY, PROBE])
    yield server
    server.stop()


@pytest.mark.parametrize("family", ["v1", "v3"])
@pytest.mark.parametrize("name", [pytest.param(name, marks=OF_THE_HOST.get(name, ())) for name in REQUESTS])
def test_txt2img_frames_are_the_same(host, embedded, family, name):
    request = {"negative_prompt": "bad", **animate(family), **REQUESTS[name]}
    assert difference(frames_of(host.txt2img(**request)), frames_of(embedded.txt2img(**request))) <= 2


@pytest.mark.parametrize("sampler", ["Euler a", "DDIM"])
def test_img2img_frames_are_the_same(host, embedded, sampler):
    request = {**animate(), "init_images": [encode(gradient())], "denoising_strength": 0.5, "sampler_name": sampler}
    assert difference(frames_of(host.img2img(**request)), frames_of(embedded.img2img(**request))) <= 2


def test_a_single_image_is_the_same(host, embedded):
    assert difference(frames_of(host.txt2img()), frames_of(embedded.txt2img())) <= 2
