"""Requests that cannot be met: clear text, no step, no text encoded. And late faults, which cost only themselves."""

from __future__ import annotations

import os

import pytest
import torch
from animation import animate, files_of, frames_of, info_of, recording
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="module")
def bad_files(weights, tmp_path_factory, host):
    """Files beside the good ones, each wrong in its own way; the folder is given back as it was."""
    folder = tmp_path_factory.mktemp("motion")
    good = load_file(weights / "motion" / "mm_tiny_v3.safetensors")
    for file in (weights / "motion").glob("mm_*"):
        (folder / file.name).symlink_to(file)
    (folder / "lora.safetensors").symlink_to(weights / "lora" / "lora_tiny.safetensors")
    (folder / "checkpoint.safetensors").symlink_to(weights / "checkpoints" / "tiny-a.safetensors")
    save_file({"encoder.conv_in.weight": torch.zeros(1), "decoder.conv_in.weight": torch.zeros(1)}, folder / "vae.safetensors")
    (folder / "truncated.safetensors").write_bytes((folder / "mm_tiny_v3.safetensors").read_bytes()[:100_000])
    (folder / "truncated.ckpt").write_bytes((folder / "mm_tiny_v3.ckpt").read_bytes()[:100_000])
    key = next(key for key in good if key.endswith("proj_in.weight"))
    save_file({**good, key: torch.zeros(3, 5)}, folder / "misshapen.safetensors")
    save_file({key: value for key, value in good.items() if "blocks.3." not in key}, folder / "sdxl.safetensors")
    torch.save({"state_dict": good, "callback": Evil(str(folder / "it ran"))}, folder / "evil.ckpt")
    host.post("/sdapi/v1/options", {"animatediff_model_path": str(folder)})
    yield folder
    assert not (folder / "it ran").exists()
    host.post("/sdapi/v1/options", {"animatediff_model_path": str(weights / "motion")})


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def assert_refused(host, words, request, **more):
    seen = len(host.log_text())
    with recording(host) as record:
        answer = host.txt2img(**request, **more)
    assert answer.status_code == 422, answer.text
    text = answer.json()["detail"]
    assert all(word in text for word in words), text
    assert text in host.log_text()[seen:]
    assert record["sampler_runs"] == [] and record["stray_unet_calls"] == []
    assert record["text_encoder_forwards"] == 0


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model": "gone.safetensors"}, ["gone.safetensors", "not there", "mm_sd15_v1.safetensors"]),
        ({"model": ""}, ["No motion module is chosen", "mm_sd15_v1.safetensors"]),
        ({"model": "../motion/mm_tiny_v3.safetensors"}, ["outside"]),
        ({"model": "/etc/passwd"}, ["outside"]),
        ({"model": "..\\..\\secrets.ckpt"}, ["outside"]),
        ({"model": "lora.safetensors"}, ["a LoRA"]),
        ({"model": "vae.safetensors"}, ["a VAE"]),
        ({"model": "checkpoint.safetensors"}, ["a Stable Diffusion checkpoint"]),
        ({"model": "truncated.safetensors"}, ["truncated.safetensors", "Download it again"]),
        ({"model": "truncated.ckpt"}, ["truncated.ckpt", "Download it again"]),
        ({"model": "misshapen.safetensors"}, ["proj_in.weight is [3, 5]"]),
        ({"model": "sdxl.safetensors"}, ["SDXL"]),
        ({"model": "evil.ckpt"}, ["evil.ckpt", "mkdir"]),
        ({"model": "mm_sd15_v3.safetensors"}, ["320 channels", "32"]),
        ({"video_length": -1}, ["-1"]),
        ({"video_length": 2.5}, ["2.5", "whole"]),
        ({"video_length": 33}, ["33 frames", "32 positions"]),
        ({"video_length": 10**12}, ["positions"]),
        ({"model": "mm_tiny_v1.safetensors", "video_length": 25}, ["25 frames", "24 positions"]),
        ({"fps": 0}, ["0", "at least 1"]),
        ({"fps": -3}, ["-3"]),
        ({"format": ["BMP"]}, ["BMP"]),
        ({"format": []}, ["No save format"]),
    ],
    ids=str,
)
def test_a_wrong_request_is_refused_in_words(host, bad_files, values, words):
    assert_refused(host, words, animate(**values))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"is_sdxl": True}, ["is SDXL", "SD 1.5"]),
        ({"is_sd2": True}, ["Stable Diffusion 2", "SD 1.5"]),
        ({"custom_unet": True}, ["custom SD UNet", "SD Unet"]),
    ],
    ids=str,
)
def test_a_wrong_model_is_refused_in_words(host, flags, words):
    host.post("/probe/v1/flags", flags)
    try:
        assert_refused(host, words, animate())
    finally:
        host.post("/probe/v1/flags", dict.fromkeys(flags))


def test_an_unwritable_folder_is_refused(host, tmp_path):
    (tmp_path / "file").write_text("")
    host.post("/sdapi/v1/options", {"outdir_txt2img_samples": str(tmp_path / "file")})
    try:
        assert_refused(host, [str(tmp_path)], animate(), save_images=True)
        assert host.txt2img(**animate(video_length=1), steps=1).ok, "nothing is written where nothing is asked for"
    finally:
        host.post("/sdapi/v1/options", {"outdir_txt2img_samples": "outputs/txt2img-images"})


def test_pictures_that_do_not_match_the_frames_are_refused(host):
    from pictures import encode, gradient

    pictures = [encode(gradient(shift=shift)) for shift in (0, 9, 18)]
    answer = host.img2img(**animate(), init_images=pictures, denoising_strength=0.5)
    assert answer.status_code == 422 and "3 pictures for 8 frames" in answer.json()["detail"]


def test_after_a_refusal_the_same_request_mended_works(host):
    assert host.txt2img(**animate(fps=0)).status_code == 422
    assert len(frames_of(host.txt2img(**animate(), steps=1))) == 8


def test_a_format_that_fails_costs_the_others_nothing(host):
    setting = {"override_settings": {"animatediff_mp4_preset": "no-such-preset"}}
    answer = host.txt2img(**animate(format=["MP4", "GIF"], video_length=3), steps=1, **setting)
    (gif,) = files_of(answer)
    assert gif.format == "GIF" and gif.n_frames == 3
    (warning,) = info_of(answer)["extra_generation_params"]["AnimateDiff warnings"]
    assert "MP4" in warning and "no-such-preset" in warning


@pytest.mark.parametrize("failing", ["encode", "gif", "png"])
def test_late_faults_cost_only_themselves(host, failing):
    host.post("/probe/v1/late-fault", {"at": failing})
    answer = host.txt2img(**animate(format=["GIF", "PNG"], video_length=3), steps=1, save_images=True)
    assert answer.status_code == 200
    warnings = info_of(answer)["extra_generation_params"]["AnimateDiff warnings"]
    assert len(warnings) == 1 and "probe: no space left" in warnings[0]
    shown, files = files_of(answer), info_of(answer)["extra_generation_params"].get("AnimateDiff files", [])
    suffixes = sorted(file[-4:] for file in files)
    if failing == "png":
        assert shown[0].n_frames == 3 and suffixes == [".gif", ".png"]
    else:
        assert suffixes == [".png"] * 3
        assert len(shown) == (3 if failing == "encode" else 1)
    assert host.txt2img(**animate(format=["GIF"], video_length=2), steps=1).ok
