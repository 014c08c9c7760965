"""The HTTP API."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import requests
import webuiapi

from support.animation import animate, files_of, frames_of, info_of
from support.server import PROBE, REPOSITORY


def request_of(argument, name="AnimateDiff"):
    return {"alwayson_scripts": {name: {"args": [argument]}}}


@pytest.mark.parametrize("name", ["AnimateDiff", "animatediff", "ANIMATEDIFF"])
def test_the_script_name_is_case_insensitive(host, name):
    values = animate(video_length=2)["alwayson_scripts"]["AnimateDiff"]["args"][0]
    assert len(frames_of(host.txt2img(**request_of(values, name), steps=1))) == 2


NOTHING = [False, None, {}, {"enable": False}]


@pytest.mark.parametrize(
    "request_part",
    [{}, {"alwayson_scripts": {"AnimateDiff": {}}}, *(request_of(nothing) for nothing in NOTHING)],
    ids=str,
)
def test_a_request_without_animatediff_makes_an_image(host, request_part):
    (picture,) = files_of(host.txt2img(**request_part, steps=1))
    assert picture.format == "PNG"


def test_a_request_does_not_affect_the_next(host):
    assert len(files_of(host.txt2img(**animate(video_length=2), steps=1))) == 2
    assert len(files_of(host.txt2img(steps=1))) == 1


def test_unknown_keys_are_ignored_with_a_warning(host):
    answer = host.txt2img(**animate(video_length=2, frame_count=9), steps=1)
    assert len(frames_of(answer)) == 2
    assert "frame_count" in str(info_of(answer)["extra_generation_params"]["AnimateDiff warnings"])


def test_the_gif_comes_before_the_frames(host):
    first, *rest = files_of(host.txt2img(**animate(video_length=3, format=["Frame", "GIF"]), steps=1))
    assert first.format == "GIF" and [file.format for file in rest] == ["PNG"] * 3


ALL_FORMATS = ["TXT", "WEBM", "MP4", "APNG", "WEBP", "PNG", "GIF"]
FIRST_BYTES = {"GIF": b"GIF89a", "WEBP": b"RIFF", "APNG": b"\x89PNG", "MP4": b"\0\0\0\x20ftyp", "WEBM": b"\x1a\x45\xdf\xa3"}


def test_every_format_is_returned_and_saved(host):
    answer = host.txt2img(**animate(video_length=3, format=ALL_FORMATS), steps=1, save_images=True)
    arrived = [base64.b64decode(text) for text in answer.json()["images"]]
    assert len(arrived) == len(FIRST_BYTES), "images first, then videos, in any order of the request"
    assert all(data.startswith(first) for data, first in zip(arrived, FIRST_BYTES.values()))
    files = [Path(file) for file in info_of(answer)["extra_generation_params"]["AnimateDiff files"]]
    assert [file.suffix for file in files] == [".png"] * 3 + [".txt", ".gif", ".webp", ".png", ".mp4", ".webm"]
    assert [file.read_bytes() for file in files[4:]] == arrived
    assert files[3].read_text() == info_of(answer)["infotexts"][0]


@pytest.mark.parametrize("format", ["GIF", "WEBP", "APNG"])
def test_the_infotext_is_read_back_from_images(host, format):
    answer = host.txt2img(**animate(video_length=2, format=[format]), steps=1, prompt="a cat, 猫")
    read = host.post("/sdapi/v1/png-info", {"image": "data:image/png;base64," + answer.json()["images"][0]}).json()
    assert read["info"] == info_of(answer)["infotexts"][0] and "猫" in read["info"]


@pytest.mark.parametrize("format", ["png", "jpg", "webp"])
def test_the_image_format_setting_does_not_affect_the_gif(host, format):
    setting = {"override_settings": {"samples_format": format}}
    (gif,) = files_of(host.txt2img(**animate(video_length=3, format="GIF"), steps=1, **setting))
    assert gif.format == "GIF" and gif.n_frames == 3


def test_no_images_are_sent_if_the_request_wants_none(host):
    assert host.txt2img(**animate(video_length=2), steps=1, send_images=False).json()["images"] == []


def test_the_published_client_gets_its_gif_and_frames(host):
    client = webuiapi.WebUIApi(host="127.0.0.1", port=host.port, sampler="Euler a", steps=1)
    animation = webuiapi.AnimateDiff(model="mm_tiny_v3.safetensors", video_length=4)
    result = client.txt2img(prompt="a cat", width=64, height=64, animatediff=animation)
    assert result.images[0].format == "GIF" and result.images[0].n_frames == 4
    animation.format = ["Frame"]
    assert len(client.txt2img(prompt="a cat", width=64, height=64, animatediff=animation).images) == 4
    picture = client.txt2img(prompt="a cat", width=64, height=64)
    assert [image.format for image in picture.images] == ["PNG"]


class WithLinks(webuiapi.AnimateDiff):
    """The client's request, with a key that the client does not know."""

    def to_dict(self, is_img2img=False):
        return {**super().to_dict(is_img2img), "video_delivery": "url"}


def test_the_published_client_gets_videos_through_links(host):
    client = webuiapi.WebUIApi(host="127.0.0.1", port=host.port, sampler="Euler a", steps=1)
    animation = WithLinks(model="mm_tiny_v3.safetensors", video_length=3, format=["GIF", "WEBP", "MP4", "WEBM", "Frame"])
    result = client.txt2img(prompt="a cat", width=64, height=64, animatediff=animation, save_images=True)
    assert [image.format for image in result.images] == ["GIF", "WEBP", "PNG", "PNG", "PNG"]
    videos = result.info["extra_generation_params"]["AnimateDiff videos"]
    assert [Path(video["name"]).suffix for video in videos] == [".mp4", ".webm"]
    for video in videos:
        data = requests.get(host.url + video["url"]).content
        assert data == Path(video["file"]).read_bytes() and data.startswith(FIRST_BYTES[Path(video["name"]).suffix[1:].upper()])


def test_an_answer_with_only_links_still_has_an_image(host):
    answer = host.txt2img(**animate(video_length=2, format=["MP4"], video_delivery="url"), steps=1, save_images=True)
    assert [file.format for file in files_of(answer)] == ["PNG"]


def test_a_link_serves_no_other_file(host):
    answer = host.txt2img(**animate(video_length=2, format=["MP4"], video_delivery="url"), steps=1, save_images=True)
    (video,) = info_of(answer)["extra_generation_params"]["AnimateDiff videos"]
    key = video["url"].rpartition("key=")[2]
    for file, other_key in (("/etc/passwd", key), (video["file"], "0" * len(key)), (video["file"] + "/../x", key)):
        assert host.get("/animatediff/v1/video", params={"file": file, "key": other_key}).status_code == 404
    Path(video["file"]).unlink()
    assert host.get(video["url"]).status_code == 404


def test_links_without_saved_files_are_refused_before_anything_is_made(host):
    answer = host.txt2img(**animate(video_length=2, format=["MP4"], video_delivery="url"), steps=1)
    assert answer.status_code == 422 and "save_images" in answer.json()["detail"]
    assert host.txt2img(**animate(video_length=2, format=["GIF"], video_delivery="url"), steps=1).ok


def test_links_are_not_in_the_infotext(host):
    answer = host.txt2img(**animate(video_length=2, format=["GIF"], video_delivery="url"), steps=1)
    assert "video_delivery" not in info_of(answer)["infotexts"][0]


@pytest.mark.webui_only("the embedded host does not read infotexts in requests")
@pytest.mark.not_on(("Forge", "Neo"), "its API fails with an infotext in any request")
def test_an_infotext_in_a_request_makes_the_same_video(host):
    first = host.txt2img(**animate(video_length=3, fps=12, format=["GIF"]), steps=2, seed=5)
    text = info_of(first)["infotexts"][0]
    again = host.post("/sdapi/v1/txt2img", {"infotext": text})
    assert again.ok and again.json()["images"] == first.json()["images"]


def test_the_endpoints(host):
    assert host.get("/animatediff/v1/version").json()["version"]
    models = {model["name"]: model for model in host.get("/animatediff/v1/models").json()}
    assert models["mm_tiny_v1.safetensors"] == {
        "name": "mm_tiny_v1.safetensors", "family": "v1", "title": "AnimateDiff v1", "assumed": False, "max_frames": 24,
        "frames": 16, "lora": None, "problem": None, "base": "SD 1.5",
        "settings": {
            "sampler_name": "DDIM", "scheduler": "Automatic", "steps": 25, "cfg_scale": 7.5, "side": None,
            "motion_scale": 1.0, "denoising_strength": None,
        },
    }  # fmt: skip
    assert host.get("/animatediff/v1/schema").json()["properties"]["fps"]["default"] == 0


def test_the_api_lists_the_controls(host):
    script = next(entry for entry in host.get("/sdapi/v1/script-info").json() if entry["name"] == "animatediff")
    assert [argument["label"] for argument in script["args"]] == [
        "AnimateDiff", "Motion module", "Number of frames", "FPS", "Closed loop", "Save format",
        "Context length", "Overlap", "Stride",
        "Image mode", "Ramp length", "Last frame", "Latent power", "Latent scale", "Latent power (last frame)",
        "Latent scale (last frame)", "PIA motion", "Drift from the image",
        "SparseCtrl model", "Pictures", "Frames of the pictures", "The first is img2img's picture", "SparseCtrl strength",
        "SparseCtrl start", "SparseCtrl end",
        "Source video", "Path on the server", "Skip first frames", "Select every nth frame", "Only for ControlNet",
        "Masks",
        "Motion scale", "Motion effect", "Motion start", "Motion end", "Motion rules", "Motion mask",
        "Motion masks on the server", "Attend to the first frame", "Positional encoding", "Second motion module", "Combination",
        "Weight of the second module",
        "Camera module", "Camera strength", "Camera motion", "Pose file",
        "Prompt interpolation",
        "Motion scale per frame", "Motion effect per frame", "CFG scale per frame", "ControlNet weight per frame",
        "SparseCtrl strength per frame",
        "Denoising strength per frame",
        "Detail", "Box on the first frame", "Most subjects", "Confidence", "Detail prompt", "Detail negative prompt",
        "Detail strength", "Padding", "Detail steps", "Detail CFG scale", "Detail size", "With ControlNet",
        "Speed", "A full step every … steps",
        "Frame interpolation", "Interpolation factor", "Times to play",
        "Family", "Windows apply to", "Offload frames to RAM", "Context schedule", "Fuse method", "Noise type", "Shared noise",
        "Enable FreeInit", "Fast sampling", "FreeInit iterations", "FreeInit filter", "Spatial cutoff", "Temporal cutoff",
    ]  # fmt: skip


def test_positional_panel_values_work_like_the_dictionary(host):
    values = [True, "mm_tiny_v3.safetensors", 3, 8, "N", ["GIF"]]
    (gif,) = files_of(host.txt2img(alwayson_scripts={"AnimateDiff": {"args": values}}, steps=1))
    assert gif.n_frames == 3


def test_an_infotext_restores_the_settings(host):
    first = host.txt2img(**animate(video_length=3, fps=12, format=["GIF"]), steps=1)
    pasted = host.post("/sdapi/v1/png-info", {"image": "data:image/gif;base64," + first.json()["images"][0]}).json()
    assert pasted["parameters"]["AnimateDiff enable"] == "True"
    assert pasted["parameters"]["AnimateDiff video_length"] == "3"
    assert pasted["parameters"]["AnimateDiff fps"] == "12"


def test_the_endpoints_need_the_password_of_the_api_or_the_login_of_the_page(start_host):
    server = start_host(extensions=[REPOSITORY, PROBE], extra_args=["--api-auth", "me:secret", "--gradio-auth", "you:word"])
    page = requests.Session()
    page.post(f"{server.url}/login", data={"username": "you", "password": "word"}).raise_for_status()
    assert requests.delete(f"{server.url}/animatediff/v1/unfinished/{'0' * 32}").status_code == 401
    for name in ("version", "models", "schema", "unfinished"):
        path = f"{server.url}/animatediff/v1/{name}"
        assert requests.get(path).status_code == 401
        assert requests.get(path, auth=("me", "wrong")).status_code == 401
        assert requests.get(path, auth=("you", "secret")).status_code == 401
        assert requests.get(path, auth=("you", "word")).status_code == 401, "the login of the page is a cookie"
        assert requests.get(path, auth=("me", "secret")).status_code == 200
        assert page.get(path).status_code == 200
    server.stop()
