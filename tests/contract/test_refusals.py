"""Refused requests: a clear message, and nothing sampled or encoded. And late errors, which lose only what they affect."""

from __future__ import annotations

import base64
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from support.animation import FRAMES, animate, files_of, frames_of, info_of, recording
from support.pictures import pictures_of
from support.server import PROBE, REPOSITORY


@pytest.fixture(scope="module")
def bad_files(weights, tmp_path_factory, host):
    """A folder of motion modules with good files, and files that are each wrong in another way."""
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
    with host.settings(animatediff_model_path=str(folder)):
        yield folder
    assert not (folder / "it ran").exists()


class Evil:
    """An object that makes a folder when it is unpickled."""

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
        ({"model": "gone.safetensors"}, ["gone.safetensors", "is missing", "mm_sd15_v1.safetensors"]),
        ({"model": ""}, ["No motion module is chosen", "mm_sd15_v1.safetensors"]),
        ({"model": "../motion/mm_tiny_v3.safetensors"}, ["outside"]),
        ({"model": "/etc/passwd"}, ["outside"]),
        ({"model": "..\\..\\secrets.ckpt"}, ["outside"]),
        ({"model": "lora.safetensors"}, ["a LoRA"]),
        ({"model": "vae.safetensors"}, ["a VAE"]),
        ({"model": "checkpoint.safetensors"}, ["a Stable Diffusion checkpoint"]),
        ({"model": "truncated.safetensors"}, ["truncated.safetensors", "Download it again"]),
        ({"model": "truncated.ckpt"}, ["truncated.ckpt", "Download it again"]),
        ({"model": "misshapen.safetensors"}, ["proj_in.weight has the shape [3, 5]"]),
        ({"model": "sdxl.safetensors"}, ["SDXL"]),
        ({"model": "evil.ckpt"}, ["evil.ckpt", "mkdir"]),
        ({"model": "mm_sd15_v3.safetensors"}, ["320 channels", "32"]),
        ({"video_length": -1}, ["-1"]),
        ({"video_length": 2.5}, ["2.5", "whole"]),
        ({"video_length": 33, "batch_size": 33}, ["33 frames", "32 positions"]),
        ({"video_length": 10**12}, ["10000"]),
        ({"model": "mm_tiny_v1.safetensors", "video_length": 25, "batch_size": 99}, ["25 frames", "24 positions"]),
        ({"video_length": 40, "batch_size": 12, "overlap": 12}, ["Overlap", "12", "11 or less"]),
        ({"overlap": 16}, ["Overlap", "16", "15 or less"]),
        ({"fps": -3}, ["-3", "at least 0"]),
        ({"format": ["BMP"]}, ["BMP"]),
        ({"format": []}, ["Save format (format) is empty"]),
    ],
    ids=str,
)
def test_a_wrong_request_is_refused_with_a_message(host, bad_files, values, words):
    assert_refused(host, words, animate(**values))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"is_sdxl": True}, ["SDXL", "is made for SD 1.5"]),
        pytest.param(
            {"is_sd2": True},
            ["Stable Diffusion 2", "SD 1.5"],
            marks=pytest.mark.not_on(("Neo",), "it loads no Stable Diffusion 2"),
        ),
        ({"custom_unet": True}, ["custom SD UNet", "SD Unet"]),
    ],
    ids=str,
)
def test_a_wrong_model_is_refused_with_a_message(host, flags, words):
    host.post("/probe/v1/flags", flags)
    try:
        assert_refused(host, words, animate())
    finally:
        host.post("/probe/v1/flags", dict.fromkeys(flags))


@pytest.fixture
def saving_to(host):
    """Makes the host save to another folder."""
    before = host.get("/sdapi/v1/options").json()["outdir_txt2img_samples"]
    yield lambda folder: host.post("/sdapi/v1/options", {"outdir_txt2img_samples": str(folder)})
    host.post("/sdapi/v1/options", {"outdir_txt2img_samples": before})


def test_an_unwritable_folder_is_refused(host, saving_to, tmp_path):
    (tmp_path / "file").write_text("")
    saving_to(tmp_path / "file")
    assert_refused(host, [str(tmp_path)], animate(), save_images=True)
    assert host.txt2img(**animate(video_length=1), steps=1).ok, "nothing is written unless the request asks for it"


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a disk of a given size in bytes, and returns its folder."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size, options="rw"):
        command = ["mount", "-t", "tmpfs", "-o", f"size={size},{options}", "none", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("THIS USER MAY NOT MOUNT A SMALL DISK")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True, check=False)


def test_a_read_only_disk_is_refused(host, small_disk, saving_to):
    saving_to(small_disk(100_000, "ro"))
    assert_refused(host, ["Read-only file system"], animate(), save_images=True)


def files_in(answer):
    return [Path(file) for file in info_of(answer)["extra_generation_params"]["AnimateDiff files"]]


def test_a_disk_that_fills_up_loses_only_the_files_without_space(host, small_disk, saving_to, tmp_path):
    """The disk has space for half of the APNG, which comes before the MP4."""
    request = {**animate(video_length=8, format=["PNG", "GIF", "APNG", "MP4"]), "steps": 1, "save_images": True}
    saving_to(tmp_path / "large")
    *frames, gif, apng, mp4 = files_in(host.txt2img(**request))
    on_disk = {file: -(-file.stat().st_size // 4096) * 4096 for file in (*frames, gif, apng, mp4)}
    assert on_disk[mp4] < on_disk[apng] // 2
    disk = small_disk(sum(on_disk[file] for file in (*frames, gif)) + on_disk[apng] // 2)
    saving_to(disk)
    answer = host.txt2img(**request)
    (warning,) = info_of(answer)["extra_generation_params"]["AnimateDiff warnings"]
    assert "No space left on device" in warning and ".png" in warning
    left = files_in(answer)
    assert [file.read_bytes() for file in left] == [file.read_bytes() for file in (*frames, gif, mp4)]
    assert {file for file in disk.rglob("*") if file.is_file()} == set(left), "no incomplete file"
    assert len(answer.json()["images"]) == 3, "the answer also has what did not fit on the disk"


def test_a_full_disk_loses_no_frame_of_the_answer(host, small_disk, saving_to):
    disk = small_disk(4096)
    saving_to(disk)
    (disk / "full").write_bytes(b"x" * 4096)
    answer = host.txt2img(**animate(video_length=3, format=["PNG", "GIF", "Frame"]), steps=1, save_images=True)
    assert [file.format for file in files_of(answer)] == ["GIF", "PNG", "PNG", "PNG"]
    assert "No space left on device" in str(info_of(answer)["extra_generation_params"]["AnimateDiff warnings"])
    assert [file.name for file in disk.rglob("*") if file.is_file()] == ["full"]


def test_without_a_saved_file_the_answer_has_the_video_instead_of_a_link(host, small_disk, saving_to):
    disk = small_disk(4096)
    saving_to(disk)
    (disk / "full").write_bytes(b"x" * 4096)
    answer = host.txt2img(**animate(video_length=2, format=["MP4"], video_delivery="url"), steps=1, save_images=True)
    (video,) = answer.json()["images"]
    assert base64.b64decode(video)[4:8] == b"ftyp"
    assert "AnimateDiff videos" not in info_of(answer)["extra_generation_params"]


CRASHING = """#!/bin/sh
head -c 5000 > /dev/null
echo "going down" >&2
kill -SEGV $$
"""


def test_a_crash_of_the_encoder_loses_only_its_format(start_host, monkeypatch, tmp_path):
    program = tmp_path / "ffmpeg"
    program.write_text(CRASHING)
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    server = start_host(extensions=[REPOSITORY, PROBE])
    answer = server.txt2img(**animate(video_length=3, format=["PNG", "GIF", "MP4"]), steps=1, save_images=True)
    (warning,) = info_of(answer)["extra_generation_params"]["AnimateDiff warnings"]
    assert "MP4 could not be made" in warning and "going down" in warning
    assert [file.suffix for file in files_in(answer)] == [".png", ".png", ".png", ".gif"]
    assert [file.format for file in files_of(answer)] == ["GIF"]
    server.stop()


def test_two_jobs_do_not_take_the_same_name(host, saving_to, tmp_path):
    """Another WebUI that saves to the same folder has reserved the next number, and has written nothing yet."""
    saving_to(tmp_path)
    request = {**animate(video_length=2, format=["PNG", "GIF"]), "steps": 1, "save_images": True}
    first = files_in(host.txt2img(**request))
    lock_file = first[-1].parent / ".00001"
    lock_file.touch()
    second = files_in(host.txt2img(**request))
    assert first[-1].name.startswith("00000-") and second[-1].name.startswith("00002-")
    assert lock_file.exists() and sorted(first[-1].parent.glob(".*")) == [lock_file], "only the other one's lock file stays"


def test_pictures_that_do_not_match_the_frames_are_refused(host):
    from support.pictures import encode, gradient

    pictures = [encode(gradient(shift=shift)) for shift in (0, 9, 18)]
    answer = host.img2img(**animate(), init_images=pictures, denoising_strength=0.5)
    assert answer.status_code == 422 and f"3 pictures for {FRAMES} frames" in answer.json()["detail"]


def test_a_corrected_request_works_after_a_refusal(host):
    assert host.txt2img(**animate(fps=-1)).status_code == 422
    assert len(frames_of(host.txt2img(**animate(), steps=1))) == FRAMES


def test_if_one_format_fails_the_others_are_still_made(host):
    setting = {"override_settings": {"animatediff_mp4_preset": "no-such-preset"}}
    answer = host.txt2img(**animate(format=["MP4", "GIF"], video_length=3), steps=1, **setting)
    (gif,) = files_of(answer)
    assert gif.format == "GIF" and gif.n_frames == 3
    (warning,) = info_of(answer)["extra_generation_params"]["AnimateDiff warnings"]
    assert "MP4" in warning and "no-such-preset" in warning


def test_a_failure_before_the_first_step_leaves_no_half_made_job(host):
    still = pictures_of(host.txt2img())
    host.post("/probe/v1/late-fault", {"at": "start"})
    answer = host.txt2img(**animate())
    assert answer.status_code == 500 and "the console has the details" in answer.json()["detail"]
    assert np.array_equal(pictures_of(host.txt2img()), still)
    assert len(frames_of(host.txt2img(**animate()))) == FRAMES


@pytest.mark.parametrize("failing", ["encode", "gif", "png"])
def test_late_errors_lose_only_the_files_that_they_affect(host, failing):
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
