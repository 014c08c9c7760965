"""Light steps: what of the UNet they compute, what they cost in likeness, and where they cannot be."""

from __future__ import annotations

import numpy as np
import pytest

from support.animation import animate, frames_of, info_of, made_once, recording, text_of_refusal
from support.pictures import encode, gradient, mean_difference

STEPS = 10
REQUEST = {"steps": STEPS, "negative_prompt": "bad", "prompt": "a cat"}
CHOICES = ["Fast", "Fast (deep blocks)", "Fast (negative prompt)"]
HIRES = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Lanczos", "denoising_strength": 0.9, "hr_second_pass_steps": 10}


@pytest.fixture(scope="module")
def frames(host):
    """Returns the frames of a request; those of an equal one are the ones made before."""
    return made_once(host.txt2img)


def request_for(speed="Fast", family="v3", **args):
    return {**REQUEST, **animate(family, speed=speed, **args)}


def rows_of_runs(host, **request):
    """Returns the rows of the UNet calls of each step, for each run of a sampler."""
    with recording(host) as record:
        frames_of(host.txt2img(**request))
    return [[[call["rows"] for call in step["unet_calls"]] for step in run["denoiser_calls"]] for run in record["sampler_runs"]]


def alternating(full, light, steps=STEPS):
    return [light if step % 2 and step < steps - 1 else full for step in range(steps)]


@pytest.mark.parametrize(
    ("speed", "prompt", "full", "light"),
    [
        ("Exact", "a cat", [8], [8]),
        ("Fast", "a cat", [8], [4]),
        ("Fast (negative prompt)", "a cat", [8], [4]),
        ("Fast (deep blocks)", "a cat", [8], [8]),
        ("Fast", "a cat AND a dog", [12], [8]),
    ],
)
def test_the_rows_of_full_and_light_steps(host, speed, prompt, full, light):
    (found,) = rows_of_runs(host, **{**request_for(speed), "prompt": prompt})
    assert found == alternating(full, light)


@pytest.mark.not_on(("Neo",), "it has no setting for it")
def test_the_negative_prompt_in_a_call_of_its_own_is_left_out(host):
    (found,) = rows_of_runs(host, **request_for(), override_settings={"batch_cond_uncond": False})
    assert found in (alternating([4, 4], [4]), alternating([8], [4])), "Forge and reForge have no such setting"


@pytest.mark.parametrize("mode", ["whole UNet", "motion attention"])
@pytest.mark.parametrize("speed", CHOICES)
def test_a_long_clip_is_like_the_exact_one(host, frames, speed, mode):
    windows = {"video_length": 6, "batch_size": 4, "overlap": 1, "context_mode": mode}
    exact, other = (frames(**{**request_for("Exact", **windows), "seed": seed}) for seed in (1, 7))
    fast, again = (frames_of(host.txt2img(**request_for(speed, **windows))) for _ in range(2))
    assert np.array_equal(fast, again)
    assert 0 < mean_difference(fast, exact) < mean_difference(other, exact) / 2


@pytest.mark.parametrize("family", ["v1", "v2", "v3"])
def test_the_clip_is_like_the_exact_one(frames, family):
    exact, fast = (frames(**request_for(speed, family)) for speed in ("Exact", "Fast"))
    other = frames(**{**request_for("Exact", family), "seed": 7})
    assert 0 < mean_difference(fast, exact) < mean_difference(other, exact) / 2


def test_every_pass_begins_with_a_full_step(host):
    first, second = rows_of_runs(host, **{**request_for(), **HIRES})
    assert first == alternating([8], [4]) and second == alternating([8], [4], len(second))
    rounds = rows_of_runs(host, **request_for(freeinit_enable=True, freeinit_iters=2))
    assert rounds == [alternating([8], [4])] * 2


def test_a_pass_of_few_steps_has_no_light_ones(host):
    first, second = rows_of_runs(host, **{**request_for(), **HIRES, "hr_second_pass_steps": 6, "denoising_strength": 0.99})
    assert first == alternating([8], [4]) and second == [[8]] * len(second)


@pytest.mark.webui_only("the embedded host has no samplers of the second order")
def test_the_last_call_of_a_sampler_of_the_second_order_is_full(host):
    (found,) = rows_of_runs(host, **{**request_for(speed_every=3), "sampler_name": "DPM2"})
    calls = 2 * STEPS - 1
    assert found == [[4] if call % 3 and call < calls - 1 else [8] for call in range(calls)]


@pytest.mark.parametrize("sampler", ["Heun", "Restart"])
def test_samplers_that_go_back_and_forth_are_refused(host, sampler):
    answer = host.txt2img(**{**request_for(), "sampler_name": sampler})
    assert f"does not work with the sampler {sampler}" in text_of_refusal(answer)


def test_img2img(host):
    picture = {"init_images": [encode(gradient())], "denoising_strength": 0.9}
    exact, fast = (frames_of(host.img2img(**request_for(speed), **picture)) for speed in ("Exact", "Fast"))
    assert 0 < mean_difference(fast, exact) < mean_difference(exact, np.stack([gradient()] * 4))


def test_afterwards_an_exact_clip_has_the_same_bits(host):
    exact = frames_of(host.txt2img(**request_for("Exact")))
    frames_of(host.txt2img(**request_for()))
    assert np.array_equal(frames_of(host.txt2img(**request_for("Exact"))), exact)


def test_settings_come_back_from_the_file(host):
    text = info_of(host.txt2img(**request_for("Fast (deep blocks)", speed_every=3)))["infotexts"][0]
    assert "speed: Fast (deep blocks), speed_every: 3" in text


def test_few_steps_are_refused(host):
    answer = host.txt2img(**{**request_for(), "steps": 9})
    assert "needs at least 10 steps, but this request has 9" in text_of_refusal(answer)
