"""Interrupted long videos: the same request resumes and makes the same frames."""

from __future__ import annotations

import re
import threading
import time

import numpy as np
import pytest
import requests

from support.animation import animate, frames_of, info_of, recording, unet_calls
from support.pictures import encode, gradient
from support.server import PROBE, REPOSITORY

STEPS = 8
EVEN = {"overlap": 0, "closed_loop": "N", "context_schedule": "static"}
LONG = {
    **animate(video_length=8, batch_size=4, **EVEN),
    "steps": STEPS,
    "negative_prompt": "bad",
    "prompt": "[a cat:a dog:4], AND red",
}
HIRES = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Lanczos", "denoising_strength": 0.7, "hr_second_pass_steps": 10}
WENT_ON = "AnimateDiff went on after"


@pytest.fixture(scope="module")
def host_on_a_folder(start_host, tmp_path_factory):
    """Returns the host that runs on a folder of its own. Starts one at first, and whenever the last was killed."""
    folder, hosts = tmp_path_factory.mktemp("data"), []

    def running():
        if not hosts or not hosts[-1].is_running:
            hosts.append(start_host(data_dir=folder, extensions=[REPOSITORY, PROBE]))
        return hosts[-1]

    yield running
    hosts[-1].stop()


def kill_in_step(host, step, ask, **request):
    """Kills a host as soon as it reports this step or a later one."""

    def asking():
        with pytest.raises(requests.ConnectionError):
            ask(**request)

    job = threading.Thread(target=asking)
    job.start()
    end = time.monotonic() + 300
    while time.monotonic() < end:
        words = host.get("/sdapi/v1/progress?skip_current_image=true").json()["textinfo"] or ""
        if (found := re.search(r"step (\d+) of", words)) and int(found[1]) >= step:
            break
        time.sleep(0.01)
    host.kill()
    job.join()


def videos(host):
    return host.get("/animatediff/v1/unfinished").json()


def calls_of(record):
    return [len(unet_calls(run)) for run in record["sampler_runs"]]


def resumed(host, ask, **request):
    """Returns the answer, its frames, and the number of UNet calls of each sampler run."""
    with recording(host) as record:
        answer = ask(**request)
    return answer, frames_of(answer), calls_of(record)


SDE = pytest.param("DPM++ 2M SDE", marks=pytest.mark.webui_only("the embedded host has no SDE samplers"))


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M", SDE])
def test_a_killed_video_resumes_with_the_same_frames(host_on_a_folder, sampler):
    request = {**LONG, "sampler_name": sampler}
    first = host_on_a_folder()
    whole, expected, (calls,) = resumed(first, first.txt2img, **request)
    assert videos(first) == [] and WENT_ON not in info_of(whole)["extra_generation_params"]
    kill_in_step(first, 4, first.txt2img, **request)

    second = host_on_a_folder()
    (left,) = videos(second)
    done = int(re.fullmatch(rf"step (\d+) of {STEPS}", left["done"])[1])
    assert done >= 3 and left["tab"] == "txt2img" and left["infotext"].startswith(f"{LONG['prompt']}\n")
    answer, frames, (calls_after,) = resumed(second, second.txt2img, **request)
    assert np.array_equal(frames, expected)
    # each window of a step is one call; the first step is computed again, to check that nothing has changed
    assert calls_after == calls * (STEPS - done + 1) // STEPS
    assert info_of(answer)["extra_generation_params"][WENT_ON] == f"step {done} of {STEPS}"
    assert videos(second) == []
    assert info_of(answer)["infotexts"] == info_of(whole)["infotexts"]


def test_the_hires_pass_resumes(host_on_a_folder):
    """Its latents come from an encoder that draws noise, which must be the same in both processes."""
    request = {**LONG, **HIRES, "steps": 2}
    first = host_on_a_folder()
    _, expected, (of_first, of_hires) = resumed(first, first.txt2img, **request)
    kill_in_step(first, 4, first.txt2img, **request)

    second = host_on_a_folder()
    assert videos(second)[0]["done"].endswith("of 10, hires pass")
    answer, frames, calls = resumed(second, second.txt2img, **request)
    assert np.array_equal(frames, expected)
    assert calls[0] == of_first // 2 and calls[1] < of_hires
    assert "hires pass" in info_of(answer)["extra_generation_params"][WENT_ON]


@pytest.fixture
def cut_off(host):
    """Makes a request fail in the middle, as running out of memory would."""

    def cut_off(ask, step=6, **request):
        host.post("/probe/v1/fault", {"step": step})
        answer = ask(**request)
        host.post("/probe/v1/fault", {"step": None})
        assert answer.status_code == 500

    yield cut_off
    for video in videos(host):
        host.delete(f"/animatediff/v1/unfinished/{video['key']}")


SHORT = {**animate(video_length=4, batch_size=2, **EVEN), "steps": 6, "negative_prompt": "bad"}


def test_img2img_resumes_after_an_error(host, cut_off):
    request = {**SHORT, "init_images": [encode(gradient(128))], "denoising_strength": 0.9}
    _, expected, (calls,) = resumed(host, host.img2img, **request)
    cut_off(host.img2img, **request)
    assert videos(host)[0]["tab"] == "img2img"
    _, frames, (calls_after,) = resumed(host, host.img2img, **request)
    assert np.array_equal(frames, expected) and calls_after < calls


@pytest.mark.parametrize("calls", [11, 14])
def test_a_clip_with_light_steps_resumes(host, cut_off, calls):
    """After a full step and after a light one: what a light step takes from a full one is not on the disk."""
    request = {**animate(video_length=8, batch_size=4, overlap=1, speed="Fast"), "steps": 10, "negative_prompt": "bad"}
    _, expected, _ = resumed(host, host.txt2img, **request)
    cut_off(host.txt2img, step=calls, **request)
    answer, frames, _ = resumed(host, host.txt2img, **request)
    assert np.array_equal(frames, expected)
    done = info_of(answer)["extra_generation_params"][WENT_ON]
    assert done == f"step {(calls - 1) // 3} of 10", "a step has a call for each of three windows"


def test_another_init_image_does_not_resume(host, cut_off):
    request = {**SHORT, "denoising_strength": 0.9}
    pictures = [encode(gradient(128)), encode(gradient(128).transpose(1, 0, 2))]
    _, expected, (calls,) = resumed(host, host.img2img, **request, init_images=pictures[1:])
    cut_off(host.img2img, **request, init_images=pictures[:1])
    answer, frames, (calls_after,) = resumed(host, host.img2img, **request, init_images=pictures[1:])
    assert np.array_equal(frames, expected) and calls_after == calls
    assert WENT_ON not in info_of(answer)["extra_generation_params"]


def test_another_motion_mask_does_not_resume(host, cut_off):
    one, other = (
        {**SHORT, **animate(video_length=4, batch_size=2, **EVEN, motion_mask=encode(gradient(shift=shift)))}
        for shift in (0, 32)
    )
    _, expected, (calls,) = resumed(host, host.txt2img, **other)
    cut_off(host.txt2img, **one)
    answer, frames, (calls_after,) = resumed(host, host.txt2img, **other)
    assert np.array_equal(frames, expected) and calls_after == calls
    assert WENT_ON not in info_of(answer)["extra_generation_params"]
    assert len(videos(host)) == 1, "that of the other mask is still stored"


@pytest.mark.webui_only("the embedded host does not inpaint")
def test_a_motion_mask_does_not_resume_a_clip_with_the_same_picture_as_mask(host, cut_off):
    picture = encode(gradient()[..., 0])
    request = {**animate(video_length=4, batch_size=2, **EVEN), "steps": STEPS, "init_images": [encode(gradient())]}
    cut_off(host.img2img, **request, mask=picture)
    resumed(host, host.img2img, **{**request, **animate(video_length=4, batch_size=2, **EVEN, motion_mask=picture)})
    assert len(videos(host)) == 1, "that of the other request is still stored"


def test_freeinit_iterations_and_several_videos_resume(host, cut_off):
    request = {**animate(freeinit_enable=True, freeinit_iters=2, video_length=4), "n_iter": 2, "steps": 4}
    _, expected, calls = resumed(host, host.txt2img, **request)
    assert calls == [4] * 4
    cut_off(host.txt2img, step=14, **request)
    answer, frames, calls = resumed(host, host.txt2img, **request)
    assert np.array_equal(frames, expected) and calls == [1, 0, 0, 3]
    where = info_of(answer)["extra_generation_params"][WENT_ON]
    assert where == "step 1 of 4, round 2 of 2, video 2 of 2"


def test_another_schedule_replaces_the_unfinished_video(host, cut_off):
    """The two requests are equal only in their first step."""
    request = {**SHORT, "sampler_name": "DPM++ 2M"}
    _, expected, calls = resumed(host, host.txt2img, **request, scheduler="Exponential")
    cut_off(host.txt2img, **request)
    _, frames, calls_after = resumed(host, host.txt2img, **request, scheduler="Exponential")
    assert np.array_equal(frames, expected) and calls_after == calls and videos(host) == []


OTHERS = [{"cfg_scale": 6}, {"seed": 2}, {"prompt": "a dog"}, {"sampler_name": "Euler"}, {"steps": 7}]


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_another_request_does_not_resume(host, cut_off, other):
    cut_off(host.txt2img, **SHORT)
    request = {**SHORT, **other}
    answer, _, (calls,) = resumed(host, host.txt2img, **request)
    assert calls == request["steps"] * 2 and WENT_ON not in info_of(answer)["extra_generation_params"]
    assert len(videos(host)) == 1, "the other request's video is still stored"


NO_PROMPT = "the embedded host's hires pass has the prompt of the first"
OTHER_HIRES = [
    {"hr_scale": 2},
    *(pytest.param({name: "a dog"}, marks=pytest.mark.webui_only(NO_PROMPT)) for name in ("hr_prompt", "hr_negative_prompt")),
]


@pytest.mark.parametrize("other", OTHER_HIRES, ids=str)
def test_another_hires_pass_does_not_resume(host, cut_off, other):
    request = {**SHORT, **HIRES, "steps": 2, "hr_second_pass_steps": 2}
    cut_off(host.txt2img, step=7, **request)
    (left,) = videos(host)
    assert "hires pass" in left["done"]
    assert host.txt2img(**{**request, **other}).ok and videos(host) == [left]
    answer, _, (of_first, _) = resumed(host, host.txt2img, **request)
    assert of_first == 2, "the first step of the first pass is computed again, to check that nothing has changed"
    assert WENT_ON in info_of(answer)["extra_generation_params"] and videos(host) == []


def test_an_interrupted_video_counts_as_finished(host):
    host.post("/probe/v1/interrupt-at", {"step": 3})
    assert host.txt2img(**SHORT).ok and videos(host) == []


def test_short_videos_and_images_are_not_stored(host, cut_off):
    cut_off(host.txt2img, **animate(), steps=6)
    cut_off(host.txt2img, steps=6)
    assert videos(host) == []


def test_nothing_is_stored_if_the_setting_is_off(host, cut_off):
    cut_off(host.txt2img, **SHORT, override_settings={"animatediff_keep_unfinished": False})
    assert videos(host) == []


def test_an_unfinished_video_can_be_deleted(host, cut_off):
    cut_off(host.txt2img, **SHORT)
    (video,) = videos(host)
    assert video["bytes"] > 0 and abs(video["time"] - time.time()) < 60
    for key in ("0" * 32, "..%2F..%2Foutputs", video["key"][:-1]):
        assert host.delete(f"/animatediff/v1/unfinished/{key}").status_code == 404
    assert host.delete(f"/animatediff/v1/unfinished/{video['key']}").ok and videos(host) == []
