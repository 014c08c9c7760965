"""The noise levels and timesteps of each family, compared with diffusers' schedulers for the authors' configurations."""

from __future__ import annotations

from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from animatediff.job.samplers import trailing
from demo.real_webui import NEO
from support.animation import animate, frames_of, info_of, recording, text_of_refusal, unet_calls
from support.pictures import encode, gradient
from support.published_layouts import FAMILIES, module_weights

FRAMES = 2
AUTHORS = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "linear"}
PICTURE = {"init_images": [encode(gradient())], "denoising_strength": 0.6}
HIRES = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent", "denoising_strength": 0.6}
in_the_webui = pytest.mark.webui_only("the embedded host has neither the LCM sampler nor schedule types")


@pytest.fixture(scope="module")
def server(host, tmp_path_factory):
    """The host, with a motion module of each family to choose from."""
    folder = tmp_path_factory.mktemp("modules")
    for family, facts in FAMILIES.items():
        torch.manual_seed(0)
        save_file(module_weights(family), folder / f"{family}.{facts.name}.safetensors")
    with host.settings(animatediff_model_path=str(folder)):
        yield host


def request_of(family, **request):
    return {**animate(model=f"{family}.{FAMILIES[family].name}.safetensors", video_length=FRAMES), "steps": 2, **request}


def runs_of(server, method, **request):
    with recording(server) as record:
        answer = method(**request)
        frames_of(answer)
    return record["sampler_runs"], info_of(answer)


def sigmas(alphas_cumprod):
    return np.sqrt((1 - alphas_cumprod) / alphas_cumprod)


AUTHORS_SIGMAS = sigmas(diffusers.DDIMScheduler(**AUTHORS).alphas_cumprod.double().numpy())
I2V = {**AUTHORS, "beta_end": 0.014}
I2V_SIGMAS = sigmas(diffusers.DDIMScheduler(**I2V).alphas_cumprod.double().numpy())
OWN_SIGMAS = sigmas(diffusers.DDIMScheduler(**{**AUTHORS, "beta_schedule": "scaled_linear"}).alphas_cumprod.double().numpy())


def same(first, second):
    return np.allclose(first, second, rtol=2e-5, atol=0)


def table_of_lcm(server, sigmas, original):
    """Returns the noise table of an LCM sampler for `original` timesteps. Neo's sampler has the whole schedule's."""
    return sigmas if server.kind is NEO else sigmas[1000 // original - 1 :: 1000 // original]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_pass_uses_the_authors_noise_table(server, family):
    runs, _ = runs_of(server, server.img2img, **request_of(family), **PICTURE)
    if not FAMILIES[family].starts_from_image:
        runs += runs_of(server, server.txt2img, **request_of(family), **HIRES)[0]
    assert len(runs) == (1 if FAMILIES[family].starts_from_image else 3)
    for run in runs:
        assert same(run["noise_table"], I2V_SIGMAS if family == "lcm-i2v" else AUTHORS_SIGMAS)
    assert same(runs_of(server, server.txt2img)[0][0]["noise_table"], OWN_SIGMAS)


@in_the_webui
@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_lightning_is_sampled_at_trailing_timesteps(server, steps):
    settings = {"sampler_name": "Euler", "scheduler": "Trailing", "steps": steps, "cfg_scale": 1}
    (run,), info = runs_of(server, server.txt2img, **request_of(f"lightning-{steps}", **settings))
    authors = diffusers.EulerDiscreteScheduler(**AUTHORS, timestep_spacing="trailing")
    authors.set_timesteps(steps)
    assert same([call["noise_level"] for call in run["denoiser_calls"]], authors.sigmas[:-1].numpy())
    assert [call["timestep"] for call in unet_calls(run)] == authors.timesteps.tolist()
    assert "AnimateDiff warnings" not in info["extra_generation_params"]
    assert "Schedule type: Trailing" in info["infotexts"][0]


@pytest.mark.parametrize("steps", range(1, 201))
def test_there_are_as_many_trailing_timesteps_as_steps_and_they_end_above_zero(steps):
    wrap = SimpleNamespace(sigmas=torch.from_numpy(AUTHORS_SIGMAS))
    levels = trailing(steps, 0, 0, wrap, "cpu")
    timesteps = np.arange(steps, 0, -1) * 1000 / steps
    assert same(levels[:-1], AUTHORS_SIGMAS[timesteps.round().astype(int) - 1]) and levels[-1] == 0
    assert (levels.diff() < 0).all() and len(levels) == steps + 1


@in_the_webui
@pytest.mark.parametrize("steps", [4, 6, 8])
def test_animatelcm_is_sampled_at_its_own_timesteps(server, steps):
    """One hundred original steps, as in the authors' `lcm_scheduler.py`. The default of diffusers is fifty."""
    settings = {"sampler_name": "LCM", "steps": steps, "cfg_scale": 1.5, "prompt": "a cat <lora:AnimateLCM_sd15_t2v_lora:0.8>"}
    (run,), info = runs_of(server, server.txt2img, **request_of("lcm", **settings))
    authors = diffusers.LCMScheduler(**AUTHORS, original_inference_steps=100)
    authors.set_timesteps(steps, original_inference_steps=100)
    timesteps = authors.timesteps.tolist()
    assert timesteps[:2] == {4: [999, 749], 6: [999, 839], 8: [999, 879]}[steps]
    assert [call["timestep"] for call in unet_calls(run)] == timesteps
    assert same([call["noise_level"] for call in run["denoiser_calls"]], AUTHORS_SIGMAS[timesteps])
    assert same(run["noise_table"], table_of_lcm(server, AUTHORS_SIGMAS, 100))
    assert "AnimateDiff warnings" not in info["extra_generation_params"]


@in_the_webui
def test_animatelcm_in_img2img_and_hires(server):
    settings = {"sampler_name": "LCM", "steps": 5, "cfg_scale": 1.5}
    (picture,), _ = runs_of(server, server.img2img, **request_of("lcm", **settings), **PICTURE)
    runs = [picture, *runs_of(server, server.txt2img, **request_of("lcm", **settings), **HIRES)[0]]
    for run in runs:
        assert same(run["noise_table"], table_of_lcm(server, AUTHORS_SIGMAS, 100))
    levels = [call["noise_level"] for call in picture["denoiser_calls"]]
    assert same(levels, AUTHORS_SIGMAS[[799, 599, 399, 199]])  # at strength 0.6 the WebUI skips the first of five


@in_the_webui
@pytest.mark.parametrize("steps", [2, 4, 7])
def test_animatelcm_i2v_begins_with_noise_at_its_own_timesteps(server, steps):
    """Two hundred original steps, to a noisier end; denoising is at full strength."""
    prompt = "a cat <lora:AnimateLCM_sd15_i2v_lora:0.8>"
    settings = {"sampler_name": "LCM", "steps": steps, "cfg_scale": 1, "prompt": prompt, **PICTURE, "denoising_strength": 1}
    (run,), info = runs_of(server, server.img2img, **request_of("lcm-i2v", **settings))
    authors = diffusers.LCMScheduler(**I2V, original_inference_steps=200)
    authors.set_timesteps(steps, original_inference_steps=200)
    timesteps = authors.timesteps.tolist()
    assert timesteps[:2] == {2: [999, 499], 4: [999, 749], 7: [999, 859]}[steps]
    assert [call["timestep"] for call in unet_calls(run)] == timesteps
    assert same([call["noise_level"] for call in run["denoiser_calls"]], I2V_SIGMAS[timesteps])
    assert same(run["noise_table"], table_of_lcm(server, I2V_SIGMAS, 200))
    assert "AnimateDiff warnings" not in info["extra_generation_params"]


@in_the_webui
@pytest.mark.parametrize("how", ["success", "exception", "interrupt"])
def test_the_webuis_own_lcm_sampler_is_restored(server, how):
    own = {"sampler_name": "LCM", "steps": 4, "cfg_scale": 1.5}
    (before,), _ = runs_of(server, server.txt2img, **own)
    if how == "exception":
        server.post("/probe/v1/fault", {"step": 2})
    if how == "interrupt":
        server.post("/probe/v1/interrupt-at", {"step": 2})
    answer = server.txt2img(**request_of("lcm", **own))
    assert answer.ok == (how != "exception")
    (run,), _ = runs_of(server, server.txt2img, **own)
    assert same(run["noise_table"], table_of_lcm(server, OWN_SIGMAS, 50))
    assert run["sigmas"] == before["sigmas"]


@in_the_webui
def test_settings_that_do_not_suit_the_module_are_used_with_a_warning(server):
    (run,), info = runs_of(server, server.txt2img, **request_of("lcm", sampler_name="Euler a", steps=20, cfg_scale=7))
    (first, second) = info["extra_generation_params"]["AnimateDiff warnings"]
    assert "AnimateLCM is made for LCM, 6 steps, CFG 1.5" in first
    for words in (
        "the sampler is Euler a, not LCM",
        "the number of steps is 20, not 4 to 8",
        "the CFG scale is 7, not 1 to 2",
    ):
        assert words in first
    assert "<lora:AnimateLCM_sd15_t2v_lora:0.8>" in second
    assert len(run["denoiser_calls"]) == 20 and run["function"] == "sample_euler_ancestral"


def test_a_family_can_be_overridden_and_is_in_the_infotext(server):
    def asked(family):
        request = request_of("v2")
        request["alwayson_scripts"]["AnimateDiff"]["args"][0]["family"] = family
        return request

    assert "family" not in infotext_of(server, request_of("v3"))
    assert "family: lightning-4" in infotext_of(server, request_of("lightning-4")), "the family that the file name suggests"
    assert "family: lightning-8" in infotext_of(server, asked("lightning-8"))
    answer = server.txt2img(**asked("temporaldiff"))
    assert answer.status_code == 422 and "it is built like AnimateDiff v2" in answer.json()["detail"]


def infotext_of(server, request):
    return info_of(server.txt2img(**request))["infotexts"][0]


def test_pia_takes_no_denoising_strengths_of_frames(server):
    request = request_of("pia")
    request["alwayson_scripts"]["AnimateDiff"]["args"][0]["denoising_strength_frames"] = "0: 0.2\n1: 1"
    answer = server.img2img(**request, **PICTURE)
    assert answer.status_code == 422 and "pia_motion" in answer.json()["detail"]


@pytest.mark.parametrize("family", ["pia", "lcm-i2v"])
def test_modules_that_animate_a_picture_need_one(server, family):
    answer = server.txt2img(**request_of(family))
    assert answer.status_code == 422 and "txt2img has none. Use it in img2img." in answer.json()["detail"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (
            {"video_length": 8, "batch_size": 4, "context_mode": "motion attention"},
            ("context_mode", "“motion attention”", "Set it to “whole UNet”", "(video_length) to 4 or less"),
        ),
        ({"detail": "box", "detail_box": "8, 8, 32, 32"}, ("Detail (detail)", "AnimateLCM-I2V", "“Off”")),
        ({"last_frame": PICTURE["init_images"][0]}, ("Last frame (last_frame)", "AnimateLCM-I2V", "single picture")),
        (
            {"model": "v2.module.safetensors", "model_2": "lcm-i2v.AnimateLCM_sd15_i2v.safetensors"},
            ("AnimateLCM_sd15_i2v.safetensors animates a picture", "only be the first"),
        ),
    ],
    ids=["windows in the attention", "detail", "last frame", "second"],
)
def test_what_animatelcm_i2v_cannot_do_is_refused(server, args, words):
    request = request_of("lcm-i2v")
    request["alwayson_scripts"]["AnimateDiff"]["args"][0].update(args)
    answer = server.img2img(**request, **PICTURE)
    assert answer.status_code == 422 and all(word in answer.json()["detail"] for word in words), answer.text


@pytest.mark.parametrize("args", [{}, {"closed_loop": "R-P"}, {"stride": 2}, {"closed_loop": "A", "batch_size": 16}], ids=str)
def test_animatelcm_i2v_makes_clips_in_windows_and_loops(server, args):
    request = request_of("lcm-i2v")
    request["alwayson_scripts"]["AnimateDiff"]["args"][0].update({"video_length": 8, "batch_size": 4, **args})
    assert len(frames_of(server.img2img(**request, **PICTURE))) == 8


@pytest.mark.parametrize("family", ["lcm", "lightning-8"])
def test_distilled_modules_have_no_light_steps(server, family):
    request = request_of(family, steps=12)
    request["alwayson_scripts"]["AnimateDiff"]["args"][0]["speed"] = "Fast"
    assert "in so few steps that each has to compute everything" in text_of_refusal(server.txt2img(**request))
