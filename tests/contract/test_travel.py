"""Prompt travel: prompts that change along the frames."""

from __future__ import annotations

import numpy as np
import pytest

from support.animation import LONG, animate, difference, frames_of, info_of, recording
from support.pictures import mean_difference

STILLS = {"motion_effect": 0.0}
"""Without motion, a frame depends only on its own seed and prompt."""
TRAVEL = "0: a cat\n6: a dog"


def stills(host, prompt, frames=8, **request):
    return frames_of(host.txt2img(**animate(video_length=frames, **STILLS), prompt=prompt, **request))


def test_frames_at_keyframes_follow_their_prompts_and_frames_between_are_blends(host):
    travelled, cat, dog = (stills(host, prompt) for prompt in (TRAVEL, "a cat", "a dog"))
    assert np.array_equal(travelled[0], cat[0])
    assert np.array_equal(travelled[6:], dog[6:])
    assert all(mean_difference(travelled[3:4], other[3:4]) > 1 for other in (cat, dog))


def test_motion_and_windows_apply_to_a_prompt_travel(host):
    windows = animate(video_length=12, batch_size=8, overlap=2)
    travelled, cat = (frames_of(host.txt2img(**windows, prompt=prompt)) for prompt in (TRAVEL, "a cat"))
    assert len(travelled) == 12 and mean_difference(travelled, cat) > 1


def test_prompt_editing_prompt_parts_and_hires_still_apply(host):
    edited = "0: [cat:dog:0.5]\n7: bird"
    assert np.array_equal(stills(host, edited)[0], stills(host, "[cat:dog:0.5]")[0])
    parts = stills(host, "a\n0: x AND y\n7: x AND z")
    assert np.array_equal(parts[0], stills(host, "a, x AND y")[0]) and np.array_equal(parts[7], stills(host, "a, x AND z")[7])
    hires = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent", "denoising_strength": 0.7}
    assert np.array_equal(stills(host, TRAVEL, **hires)[7], stills(host, "a dog", **hires)[7])


@pytest.mark.parametrize("place", ["{}\n0: a cat\n6: a dog", "0: a cat\n6: a dog {}", "0: a cat\n6: a dog\n{}"])
def test_a_lora_applies_to_all_frames_wherever_it_is_in_the_prompt(host, place):
    with_lora = stills(host, place.format("<lora:lora_tiny:1>"))
    assert difference(with_lora[:1], stills(host, "a cat <lora:lora_tiny:1>")[:1]) <= 1 or place.startswith("{}")
    assert mean_difference(with_lora[:1], stills(host, TRAVEL)[:1]) > 3
    assert mean_difference(with_lora[7:], stills(host, TRAVEL)[7:]) > 3


def test_at_a_cfg_scale_of_1_no_negative_prompt_matters(host):
    """But for rounding: the WebUI adds the distance from the negative prompt to it."""
    prompts = "0: bad\n7: worse", "other"
    travelled, other = (stills(host, "a cat", negative_prompt=negative, cfg_scale=1) for negative in prompts)
    assert difference(travelled, other) <= 1
    travelled, other = (stills(host, "a cat", negative_prompt=negative) for negative in prompts)
    assert difference(travelled, other) >= 10


def test_the_negative_prompt_travels_too_at_any_length(host):
    travelled = stills(host, "a cat", negative_prompt="0: bad\n7: worse")
    assert np.array_equal(travelled[0], stills(host, "a cat", negative_prompt="bad")[0])
    assert np.array_equal(travelled[7], stills(host, "a cat", negative_prompt="worse")[7])
    unequal = stills(host, "a cat", negative_prompt=f"0: bad\n7: {LONG}")
    assert np.array_equal(unequal[7], stills(host, "a cat", negative_prompt=LONG)[7])


def test_only_loops_that_include_prompts_return_to_the_first_keyframe(host):
    open_end = stills(host, TRAVEL)
    for closed_loop, goes_back in (("R-P", False), ("R+P", True), ("A", True)):
        frames = frames_of(host.txt2img(**animate(video_length=8, **STILLS, closed_loop=closed_loop), prompt=TRAVEL))
        assert np.array_equal(frames[7], open_end[7]) != goes_back


def test_linear_and_spherical_interpolation_differ_only_between_keyframes(host):
    arc = stills(host, TRAVEL)
    line = frames_of(host.txt2img(**animate(video_length=8, **STILLS, prompt_interpolation="lerp"), prompt=TRAVEL))
    assert np.array_equal(arc[0], line[0]) and not np.array_equal(arc[3], line[3])


def test_a_keyframe_outside_the_video_is_refused_before_any_step(host):
    with recording(host) as record:
        answer = host.txt2img(**animate(video_length=8), prompt="0: a cat\n8: a dog")
    assert answer.status_code == 422 and "“8: a dog”" in answer.json()["detail"] and "0 to 7" in answer.json()["detail"]
    assert record["sampler_runs"] == [] and record["text_encoder_forwards"] == 0
    assert host.txt2img().ok


def test_the_infotext_has_the_prompt_as_typed(host):
    info = info_of(host.txt2img(**animate(video_length=8), prompt=TRAVEL, steps=1))
    assert info["prompt"] == TRAVEL and info["infotexts"][0].startswith(TRAVEL)


def test_words_that_other_extensions_add_are_for_all_frames(host):
    infotext = f"oil, \n{TRAVEL}\n, sharp"
    expected = stills(host, infotext)
    for at, prompt_of_infotext in (("process", infotext), ("before_process_batch", TRAVEL)):
        host.post("/probe/v1/added-words", {"at": at, "before": "oil, ", "after": ", sharp"})
        try:
            answer = host.txt2img(**animate(video_length=8, **STILLS), prompt=TRAVEL)
        finally:
            host.post("/probe/v1/added-words", {})
        assert np.array_equal(frames_of(answer), expected) and info_of(answer)["prompt"] == prompt_of_infotext
    assert np.array_equal(expected[6:], stills(host, "oil, a dog, sharp")[6:])


def warnings_of(answer):
    return "\n".join(info_of(answer)["extra_generation_params"].get("AnimateDiff warnings", []))


def test_keyframes_of_other_tools_are_read_and_what_only_looks_like_one_is_said(host):
    answer = host.txt2img(**animate(video_length=8, **STILLS), prompt='{\n"0": "a cat",\n"6": "a dog"\n}')
    assert np.array_equal(frames_of(answer), stills(host, TRAVEL)) and not warnings_of(answer)
    joined = host.txt2img(**animate(), prompt="a cat 0: asleep 3: awake", negative_prompt="frame 0: bad", steps=1)
    for words in ("The line “a cat 0: asleep 3: awake” has “0:” in its middle", "The line “frame 0: bad” looks like"):
        assert words in warnings_of(joined)


def test_a_keyframe_of_4400_digits_is_refused(host):
    answer = host.txt2img(**animate(), prompt=f"{'9' * 4400}: x")
    assert answer.status_code == 422 and "is outside the video" in answer.json()["detail"]
    assert len(answer.json()["detail"]) < 300
