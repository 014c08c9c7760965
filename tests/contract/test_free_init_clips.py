"""FreeInit: a clip that is sampled several times."""

from __future__ import annotations

import numpy as np
import pytest

from motion_module.noise_schedule import ANIMATEDIFF
from support.animation import animate, frames_of, recording
from support.pictures import encode, gradient, mean_difference

FREEINIT = {"freeinit_enable": True, "freeinit_iters": 2}


def runs_of(host, **request):
    with recording(host) as record:
        frames = frames_of(host.txt2img(**request))
    assert record["stray_unet_calls"] == []
    return frames, [len(run["denoiser_calls"]) for run in record["sampler_runs"]]


def test_one_iteration_equals_freeinit_off(host):
    once = frames_of(host.txt2img(**animate(freeinit_enable=True, freeinit_iters=1)))
    assert np.array_equal(once, frames_of(host.txt2img(**animate())))


@pytest.mark.parametrize("sampler", ["Euler a", "DDIM", "DPM++ 2M"])
def test_each_iteration_samples_the_clip_again(host, sampler):
    request = {"sampler_name": sampler, "steps": 6}
    frames, steps = runs_of(host, **animate(**FREEINIT), **request)
    once, of_one = runs_of(host, **animate(), **request)
    assert steps == of_one * 2 and mean_difference(frames, once) > 1
    assert np.array_equal(frames, frames_of(host.txt2img(**animate(**FREEINIT), **request)))


def test_iterations_before_the_last_may_have_fewer_steps(host):
    _, steps = runs_of(
        host, **animate(freeinit_enable=True, freeinit_iters=3, freeinit_fast=True), sampler_name="Euler", steps=6
    )
    assert steps == [2, 4, 6]


def test_a_filter_that_passes_nothing_gives_new_noise(host):
    """So the first iteration leaves no trace in the second."""
    none, other = (frames_of(host.txt2img(**animate(**FREEINIT, freeinit_ds=ds))) for ds in (0.0, 0.25))
    assert mean_difference(none, other) > 1


def test_the_hires_pass_runs_once_after_all_iterations(host):
    hires = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent", "denoising_strength": 0.7}
    with recording(host) as record:
        frames = frames_of(host.txt2img(**animate(**FREEINIT), **hires, steps=4))
    assert frames.shape[1:3] == (96, 96) and len(record["sampler_runs"]) == 3
    assert record["sampler_runs"][1]["sigmas"][1] == pytest.approx(float(ANIMATEDIFF.sigmas()[-1]), rel=1e-5)


@pytest.mark.not_on(("Neo",), "its refiner never takes over from DDIM, also in plain pictures")
def test_every_round_begins_on_the_base_model_where_a_refiner_follows(host):
    refiner = {"refiner_checkpoint": "tiny-b.safetensors", "refiner_switch_at": 0.5}
    request = {**animate(**FREEINIT), "steps": 4, "sampler_name": "DDIM"}
    with recording(host) as record:
        refined = frames_of(host.txt2img(**request, **refiner))
    assert ["tiny-a" in run["checkpoint"] for run in record["sampler_runs"]] == [True, True]
    assert not np.array_equal(refined, frames_of(host.txt2img(**request)))


def test_each_of_several_videos_runs_all_iterations(host):
    _, steps = runs_of(host, **animate(**FREEINIT, video_length=4), n_iter=2, steps=3, sampler_name="DDIM")
    assert steps == [3] * 4


def test_img2img_is_refused(host):
    answer = host.img2img(**animate(**FREEINIT), init_images=[encode(gradient())])
    assert answer.status_code == 422 and "txt2img" in answer.json()["detail"]
