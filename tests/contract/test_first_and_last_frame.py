"""A first and a last picture in img2img: frames start from them with their own denoising strength, or are mixed with noise."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from support.animation import animate, difference, frames_of, info_of, made_once
from support.pictures import encode, gradient, mean_difference

PICTURE, OTHER = gradient(), 255 - gradient()
STRENGTHS = {"image_mode": "strength ramp"}
STILL = {"motion_effect": 0.0}
SMALL = encode(np.ascontiguousarray(OTHER[::2, ::2]))
NO_PICTURES = (
    base64.b64decode(encode(PICTURE))[:150],
    b"DDS \x7c\0\0\0" + bytes(120),
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n",
    b"II*\0" + bytes(40),
)
"""A PNG that is cut off, and pictures of other formats: DDS, EPS, TIFF."""
EIGHT = [encode(gradient(shift=shift)) for shift in range(8)]


def asked(args, **request):
    return {**animate(**{"video_length": 8, **args}), "init_images": [encode(PICTURE)], "steps": 8, **request}


def video(host, args, **request):
    answer = host.img2img(**asked(args, **request))
    return frames_of(answer), answer


@pytest.fixture(scope="module")
def from_picture(host):
    make = made_once(host.img2img)
    return lambda args, **request: make(**asked(args, **request))


def test_a_frame_starts_at_the_step_of_its_strength(host):
    """Strength 0.75 of 8 steps makes 7, of which frame 4 runs 4. It must look as if all frames had the strength of 4 steps."""
    settings = {"sampler_name": "Euler", "denoising_strength": 0.75}
    frames, _ = video(host, {**STRENGTHS, **STILL, "ramp_length": 1.0}, **settings)
    for frame in (1, 3, 4, 6, 7):
        alike, _ = video(
            host, {**STRENGTHS, **STILL, "ramp_length": 0.0}, **{**settings, "denoising_strength": (frame - 0.5) / 8}
        )
        assert difference(frames[frame], alike[frame]) <= 1
        assert frame == 7 or difference(frames[frame + 1], alike[frame + 1]) > 10


SAMPLERS = ["Euler a", "DPM++ 2M", "Heun", "DDIM"]
ONLY_THERE = pytest.mark.webui_only("the embedded host has no such sampler")


@pytest.mark.parametrize(
    "sampler",
    [
        *SAMPLERS,
        pytest.param("UniPC", marks=[ONLY_THERE, pytest.mark.not_on(("Forge",), "its UniPC fails in any img2img")]),
        *(pytest.param(name, marks=ONLY_THERE) for name in ("PLMS", "DDIM CFG++", "DPM++ SDE")),
    ],
)
def test_the_first_frame_is_the_picture_with_any_sampler(from_picture, sampler):
    """As the checkpoint's VAE decodes it: equal with all samplers, and close to the picture after one step of low strength."""
    faint = from_picture({**STRENGTHS, **STILL, "ramp_length": 0.0}, denoising_strength=0.01, sampler_name="Euler")
    with_euler = from_picture(STRENGTHS, denoising_strength=0.9, sampler_name="Euler")
    frames = from_picture(STRENGTHS, denoising_strength=0.9, sampler_name=sampler)
    assert difference(frames[0], with_euler[0]) <= 1 and mean_difference(frames[0], faint[0]) < 4
    assert mean_difference(frames[7], frames[0]) > 10


def test_api_requests_mix_the_picture_with_noise_by_default(host):
    """At a strength near zero, the noise of each frame is visible."""
    faint = {"denoising_strength": 0.01, "sampler_name": "Euler", "n_iter": 2}
    frames, _ = video(host, {**STILL, "latent_scale": 4}, **faint)
    again, _ = video(host, {**STILL, "latent_scale": 4, "image_mode": "blend with noise"}, **faint)
    assert difference(frames, again) <= 1
    from_picture = [mean_difference(frame, frames[0]) for frame in frames[:5]]
    assert from_picture == sorted(from_picture) and from_picture[1] > 5
    assert mean_difference(frames[8], frames[0]) < 5, "the second video starts with the picture too"
    assert mean_difference(frames[9], frames[1]) > 5, "but with other noise"


@pytest.mark.parametrize("args", [STRENGTHS, {"image_mode": "blend with noise", "latent_scale": 6, "latent_scale_last": 6}])
def test_a_video_ends_with_the_last_frame(host, args):
    ends = [video(host, STRENGTHS, init_images=[encode(picture)], denoising_strength=0.5)[0][0] for picture in (PICTURE, OTHER)]
    frames, answer = video(host, {**args, **STILL, "last_frame": encode(OTHER)}, denoising_strength=0.05)
    assert len(frames) == 8 and "AnimateDiff warnings" not in info_of(answer)["extra_generation_params"]
    assert max(mean_difference(frames[0], ends[0]), mean_difference(frames[-1], ends[1])) < 6
    assert min(mean_difference(frames[4], end) for end in ends) > 12


def test_a_last_frame_of_another_size_is_resized_with_a_warning(host):
    frames, answer = video(host, {**STRENGTHS, "last_frame": "data:image/png;base64," + SMALL}, denoising_strength=0.5)
    (warning,) = info_of(answer)["extra_generation_params"]["AnimateDiff warnings"]
    assert "32×32" in warning and "64×64" in warning and frames.shape[1:3] == (64, 64)


def test_a_pinned_loop_returns_to_its_first_frame(host):
    loop = {**STRENGTHS, "video_length": 24, "batch_size": 16, "closed_loop": "R+P", "ramp_length": 0.5}
    frames, _ = video(host, loop, denoising_strength=0.9, steps=6)
    from_first = [mean_difference(frame, frames[0]) for frame in frames]
    assert from_first[23] < 0.6 * from_first[12] and from_first[1] < 0.6 * from_first[12]


@pytest.mark.webui_only("the embedded host has no inpainting")
@pytest.mark.parametrize("mode", ["strength ramp", "blend with noise"])
def test_the_area_outside_a_mask_is_not_affected(host, mode):
    """Includes the latents, so that the UNet sees the picture around the inpainted area, and not noise."""
    mask = np.zeros((64, 64, 3), np.uint8)
    mask[20:44, 20:44] = 255
    inpainting = {
        "mask": encode(mask),
        "inpaint_full_res": False,
        "mask_blur": 4,
        "inpainting_fill": 1,
        "denoising_strength": 0.9,
    }
    frames, _ = video(host, {"image_mode": mode, "latent_scale": 4}, **inpainting)
    for frame in frames:
        assert mean_difference(frame[:12], PICTURE[:12]) < 2
    border = np.s_[14:20, 14:50]
    plain, _ = video(host, {**STRENGTHS, "ramp_length": 0.0}, **inpainting)
    assert mean_difference(frames[7][border], PICTURE[border]) < 2 * mean_difference(plain[7][border], PICTURE[border]) + 2
    assert mean_difference(frames[7][22:42, 22:42], PICTURE[22:42, 22:42]) > 10


@pytest.mark.parametrize(
    ("call", "args", "pictures", "words"),
    [
        ("txt2img", {"last_frame": encode(OTHER)}, {}, ["last_frame", "img2img"]),
        ("img2img", {"last_frame": "no picture"}, {"init_images": [encode(PICTURE)]}, ["last_frame", "base64"]),
        *(
            (
                "img2img",
                {"last_frame": base64.b64encode(content).decode()},
                {"init_images": [encode(PICTURE)]},
                ["last_frame", "PNG, JPEG, WEBP, GIF, BMP"],
            )
            for content in NO_PICTURES
        ),
        (
            "img2img",
            {"last_frame": encode(OTHER)},
            {"init_images": [encode(PICTURE)] * 7 + [encode(OTHER)]},
            ["exactly one first picture"],
        ),
        ("img2img", {"last_frame": encode(OTHER), "video_length": 1}, {"init_images": [encode(PICTURE)]}, ["two frames"]),
        (
            "img2img",
            {"last_frame": encode(OTHER), "video_length": 0, "batch_size": 1},
            {"init_images": [encode(PICTURE)]},
            ["two frames"],
        ),
        pytest.param(
            "img2img",
            {"last_frame": SMALL},
            {"init_images": [encode(PICTURE)], "resize_mode": 3},
            ["size of the first one"],
            marks=pytest.mark.webui_only("the embedded host has one way to resize"),
        ),
        ("img2img", {"latent_scale": 0}, {"init_images": [encode(PICTURE)]}, ["latent_scale", "0.1"]),
    ],
)
def test_impossible_requests_are_refused_with_a_message(host, call, args, pictures, words):
    answer = getattr(host, call)(**animate(**{"video_length": 8, **args}), **pictures)
    assert answer.status_code == 422
    assert all(word in answer.json()["detail"] for word in words), answer.json()["detail"]
