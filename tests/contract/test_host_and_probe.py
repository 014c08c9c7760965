"""The test rig itself: the host runs with the random weights, and the probe reports correctly and cleans up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.pictures import encode, gradient, mean_difference, pictures_of
from support.server import Server

in_the_webui = pytest.mark.webui_only("that plain images depend on their requests says nothing about the extension")


@pytest.fixture(scope="module")
def server(plain_host: Server) -> Server:
    return plain_host


def state(server: Server) -> dict[str, Any]:
    return server.get("/probe/v1/state").json()


def picture(server: Server, **request: Any) -> np.ndarray:
    return pictures_of(server.txt2img(**request))[0]


def recorded(server: Server, **request: Any) -> dict[str, Any]:
    server.post("/probe/v1/record", {"on": True})
    pictures_of(server.txt2img(**request))
    server.post("/probe/v1/record", {"on": False})
    return server.get("/probe/v1/record").json()


@in_the_webui
def test_an_image_has_contrast_and_is_not_saturated(server: Server) -> None:
    levels = picture(server)
    assert levels.std() > 10
    assert np.isin(levels, (0, 255)).mean() < 0.05


@in_the_webui
def test_the_same_request_gives_the_same_image(server: Server) -> None:
    assert np.array_equal(picture(server), picture(server))


@in_the_webui
@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a dog"},
        {"negative_prompt": "a dog"},
        {"seed": 2},
        {"steps": 5},
        {"cfg_scale": 1},
        {"sampler_name": "DDIM"},
        {"prompt": "a cat <lora:lora_tiny:1>"},
        {"override_settings": {"sd_model_checkpoint": "tiny-b.safetensors"}},
    ],
    ids=str,
)
def test_every_parameter_of_a_request_changes_the_image(server: Server, change: dict[str, Any]) -> None:
    assert mean_difference(picture(server), picture(server, **change)) > 3


@in_the_webui
def test_img2img_is_repeatable_once_the_global_generator_is_seeded(server: Server) -> None:
    def img2img() -> np.ndarray:
        server.post("/probe/v1/seed", {"seed": 0})
        return pictures_of(server.img2img(init_images=[encode(gradient())], denoising_strength=0.5))[0]

    picture(server)  # loading a checkpoint draws from the generator too
    assert np.array_equal(img2img(), img2img())


def test_the_loaded_unet_is_the_checkpoint(server: Server, weights: Path) -> None:
    picture(server)
    file = weights / "checkpoints" / "tiny-a.safetensors"
    from_file = server.get("/probe/v1/checkpoint-digest", params={"file": str(file)}).json()
    assert len(from_file) == 686
    assert server.get("/probe/v1/unet-digest").json() == from_file


def test_jobs_and_recording_leave_the_state_as_it_was(server: Server) -> None:
    picture(server)
    before = state(server)
    server.post("/probe/v1/record", {"on": True})
    assert state(server)["patched_methods"]
    server.post("/probe/v1/record", {"on": False})
    picture(server)
    assert state(server) == before
    assert before["unet"]["forward_hooks"] == before["unet"]["forward_pre_hooks"] == 0
    assert before["unet"]["instance_forwards"] == before["patched_functions"] == before["patched_methods"] == []
    assert all(table["same_object"] for table in before["schedule"].values())


def test_the_recorder_sees_every_call(server: Server) -> None:
    record = recorded(server, steps=3, batch_size=2, enable_hr=True, hr_scale=1.5, hr_upscaler="Latent", denoising_strength=0.7)
    first, second = record["sampler_runs"]
    assert (first["sampler"], first["is_hr_pass"], second["is_hr_pass"]) == ("KDiffusionSampler", False, True)
    assert first["sigmas"][1] == pytest.approx(14.6, abs=0.1)
    assert first["denoiser_calls"][0]["noise_level"] == pytest.approx(first["sigmas"][1])
    assert [call["rows"] for step in first["denoiser_calls"] for call in step["unet_calls"]] == [4, 4, 4]
    assert {call["height"] for step in second["denoiser_calls"] for call in step["unet_calls"]} == {12}
    assert record["stray_unet_calls"] == []
    assert record["before_process_calls"] == 1


def test_the_recorder_knows_timestep_samplers(server: Server) -> None:
    (run,) = recorded(server, sampler_name="DDIM")["sampler_runs"]
    assert run["sigmas"] is None
    assert run["alphas_cumprod"] == run["model_alphas_cumprod"]
    assert [call["noise_level"] for call in run["denoiser_calls"]] == [751, 501, 251]  # DDIM runs one step fewer than requested


def test_a_fault_fails_only_one_job(server: Server) -> None:
    expected = picture(server)
    server.post("/probe/v1/fault", {"step": 2})
    failed = server.txt2img()
    assert failed.status_code == 500
    assert "probe fault" in failed.text
    assert np.array_equal(picture(server), expected)
    assert server.get("/probe/v1/fault").json() == {"fired": 1}


@pytest.mark.parametrize("how", ["interrupt", "skip"])
def test_an_interrupted_job_stops_early(server: Server, how: str) -> None:
    server.post("/probe/v1/interrupt-at", {"step": 2, "how": how})
    (run,) = recorded(server)["sampler_runs"]
    assert len(run["denoiser_calls"]) == 3
    assert [len(call["unet_calls"]) for call in run["denoiser_calls"]] == [1, 1, 0]


@pytest.mark.parametrize("at", ["process_before_every_sampling", "postprocess_image", "postprocess_batch"])
def test_a_nested_job_makes_one_image_and_disturbs_nothing(server: Server, at: str) -> None:
    expected = picture(server)
    server.post("/probe/v1/nested", {"at": at})
    assert np.array_equal(picture(server), expected)
    result = server.get("/probe/v1/nested").json()
    assert (result["fired_at"], result["pictures"], result["error"]) == (at, 1, None)


def test_a_nested_postprocess_gets_no_images(server: Server) -> None:
    server.post("/probe/v1/nested", {"at": "postprocess_image", "mode": "postprocess"})
    picture(server)
    result = server.get("/probe/v1/nested").json()
    assert (result["fired_at"], result["pictures"], result["error"]) == ("postprocess_image", 0, None)


@pytest.mark.not_on(("Forge", "Neo", "reForge"), "it has no custom UNets")
def test_a_custom_unet_is_used_until_it_is_removed(server: Server) -> None:
    expected = picture(server)
    server.post("/probe/v1/flags", {"custom_unet": True})
    picture(server)
    assert server.get("/probe/v1/flags").json()["custom_unet_calls"] == 4
    server.post("/probe/v1/flags", {"custom_unet": None})
    assert np.array_equal(picture(server), expected)


def test_model_flags_are_restored(server: Server) -> None:
    assert server.post("/probe/v1/flags", {"is_sdxl": True}).json()["is_sdxl"]
    assert not server.post("/probe/v1/flags", {"is_sdxl": None}).json()["is_sdxl"]
