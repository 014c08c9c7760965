"""Long videos, in several context windows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from support.animation import animate, difference, files_of, frames_of, info_of, made_once, recording, unet_calls
from support.pictures import encode, gradient, mean_difference

EVEN = {"closed_loop": "N", "context_schedule": "static", "fuse_method": "flat"}


@pytest.fixture(scope="module")
def from_text(host):
    return made_once(host.txt2img)


def rows_of(host, method, **request):
    with recording(host) as record:
        frames = frames_of(method(**request))
    assert record["stray_unet_calls"] == []
    return frames, [[call["rows"] for call in unet_calls(run)] for run in record["sampler_runs"]]


def test_windows_without_overlap_equal_separate_videos(host):
    request = {"sampler_name": "DDIM", "steps": 3, "negative_prompt": "bad"}
    long = frames_of(host.txt2img(**animate(video_length=8, batch_size=4, overlap=0, **EVEN), **request, seed=5))
    for first, seed in ((0, 5), (4, 9)):
        alone = frames_of(host.txt2img(**animate(video_length=4), **request, seed=seed))
        assert difference(long[first : first + 4], alone) <= 1


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M", "Heun", "DDIM"])
def test_each_window_is_one_unet_call_per_step(host, sampler):
    windows = animate(video_length=6, batch_size=4, overlap=1, **EVEN)
    _, (rows,) = rows_of(host, host.txt2img, **windows, sampler_name=sampler, steps=2)
    assert len(rows) % 2 == 0 and set(rows) == {8}


def test_interrupt_is_noticed_between_two_windows(host):
    request = {**animate(video_length=10, batch_size=4, context_schedule="static"), "steps": 3, "sampler_name": "Euler"}
    with recording(host) as record:
        host.txt2img(**request)
    of_a_step = len(unet_calls(record["sampler_runs"][0])) // 3
    assert of_a_step > 1
    host.post("/probe/v1/interrupt-at", {"step": 2})
    with recording(host) as record:
        assert host.txt2img(**request).ok
    assert len(unet_calls(record["sampler_runs"][0])) == of_a_step


def test_windows_that_share_all_but_attention_take_one_unet_call_per_step(host):
    usual = {"video_length": 8, "batch_size": 4, "overlap": 0, **EVEN}
    request = {"sampler_name": "DDIM", "steps": 3}
    shared, (rows,) = rows_of(host, host.txt2img, **animate(**usual, context_mode="motion attention"), **request)
    assert rows == [16] * 3
    # without overlap, the windows share no frames in either mode
    assert difference(shared, frames_of(host.txt2img(**animate(**usual), **request))) <= 1


def test_frames_can_be_offloaded_to_ram_if_windows_share_all_but_attention(host):
    usual = {"video_length": 10, "batch_size": 4, "context_mode": "motion attention"}
    plain, waiting = (frames_of(host.txt2img(**animate(**usual, offload=on), steps=2)) for on in (False, True))
    assert difference(plain, waiting) <= 1


@pytest.mark.parametrize(
    ("family", "change", "word"), [("v1", {}, "normalises"), ("v3", {"first_frame_attention": 0.5}, "first_frame_attention")]
)
def test_frames_cannot_be_offloaded_if_a_layer_needs_all_of_them(host, family, change, word):
    usual = {"video_length": 10, "batch_size": 4, "context_mode": "motion attention", **change}
    answer = host.txt2img(**animate(family, **usual, offload=True), steps=1)
    assert answer.status_code == 422 and "RAM" in answer.json()["detail"] and word in answer.json()["detail"]
    assert len(frames_of(host.txt2img(**animate(family, **usual), steps=1))) == 10


def test_a_window_of_all_frames_equals_no_windows(host):
    whole = frames_of(host.txt2img(**animate(video_length=8)))
    window = frames_of(host.txt2img(**animate(video_length=8, batch_size=8, closed_loop="R+P", overlap=3, stride=4)))
    assert np.array_equal(whole, window)


@pytest.mark.parametrize("mode", ["whole UNet", "motion attention"])
def test_a_clip_of_one_window_loops_with_as_many_unet_calls(host, mode):
    """The window settings have no effect on it."""
    usual = {"video_length": 8, "context_mode": mode}
    open_ended, rows = rows_of(host, host.txt2img, **animate(**usual, closed_loop="N"))
    loop, rows_of_loop = rows_of(host, host.txt2img, **animate(**usual, closed_loop="A"))
    assert loop.shape == open_ended.shape and rows_of_loop == rows
    assert difference(loop, open_ended) > 5
    set_otherwise = {"overlap": 3, "stride": 4, "fuse_method": "flat", "context_schedule": "static", "batch_size": 8}
    assert np.array_equal(loop, frames_of(host.txt2img(**animate(closed_loop="A", video_length=8, **set_otherwise))))


@pytest.mark.parametrize(
    ("family", "args"), [("v1", {}), ("v3", {"first_frame_attention": 1.0}), ("v3", {"model_2": "mm_tiny_v2.safetensors"})]
)
def test_a_clip_of_one_window_loops_with_everything_that_sees_all_frames(host, family, args):
    usual = {"video_length": 6, **args}
    loop, open_ended = (frames_of(host.txt2img(**animate(family, **usual, closed_loop=how), steps=2)) for how in ("A", "N"))
    assert len(loop) == 6 and difference(loop, open_ended) > 5


def test_a_clip_of_one_window_that_loops_returns_to_the_picture_it_starts_from(host):
    request = {"init_images": [encode(gradient())], "denoising_strength": 0.8, "steps": 4}
    ramp = {"video_length": 6, "image_mode": "strength ramp", "ramp_length": 0.5}
    loop, still = (frames_of(host.img2img(**animate(**ramp, closed_loop=how), **request)) for how in ("A", "N"))
    assert len(loop) == 6 and mean_difference(loop[5], loop[0]) < 0.8 * mean_difference(still[5], still[0])


def test_the_default_window_has_the_motion_modules_trained_length(host):
    _, (rows,) = rows_of(host, host.txt2img, **animate(video_length=20), steps=1)
    assert set(rows) == {32}


def test_a_video_may_be_longer_than_the_modules_positional_encoding(host):
    frames, (rows,) = rows_of(host, host.txt2img, **animate("v1", video_length=40), steps=1)
    assert len(frames) == 40 and set(rows) == {32}
    answer = host.txt2img(**animate("v1", video_length=40, batch_size=40), steps=1)
    assert answer.status_code == 422 and "40 frames" in answer.json()["detail"]


@pytest.mark.parametrize("setting", ["closed_loop", "context_schedule", "fuse_method", "stride", "overlap", "context_mode"])
def test_every_window_setting_changes_the_video(from_text, setting):
    usual = {"video_length": 12, "batch_size": 4, "overlap": 1, **EVEN}
    other = {
        "closed_loop": "A", "context_schedule": "uniform", "fuse_method": "pyramid", "stride": 2, "overlap": 2,
        "context_mode": "motion attention",
    }[setting]  # fmt: skip
    request = {"steps": 3, "sampler_name": "DDIM"}
    plain = from_text(**animate(**usual), **request)
    assert difference(plain, from_text(**animate(**{**usual, setting: other}), **request)) > 1


def test_windows_work_with_img2img_hires_and_prompt_parts_and_several_videos(host):
    windows = {**animate(video_length=6, batch_size=4, overlap=1), "steps": 2}
    frames, (rows,) = rows_of(host, host.img2img, **windows, init_images=[encode(gradient())], denoising_strength=0.5)
    assert len(frames) == 6 and set(rows) == {8}
    hires = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent", "denoising_strength": 0.7}
    frames, runs = rows_of(host, host.txt2img, **windows, **hires)
    assert frames.shape[:3] == (6, 96, 96) and [set(rows) for rows in runs] == [{8}, {8}]
    parts, (rows,) = rows_of(host, host.txt2img, **windows, prompt="a cat AND a dog")
    assert len(parts) == 6 and set(rows) == {12}
    assert mean_difference(parts, frames_of(host.txt2img(**windows, prompt="a cat"))) > 1
    assert len(frames_of(host.txt2img(**windows, n_iter=2))) == 12


def test_an_image_made_afterwards_is_unaffected(host):
    def picture():
        return frames_of(host.txt2img())

    before = picture()
    assert len(frames_of(host.txt2img(**animate(video_length=6, batch_size=4)))) == 6
    assert np.array_equal(picture(), before)


def test_windows_are_in_the_infotext(host):
    answer = host.txt2img(**animate(video_length=10, batch_size=6, overlap=2, closed_loop="N", format=["GIF"]), steps=1)
    assert files_of(answer)[0].n_frames == 10
    text = info_of(answer)["infotexts"][0]
    assert all(part in text for part in ("video_length: 10", "batch_size: 6", "overlap: 2", "closed_loop: N"))


def test_the_answer_reports_the_change_between_the_frames_of_a_long_video(host):
    answer = host.txt2img(**animate(video_length=12, batch_size=8, overlap=2, **EVEN))
    frames = frames_of(answer).astype(float)
    (seams,) = info_of(answer)["extra_generation_params"]["AnimateDiff seams"]
    assert seams["borders"] == [4]
    assert seams["steps"] == pytest.approx([np.abs(b - a).mean() for a, b in pairwise(frames)], abs=0.01)
    assert seams["closing"] == pytest.approx(np.abs(frames[0] - frames[-1]).mean(), abs=0.01)
    assert "AnimateDiff seams" not in info_of(host.txt2img(**animate(), steps=1))["extra_generation_params"]


def test_the_infotext_of_a_video_in_windows_has_their_defaults(host):
    def said(frames):
        return info_of(host.txt2img(**animate(video_length=frames, format=["GIF"]), steps=1))["infotexts"][0]

    assert "batch_size: 16" in said(17) and "batch_size" not in said(16)


# --- initial noise ---


def seeds_of(host, mode, frames=4, **args):
    """Returns the frames, and the seeds from which the WebUI drew their noise."""
    request = animate(video_length=frames, noise_type=mode, motion_effect=0.0, format=["Frame"], **args)
    answer = host.txt2img(**request, seed=50, sampler_name="DDIM", steps=3)
    return frames_of(answer), info_of(answer)["all_seeds"]


def test_frames_with_one_seed_are_equal_without_motion(host):
    frames, seeds = seeds_of(host, "constant")
    assert seeds == [50] * 4 and all(np.array_equal(frame, frames[0]) for frame in frames)
    own, seeds = seeds_of(host, "per frame")
    assert seeds == [*range(50, 54)] and np.array_equal(own[0], frames[0]) and mean_difference(own[1:2], own[:1]) > 1


def test_later_windows_repeat_the_first_windows_noise_in_order_or_shuffled(host):
    frames, seeds = seeds_of(host, "repeated context", frames=12, batch_size=4, overlap=0)
    assert seeds == [50, 51, 52, 53] * 3 and np.array_equal(frames[4:8], frames[:4])
    _, seeds = seeds_of(host, "FreeNoise", frames=20, batch_size=4, overlap=0)
    assert seeds[:4] == [50, 51, 52, 53] and seeds != [50, 51, 52, 53] * 5
    assert all(sorted(seeds[start : start + 4]) == seeds[:4] for start in range(0, 20, 4))


def test_mixed_noise_is_between_a_frames_own_and_the_first_frames(host):
    own, shared = seeds_of(host, "per frame")[0], seeds_of(host, "constant")[0]
    assert difference(seeds_of(host, "mixed", noise_share=0)[0], own) == 0
    assert difference(seeds_of(host, "mixed", noise_share=1)[0], shared) <= 1
    mixed = seeds_of(host, "mixed")[0][1:]
    assert mean_difference(mixed, own[1:]) > 1 and mean_difference(mixed, shared[1:]) > 1


def test_the_webuis_variation_strength_is_unaffected(host):
    def varied():
        return frames_of(host.txt2img(subseed=3, subseed_strength=0.4))

    before = varied()
    seeds_of(host, "mixed")
    assert np.array_equal(varied(), before) and not np.array_equal(before, frames_of(host.txt2img()))


def test_each_of_several_videos_has_its_own_noise(host):
    answer = host.txt2img(**animate(video_length=3, noise_type="constant"), n_iter=2, seed=50, steps=1)
    assert info_of(answer)["all_seeds"] == [50] * 3 + [53] * 3
