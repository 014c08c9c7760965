"""What working programs send. What is taken for something else, and what has no effect, is said in the answer."""

from __future__ import annotations

import re
import time
from base64 import b64decode

import pytest
import requests

from animatediff.request.params import PANEL_FIELDS, default_of
from motion_module.video_reader import Video
from support.animation import animate, difference, frames_of, info_of
from support.pictures import encode, gradient
from support.server import SMALL_JOB

PICTURES = [encode(gradient(shift=9 * number)) for number in range(10)]


def warnings_of(answer):
    assert answer.ok, answer.text
    return info_of(answer)["extra_generation_params"].get("AnimateDiff warnings", [])


def img2img(host, images, size=(64, 64), **args):
    sizes = dict(zip(("width", "height"), size))
    return host.img2img(**animate(**args), init_images=images, denoising_strength=0.5, steps=1, **sizes)


def test_the_request_of_a_client_that_says_no_gives_its_video(host, tmp_path):
    sent = {
        "format": ["MP4"], "video_length": 60, "fps": 30, "loop_number": 0, "closed_loop": "A", "batch_size": 16, "stride": 1,
        "overlap": -1, "interp": "NO", "interp_x": 10, "latent_power": 0.2, "latent_scale": 92, "last_frame": PICTURES[3],
        "latent_power_last": 0.2, "latent_scale_last": 92, "batch_index": 0, "video_quality": 90,
    }  # fmt: skip
    answer = img2img(host, PICTURES[:1], **sent, size=(32, 32))
    unknown, off, _last_frame_resized = warnings_of(answer)
    assert unknown.startswith(
        "AnimateDiff does not know the parameters 'batch_index', 'video_quality'; they were ignored. Correct"
    )
    assert "Frame interpolation (interp) is 'NO', which was taken as Off." in off
    (video,) = answer.json()["images"]
    assert number_of_frames(video, tmp_path / "video.mp4") == 60


def number_of_frames(video, path):
    path.write_bytes(b64decode(video))
    return sum(1 for _ in Video(path))


DEFAULTS = {
    "fps": 8, "loop_number": 0, "closed_loop": "R-P", "batch_size": 16, "stride": 1, "overlap": -1, "format": ["GIF", "PNG"],
    "interp": "Off", "interp_x": 10, "video_source": None, "video_path": "", "mask_path": "", "freeinit_enable": False,
    "freeinit_filter": "butterworth", "freeinit_ds": 0.25, "freeinit_dt": 0.25, "freeinit_iters": 3, "latent_power": 1,
    "latent_scale": 32, "last_frame": None, "latent_power_last": 1, "latent_scale_last": 32, "request_id": "",
    "is_i2i_batch": False, "video_default": False, "prompt_scheduler": None, "reverse": [], "use_main_seed": False,
}  # fmt: skip


def test_a_client_that_sends_every_key_at_its_default_is_not_warned(host):
    assert warnings_of(host.txt2img(**animate(**DEFAULTS), steps=1)) == []


def names_in(warnings):
    return [re.search(r"\((\w+)\) is ", text)[1] for text in warnings]


def test_every_value_without_effect_gets_a_sentence(host):
    idle = {
        "closed_loop": "R+P", "overlap": 1, "stride": 2, "image_mode": "strength ramp", "ramp_length": 0.5, "latent_power": 2,
        "latent_scale_last": 9, "pia_motion": "large motion", "source_start": 3, "source_stride": 2, "model_2_mode": "chain",
        "interp_x": 3, "context_mode": "motion attention", "offload": True, "context_schedule": "static", "fuse_method": "flat",
        "noise_type": "FreeNoise", "noise_share": 0.2, "freeinit_iters": 2, "speed_every": 3,
        "camera_motion": "pan left", "camera_strength": 0.5,
    }  # fmt: skip
    warnings = warnings_of(host.txt2img(**animate(video_length=2, **idle), steps=1))
    assert sorted(names_in(warnings)) == sorted(idle)
    assert "Shared noise (noise_share) is 0.2, which has an effect only if Noise type (noise_type) is “mixed”." in str(warnings)


def test_what_goes_beyond_what_can_have_an_effect_gets_a_sentence(host):
    beyond = {"stride": 5, "positional_encoding": "stretch", "loop_number": 2, "prompt_interpolation": "lerp"}
    answer = host.txt2img(**animate(video_length=3, batch_size=2, format=["MP4"], **beyond), steps=1)
    assert sorted(names_in(warnings_of(answer))) == sorted(beyond)
    assert "Stride (stride) is 5, but more than 2 has no effect" in str(warnings_of(answer))
    fitting = {"stride": 2, "loop_number": 2, "prompt_interpolation": "lerp"}
    travel = animate(video_length=3, batch_size=2, format=["GIF"], **fitting)
    assert warnings_of(host.txt2img(**travel, prompt="0: a\n2: b", steps=1)) == []


def test_the_panel_is_warned_of_what_differs_from_its_first_values(host):
    def panel(loop):
        values = [True, "mm_tiny_v3.safetensors", 2, 8, loop, ["GIF"]]
        return warnings_of(host.txt2img(alwayson_scripts={"AnimateDiff": {"args": values}}, steps=1))

    assert names_in(panel("R-P")) == ["closed_loop"]
    assert panel("N") == []


def test_a_pasted_infotext_is_not_warned_of_the_defaults_that_it_sets(host):
    asked = {"enable": True, "model": "mm_tiny_v3.safetensors", "video_length": 2, "closed_loop": "N"}
    values = [asked.get(field.name, default_of(field)) for field in PANEL_FIELDS]
    assert warnings_of(host.txt2img(alwayson_scripts={"AnimateDiff": {"args": values}}, steps=1)) == []


@pytest.mark.parametrize("format", ["TXT", "PNG"])
def test_formats_that_leave_nothing_say_how_to_have_them(host, format):
    (warning,) = warnings_of(host.txt2img(**animate(video_length=2, format=[format]), steps=1))
    assert f"Nothing was written for {format}, since" in warning and "save_images to true" in warning


def test_the_longest_request_id_is_in_the_names_of_the_files(host):
    longest = "猫" * 66
    answer = host.txt2img(
        **animate(video_length=2, format=["PNG", "TXT", "WEBM"], request_id=longest), steps=1, save_images=True
    )
    assert warnings_of(answer) == []
    files = info_of(answer)["extra_generation_params"]["AnimateDiff files"]
    assert len(files) == 4 and all(longest in file for file in files)


def test_optical_flow_and_nothing_else_works(host, tmp_path):
    answer = host.txt2img(**animate(format=["GIF", "MP4"], interp="optical flow"), steps=1)
    _gif, video = answer.json()["images"]
    assert number_of_frames(video, tmp_path / "video.mp4") == 3 * 6 + 1
    assert "(interp_x) is 10, but was lowered to 6" in str(warnings_of(answer))


def test_a_module_may_be_named_without_its_suffix_and_in_another_case(host):
    answer = host.txt2img(**animate(model="MM_Tiny_v2", video_length=2), steps=1)
    assert warnings_of(answer) == [
        "AnimateDiff: Motion module (model) is MM_Tiny_v2, which was taken as mm_tiny_v2.safetensors."
    ]
    assert "model: mm_tiny_v2.safetensors," in info_of(answer)["infotexts"][0]


def test_more_pictures_than_frames_give_the_first_ones(host):
    answer = img2img(host, PICTURES, video_length=3)
    assert "given 10 pictures, but only the first 3 are used" in str(warnings_of(answer))
    exactly = img2img(host, PICTURES[:3], video_length=3)
    assert warnings_of(exactly) == []
    assert difference(frames_of(answer), frames_of(exactly)) <= 1, "the VAE's own noise is drawn anew"


@pytest.mark.parametrize(
    ("images", "words"),
    [(PICTURES, "10 pictures for 48 frames. Use one picture, or one for each frame"), ([], "given no picture. Give it one")],
    ids=["too few", "none"],
)
def test_pictures_that_cannot_become_frames_are_refused(host, images, words):
    answer = img2img(host, images, video_length=48)
    assert answer.status_code == 422 and words in answer.json()["detail"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"stride": 10**9}, "Stride (stride) is 1000000000, but must be at most 32."),
        ({"batch_size": 300_000, "video_length": 0}, "300000, but must be at most 10000"),
        ({"video_length": "1e309"}, "finite"),
        ({"model": "m" * 300}, "is missing"),
        ({"model": "m" * 300_000}, "at most 1000. Shorten it"),
        ({"model": "mm_tiny_v3"}, "could be mm_tiny_v3.ckpt or mm_tiny_v3.safetensors"),
        ({"model": "m\0"}, "is missing"),
        ({"request_id": "\ud800"}, "half a character"),
        ({"loop_number": 70_000}, "at most 65535"),
        ({"fps": 1e-300}, "at least 0.02"),
        ({"motion_effect": 1e30}, "at most 10"),
        ({"last_frame": "iVBORw0KGgoAAAANSUhEUgAA"}, "not a picture that can be read"),
        ({"interp": "optical flow", "format": "MP4", "video_length": 2000, "fps": 8}, "which makes 20000 frames of 2000"),
        ({f"\ud800{number}": 0 for number in range(100)}, "cannot repeat in its answer"),
        ({"unknown": ["\ud800"]}, "cannot repeat in its answer"),
        ({"unknown": 10**400}, "cannot repeat in its answer"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else ascii(value)[:40],
)
def test_what_is_out_of_bounds_is_refused_at_once(host, values, words):
    before = time.monotonic()
    answer = host.txt2img(**animate(**values), steps=1)
    assert answer.status_code == 422 and words in answer.json()["detail"]
    assert time.monotonic() - before < 1


def test_a_number_that_json_reads_as_infinite_is_refused(host):
    text = requests.Request("POST", host.url, json={**SMALL_JOB, **animate(video_length=7777)}).prepare().body.decode()
    sent = text.replace("7777", "1e309")
    answer = requests.post(host.url + "/sdapi/v1/txt2img", data=sent, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422 and "finite" in answer.json()["detail"]
