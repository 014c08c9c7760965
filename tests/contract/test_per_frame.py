"""Schedules per frame: motion scale, motion effect, CFG scale and denoising strength of single frames."""

from __future__ import annotations

import numpy as np
import pytest

from support.animation import LONG, animate, difference, frames_of, info_of, made_once, recording, text_of_refusal
from support.pictures import encode, gradient, mean_difference

STILLS = {"motion_effect": 0.0}
"""Without motion, a frame depends only on its own seed, prompt and numbers."""
HIRES = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent", "denoising_strength": 0.7}
WINDOWS = {"batch_size": 4, "overlap": 2}
WAYS = {
    "one window": ({}, {}),
    "windows of the UNet": (WINDOWS, {}),
    "windows of the attention": ({**WINDOWS, "context_mode": "motion attention"}, {}),
    "hires": ({}, HIRES),
    "AND": ({}, {"prompt": "a cat AND a dog :0.6"}),
    "unequal prompts": ({}, {"prompt": LONG}),
    "AND in windows, unequal": (WINDOWS, {"prompt": f"{LONG} AND a dog", "negative_prompt": "bad"}),
    "DDIM": ({}, {"sampler_name": "DDIM"}),
}
"""The parameters and the request of clips in which rows are frames in different ways."""
PICTURE = encode(gradient())


@pytest.fixture(scope="module")
def clip(host):
    make = made_once(host.txt2img)
    return lambda args, **request: make(**animate(video_length=6, **args), **request)


@pytest.fixture(scope="module")
def from_picture(host):
    make = made_once(host.img2img)

    def frames(args, **request):
        asked = {"init_images": [PICTURE], "steps": 8, "sampler_name": "Euler", **request}
        return make(**animate(video_length=6, **{**STILLS, **args}), **asked)

    return frames


@pytest.mark.parametrize("way", WAYS)
def test_frames_without_motion_effect_are_stills_among_the_others(clip, way):
    args, request = WAYS[way]
    still, moving = clip({**args, **STILLS}, **request), clip(args, **request)
    mixed = clip({**args, "motion_effect_frames": "0-1: 1\n2-3: 0\n4: 1"}, **request)
    assert difference(mixed[2:4], still[2:4]) == 0
    for frame in (0, 1, 4, 5):
        assert mean_difference(mixed[frame], still[frame]) > 1
    assert difference(clip({**args, "motion_effect_frames": "0: 1"}, **request), moving) == 0


def test_motion_scales_of_frames_act(clip):
    plain, half, mixed = clip({}), clip({"motion_scale": 0.25}), clip({"motion_scale_frames": "0-2: 1\n3: 0.25"})
    assert min(mean_difference(mixed, other) for other in (plain, half)) > 0.1
    assert difference(clip({"motion_scale_frames": "0: 0.25", "motion_scale": 3}), half) == 0
    ruled = {"motion_rules": "all: scale 0.25"}
    assert difference(clip({"motion_scale_frames": "0-2: 1\n3: 3", **ruled}), half) == 0


def guided(scale):
    """Returns the CFG scale of a request, and that of the hires pass, which some WebUIs have apart."""
    return {"cfg_scale": scale, "hr_cfg": scale}


@pytest.mark.parametrize("way", WAYS)
def test_each_frame_is_guided_by_its_own_cfg_scale(clip, way):
    args, request = WAYS[way]
    mixed = clip({**args, **STILLS, "cfg_scale_frames": "0-1: 7, 3: 3, 5: 0.5"}, **guided(5), **request)
    for scale, frames in ((7, (0, 1)), (1.75, (4,)), (0.5, (5,))):
        alike = clip({**args, **STILLS}, **guided(scale), **request)
        for frame in frames:
            assert difference(mixed[frame], alike[frame]) == 0, (scale, frame)
    assert mean_difference(mixed[0], mixed[5]) > 1


def test_a_cfg_scale_of_1_leaves_other_frames_their_negative_prompt(clip):
    schedule = {**STILLS, "cfg_scale_frames": "0-2: 1, 3: 4"}
    request = {"negative_prompt": "a dog", "prompt": "a cat"}
    mixed = clip(schedule, cfg_scale=1, **request)
    assert difference(mixed[3:], clip(STILLS, cfg_scale=4, **request)[3:]) == 0
    assert difference(mixed[:3], clip(STILLS, cfg_scale=1, **request)[:3]) == 0


def test_steps_without_negative_prompt_stay_so(clip):
    skipping = {"override_settings": {"s_min_uncond_all": True}, "s_min_uncond": 2.0}
    mixed = clip({**STILLS, "cfg_scale_frames": "0-2: 7, 3: 2"}, **skipping)
    for scale, frames in ((7, slice(0, 3)), (2, slice(3, 6))):
        assert difference(mixed[frames], clip(STILLS, cfg_scale=scale, **skipping)[frames]) == 0


def test_one_cfg_scale_for_all_frames_is_that_of_the_webui(clip):
    assert difference(clip({"cfg_scale_frames": "0: 4"}, cfg_scale=9), clip({}, cfg_scale=4)) == 0


LORA = "lora_tiny"
LORA_WAYS = {name: way for name, way in WAYS.items() if "unequal" not in name}


@pytest.mark.parametrize("way", LORA_WAYS)
def test_each_frame_has_its_own_strength_of_a_lora(clip, way):
    """The LoRA is an ordinary one, without a part for the text encoder."""
    args, request = LORA_WAYS[way]
    prompt = request.get("prompt", "a cat")

    def frames(strengths):
        return clip({**args, **STILLS}, **{**request, "prompt": f"{prompt} <lora:{LORA}:{strengths}>" if strengths else prompt})

    mixed, without, whole, half = frames("0-1: 1, 2-3: 0, 5: 1"), frames(""), frames("1"), frames("0.5")
    assert difference(mixed[2:4], without[2:4]) <= 1
    for frame, alike in ((0, whole), (1, whole), (4, half), (5, whole)):
        assert difference(mixed[frame], alike[frame]) <= 1, frame
        assert mean_difference(mixed[frame], without[frame]) > 1


def test_a_lora_in_the_hires_prompt_has_strengths_of_its_own(clip):
    def frames(strengths):
        return clip(STILLS, **HIRES, prompt="a cat", hr_prompt=f"a cat <lora:{LORA}:{strengths}>")

    mixed = frames("0-2: 0, 3: 1")
    assert difference(mixed[:3], frames("0")[:3]) <= 1 and difference(mixed[3:], frames("1")[3:]) <= 1


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        (f"{LORA}:0: 1, 6: 0", ["<lora:lora_tiny:0: 1, 6: 0>: The keyframe “6: 0” is outside the video"]),
        (f"{LORA}:0: 1, x", ["<lora:lora_tiny:0: 1, x>: The line “x” cannot be read"]),
        ("nowhere:0: 1, 5: 0", ["There is no LoRA of this name: <lora:nowhere:0: 1, 5: 0>"]),
    ],
)
def test_a_lora_whose_schedule_cannot_be_met_is_refused_before_any_step(host, tag, words):
    with recording(host) as record:
        text = text_of_refusal(host.txt2img(**animate(video_length=6), prompt=f"a cat <lora:{tag}>"))
    assert all(word in text for word in words), text
    assert record["sampler_runs"] == [] and record["text_encoder_forwards"] == 0


@pytest.mark.parametrize("args", [{}, WINDOWS], ids=["one window", "windows"])
def test_each_frame_has_its_own_denoising_strength(from_picture, args):
    """A frame enters at the step of its strength, as if all frames had that strength. At 0 it stays the picture."""
    mixed = from_picture({**args, "denoising_strength_frames": "0: 0, 1: 0.25, 2: 0.5, 5: 0.8"}, denoising_strength=0.3)
    plain = {"image_mode": "strength ramp", "ramp_length": 0.0, **args}
    for frame, strength in ((1, 0.25), (2, 0.5), (3, 0.6), (4, 0.7), (5, 0.8)):
        alike = from_picture(plain, denoising_strength=strength)
        assert difference(mixed[frame], alike[frame]) <= 1, frame
    faint = from_picture({"image_mode": "strength ramp"}, denoising_strength=0.9)
    assert difference(mixed[0], faint[0]) <= 1
    assert mean_difference(mixed[5], mixed[0]) > 10


def test_equal_strengths_are_the_plain_run(from_picture):
    plain = from_picture({"image_mode": "strength ramp", "ramp_length": 0.0}, denoising_strength=0.6)
    equal = from_picture({"denoising_strength_frames": "0: 0.6\n5: 0.6"}, denoising_strength=0.2)
    assert difference(equal, plain) <= 1  # the WebUI encodes pictures with unseeded noise


def test_frames_of_a_list_have_their_strengths_too(from_picture):
    pictures = [encode(gradient(shift=9 * shift)) for shift in range(6)]
    mixed = from_picture({"denoising_strength_frames": "0-2: 0\n3: 0.6"}, init_images=pictures)
    plain = from_picture({}, init_images=pictures, denoising_strength=0.6)
    kept = from_picture({"denoising_strength_frames": "0: 0.9, 1-5: 0"}, init_images=pictures)
    assert difference(mixed[3:], plain[3:]) <= 1 and difference(mixed[1:3], kept[1:3]) <= 1
    assert mean_difference(mixed[1:3], plain[1:3]) > 5


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"motion_scale_frames": "0: 11"}, ["Motion scale per frame (motion_scale_frames) at frame 0 is 11", "at most 10"]),
        ({"motion_effect_frames": "0: 1\nx: 2"}, ["Motion effect per frame (motion_effect_frames): The line “x: 2”", "8: 0.5"]),
        ({"cfg_scale_frames": "6: 7"}, ["(cfg_scale_frames): The keyframe “6: 7” is outside the video", "0 to 5"]),
        ({"cfg_scale_frames": "-1: -2"}, ["(cfg_scale_frames) at frame 5 is -2", "at least 0"]),
    ],
)
def test_a_schedule_that_cannot_be_met_is_refused_before_any_step(host, args, words):
    with recording(host) as record:
        text = text_of_refusal(host.txt2img(**animate(video_length=6, **args)))
    assert all(word in text for word in words), text
    assert record["sampler_runs"] == [] and record["text_encoder_forwards"] == 0


@pytest.mark.parametrize(
    ("schedule", "request_", "words"),
    [
        ("0: 1.5", {}, ["(denoising_strength_frames) at frame 0 is 1.5", "at most 1"]),
        ("0: 0", {}, ["is 0 in every frame", "Raise it"]),
        pytest.param(
            "0: 0, 3: 1",
            {"mask": encode(np.full((64, 64, 3), 255, np.uint8)), "inpainting_fill": 2},
            ["inpainting_fill", "“original”"],
            marks=pytest.mark.webui_only("the embedded host has no inpainting"),
        ),
    ],
)
def test_strengths_that_cannot_be_met_are_refused(host, schedule, request_, words):
    asked = animate(video_length=6, denoising_strength_frames=schedule)
    text = text_of_refusal(host.img2img(**asked, init_images=[PICTURE], **request_))
    assert all(word in text for word in words), text


def test_the_infotext_has_the_schedules(host):
    answer = host.txt2img(**animate(video_length=6, cfg_scale_frames="0: 7\n5: 3", motion_scale_frames="0: 1, 3: 2"), steps=1)
    text = info_of(answer)["infotexts"][0]
    assert "cfg_scale_frames: 0: 7" in text and "motion_scale_frames: 0: 1%2C 3: 2" in text and "CFG scale: 7" in text


def test_afterwards_the_webui_has_its_own_scales_again(host, clip):
    plain = frames_of(host.txt2img(cfg_scale=5))
    clip({"cfg_scale_frames": "0: 1, 5: 9"}, cfg_scale=1, seed=77)
    assert np.array_equal(frames_of(host.txt2img(cfg_scale=5)), plain)
