"""The test rig for SDXL: the narrow checkpoints make plain images in the live WebUI, and the probe sees their UNet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

from support import sdxl_weights
from support.animation import LONG, recording, unet_calls
from support.pictures import mean_difference, pictures_of
from support.server import PROBE, Server

pytestmark = [
    pytest.mark.webui_only("the embedded host has no SDXL"),
    pytest.mark.not_on(("Forge", "Neo", "reForge"), "it takes no narrow SDXL checkpoint"),
]

HIRES = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent", "denoising_strength": 0.7}
REFINER = {"refiner_checkpoint": "tiny-xl-refiner.safetensors", "refiner_switch_at": 0.2}
LORA = sdxl_weights.lora(34)
PARTS = {
    **{name: [name] for key in LORA if (name := key.partition(".")[0]).startswith("lora_unet")},
    "first text encoder": ["lora_te1"],
    "second text encoder": ["lora_te2"],
}
"""The parts of the LoRA, by the start of their keys. Each changes the image by itself."""


@pytest.fixture(scope="module")
def server(start_host: Any, xl_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    loras = tmp_path_factory.mktemp("parts")
    for index, beginnings in enumerate(PARTS.values()):
        part = {key: tensor for key, tensor in LORA.items() if key.startswith(tuple(beginnings))}
        save_file(part, loras / f"part-{index}.safetensors")
    options = {"sd_model_checkpoint": "tiny-xl-a.safetensors"}
    options["show_progress_type"] = "Approx cheap"  # for another method, the WebUI would download a network
    server = start_host(extensions=[PROBE], options=options, extra_args=["--lora-dir", str(loras)])
    yield server
    server.stop()


def picture(server: Server, **request: Any) -> np.ndarray:
    return pictures_of(server.txt2img(**request))[0]


def setting(**values: Any) -> dict[str, Any]:
    return {"override_settings": values}


def test_an_image_has_contrast_and_is_not_saturated(server: Server) -> None:
    levels = picture(server)
    assert levels.shape == (64, 64, 3) and levels.std() > 10
    assert np.isin(levels, (0, 255)).mean() < 0.05
    assert server.get("/probe/v1/flags").json()["is_sdxl"]


@pytest.mark.parametrize("request_", [{}, HIRES, REFINER], ids=["plain", "hires", "refiner"])
def test_the_same_request_gives_the_same_image(server: Server, request_: dict[str, Any]) -> None:
    assert np.array_equal(picture(server, **request_), picture(server, **request_))


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a dog"},
        {"negative_prompt": "a dog"},
        {"seed": 2},
        {"steps": 5},
        {"cfg_scale": 1},
        {"sampler_name": "DDIM"},
        setting(sd_model_checkpoint="tiny-xl-b.safetensors"),
        setting(sdxl_crop_top=64),
        setting(sdxl_crop_left=64),
        REFINER,
    ],
    ids=str,
)
def test_every_parameter_of_a_request_changes_the_image(server: Server, change: dict[str, Any]) -> None:
    assert mean_difference(picture(server), picture(server, **change)) > 0.5


@pytest.mark.parametrize("index", range(len(PARTS)), ids=PARTS)
def test_every_part_of_the_lora_changes_the_image(server: Server, index: int) -> None:
    plain = picture(server)
    assert mean_difference(plain, picture(server, prompt=f"a cat <lora:part-{index}:1>")) > 1
    assert np.array_equal(plain, picture(server))


def test_the_refiner_gets_its_aesthetic_score(server: Server) -> None:
    """Only the refiner's UNet gets it, so the refiner must have run with its own conditioner."""
    ugly = setting(sdxl_refiner_high_aesthetic_score=1.0)
    assert not np.array_equal(picture(server, **REFINER), picture(server, **REFINER, **ugly))
    assert np.array_equal(picture(server), picture(server, **ugly))


@pytest.mark.parametrize("name", ["tiny-xl-a", "tiny-xl-b", "tiny-xl-refiner"])
def test_the_loaded_unet_is_the_checkpoint(server: Server, weights: Path, name: str) -> None:
    override = {**setting(sd_model_checkpoint=f"{name}.safetensors"), "override_settings_restore_afterwards": False}
    try:
        picture(server, **override)
        file = weights / "checkpoints" / f"{name}.safetensors"
        from_file = server.get("/probe/v1/checkpoint-digest", params={"file": str(file)}).json()
        assert len(from_file) > 700
        assert server.get("/probe/v1/unet-digest").json() == from_file
    finally:
        server.post("/sdapi/v1/options", {"sd_model_checkpoint": "tiny-xl-a.safetensors"})


def test_the_recorder_sees_every_call(server: Server) -> None:
    picture(server)  # loading a checkpoint encodes the empty prompt too
    with recording(server) as record:
        (levels, *_) = pictures_of(server.txt2img(prompt=f"{LONG}, new", steps=3, batch_size=2, **HIRES))
    assert levels.shape == (96, 96, 3)
    first, second = record["sampler_runs"]
    assert (first["is_hr_pass"], second["is_hr_pass"]) == (False, True)
    assert first["sigmas"][1] == pytest.approx(14.6, abs=0.1)
    apart = [(2, 154), (2, 77)] * 3  # prompts of different lengths, each in a separate call
    for run, side in ((first, 8), (second, 12)):
        assert [(call["rows"], call["context_tokens"]) for call in unet_calls(run)] == apart
        assert {(call["height"], call["width"]) for call in unet_calls(run)} == {(side, side)}
    assert record["text_encoder_forwards"] == 8, "two passes, two prompts, two encoders"
    assert record["stray_unet_calls"] == [] and record["before_process_calls"] == 1


def test_prompts_of_equal_length_share_a_unet_call(server: Server) -> None:
    with recording(server) as record:
        picture(server, batch_size=2)
    (run,) = record["sampler_runs"]
    assert [(call["rows"], call["context_tokens"]) for call in unet_calls(run)] == [(4, 77)] * 4


def test_jobs_and_recording_leave_the_state_as_it_was(server: Server) -> None:
    picture(server)
    before = server.get("/probe/v1/state").json()
    with recording(server):
        patched = server.get("/probe/v1/state").json()["patched_methods"]
    of_both = {f"{package}.modules.diffusionmodules.openaimodel.UNetModel.forward" for package in ("ldm", "sgm")}
    assert of_both <= set(patched)
    picture(server, **HIRES)
    assert server.get("/probe/v1/state").json() == before
    assert before["patched_functions"] == before["patched_methods"] == before["unet"]["instance_forwards"] == []
    assert before["schedule"]["alphas_cumprod"]["same_object"]
