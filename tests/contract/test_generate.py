"""From a request to a video: the number of frames, the files, and what each sampler run did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from motion_module.noise_schedule import ANIMATEDIFF, STABLE_DIFFUSION
from support import checkpoint_pairs
from support.animation import FRAMES, LAYERS, animate, files_of, frames_of, info_of, recording, unet_calls
from support.pictures import encode, gradient, mean_difference
from support.server import Server

LEAST, MOST = (float(sigma) for sigma in ANIMATEDIFF.sigmas()[[0, -1]])
MASK = np.zeros((64, 64, 3), np.uint8)
MASK[16:48, 16:48] = 255
IMG2IMG = {"init_images": [encode(gradient())], "denoising_strength": 0.5}


CHECKPOINT_PAIRS = pytest.mark.parametrize(("first", "second"), checkpoint_pairs.PAIRS)


def checkpoint(name):
    return {"override_settings": {"sd_model_checkpoint": name}}


def assert_own_schedule(host, name):
    """Asserts that a plain image with a checkpoint that was loaded during a job has Stable Diffusion's own sigmas."""
    with recording(host) as record:
        assert host.txt2img(**checkpoint(name), steps=1).ok
    own = STABLE_DIFFUSION.sigmas()[[0, -1]].tolist()
    assert record["sampler_runs"][0]["sigmas"] == pytest.approx(own, rel=2e-5)  # of float32 in the WebUI


def runs_of(host: Server, method, **request):
    with recording(host) as record:
        frames = frames_of(method(**request))
    assert record["stray_unet_calls"] == []
    return frames, record["sampler_runs"]


def assert_animated(run, layers=LAYERS["v3"]):
    """Asserts that a run had AnimateDiff's sigmas, and motion layers in every UNet call."""
    assert run["sigmas"] == pytest.approx((LEAST, MOST), rel=1e-5)
    assert {call["forward_hooks"] for call in unet_calls(run)} == {layers}


@pytest.mark.parametrize(
    ("family", "frames"),
    [("v1", 1), ("v1", 24), ("v2", 15), ("v2", 32), ("v3", 1), ("v3", 3), ("v3", 15), ("v3", 24), ("v3", 32)],
)
def test_a_video_has_the_requested_number_of_frames(host, family, frames):
    answer = host.txt2img(**animate(family, video_length=frames, format=["GIF", "Frame"]), steps=1)
    gif, *stills = files_of(answer)
    assert gif.format == "GIF" and gif.n_frames == frames == len(stills)


def test_the_default_number_of_frames_is_sixteen(host):
    assert len(frames_of(host.txt2img(**animate(video_length=0), steps=1))) == 16


@pytest.mark.parametrize("family", ["v1", "v2", "v3"])
@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M", "DDIM"])
def test_motion_layers_and_schedule_apply_in_every_step(host, family, sampler):
    _, (run,) = runs_of(host, host.txt2img, **animate(family), sampler_name=sampler)
    assert {call["forward_hooks"] for call in unet_calls(run)} == {LAYERS[family]}
    if sampler == "DDIM":
        signal = ANIMATEDIFF.alphas_cumprod()[[0, -1]].tolist()
        assert run["alphas_cumprod"] == run["model_alphas_cumprod"] == pytest.approx(signal, rel=1e-5)
    else:
        assert_animated(run, LAYERS[family])
        assert run["denoiser_calls"][0]["noise_level"] == pytest.approx(MOST, rel=1e-5)


def test_the_module_changes_the_images_of_the_same_batch(host):
    moved = frames_of(host.txt2img(**animate()))
    stills = frames_of(host.txt2img(batch_size=FRAMES, override_settings={"return_grid": False}))
    assert mean_difference(moved, stills) > 10


def test_a_ckpt_gives_the_same_frames(host):
    from_ckpt = frames_of(host.txt2img(**animate(model="mm_tiny_v3.ckpt")))
    assert np.array_equal(from_ckpt, frames_of(host.txt2img(**animate())))


def test_img2img_uses_the_noise_schedule_of_the_module(host):
    frames, (run,) = runs_of(host, host.img2img, **animate(), **IMG2IMG)
    assert len(frames) == FRAMES
    assert_animated(run)
    # k-diffusion's 4 steps are at timesteps 999, 666, 333 and 0; at strength 0.5 the WebUI starts at the second.
    assert run["denoiser_calls"][0]["noise_level"] == pytest.approx(float(ANIMATEDIFF.sigmas()[666]), rel=1e-5)


@pytest.mark.webui_only("the embedded host has no inpainting")
@pytest.mark.parametrize("whole_picture", [True, False])
def test_inpainting_with_one_mask_keeps_the_area_outside(host, whole_picture):
    request = {**IMG2IMG, "mask": encode(MASK), "inpaint_full_res": not whole_picture, "mask_blur": 0, "inpainting_fill": 1}
    frames, (run,) = runs_of(host, host.img2img, **animate(), **request)
    assert_animated(run)
    assert len(frames) == FRAMES
    for frame in frames:
        assert mean_difference(frame[:12], gradient()[:12]) < 2
    assert mean_difference(frames[0][20:44, 20:44], frames[3][20:44, 20:44]) > 2


@pytest.mark.parametrize(("args", "images"), [({}, 1), ({"last_frame": IMG2IMG["init_images"][0]}, 2)])
@pytest.mark.parametrize("mode", ["blend with noise", "strength ramp"])
def test_the_vae_encodes_each_given_image_once(host, mode, args, images):
    with recording(host) as record:
        frames = frames_of(host.img2img(**animate(image_mode=mode, **args), **IMG2IMG, steps=2))
    assert record["vae_encoder_rows"] == images and len(frames) == FRAMES


def test_each_frame_can_have_its_own_picture(host):
    """At a strength near zero, each frame must be its own picture after the checkpoint's VAE."""
    pictures = [encode(gradient(shift=8 * index)) for index in range(FRAMES)]
    faint = {"denoising_strength": 0.01}
    frames = frames_of(host.img2img(**animate(), init_images=pictures, **faint))
    alone = [frames_of(host.img2img(init_images=[picture], **faint))[0] for picture in pictures]
    for index, frame in enumerate(frames):
        assert int(np.argmin([mean_difference(frame, other) for other in alone])) == index


@pytest.mark.parametrize("upscaler", ["Latent", "Lanczos"])
def test_hires_fix_animates_both_passes(host, upscaler):
    hires = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": upscaler, "denoising_strength": 0.6}
    frames, runs = runs_of(host, host.txt2img, **animate(), **hires)
    assert frames.shape == (FRAMES, 96, 96, 3)
    assert [run["is_hr_pass"] for run in runs] == [False, True]
    for run in runs:
        assert_animated(run)


@CHECKPOINT_PAIRS
def test_a_hires_checkpoint_is_animated_too(host, first, second):
    hires = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent", "denoising_strength": 0.6, **checkpoint(first)}
    frames, runs = runs_of(host, host.txt2img, **animate(), **hires, hr_checkpoint_name=second)
    assert len(frames) == FRAMES and len(runs) == 2
    for run in runs:
        assert_animated(run)
    same_checkpoint = frames_of(host.txt2img(**animate(), **hires))
    assert mean_difference(frames, same_checkpoint) > 3
    assert_own_schedule(host, second)


@CHECKPOINT_PAIRS
def test_a_refiner_of_the_same_family_is_animated_too(host, first, second):
    refiner = {"refiner_checkpoint": second, "refiner_switch_at": 0.3}
    refined, (run,) = runs_of(host, host.txt2img, **animate(), **checkpoint(first), **refiner)
    assert_animated(run)
    assert len(refined) == FRAMES
    assert mean_difference(refined, frames_of(host.txt2img(**animate(), **checkpoint(first)))) > 3
    assert_own_schedule(host, second)


def test_a_lora_applies_as_in_single_images(host):
    with_lora = frames_of(host.txt2img(**animate(), prompt="a cat <lora:lora_tiny:1>"))
    assert mean_difference(with_lora, frames_of(host.txt2img(**animate()))) > 3


def test_zero_terminal_snr_applies_to_the_modules_schedule(host):
    setting = {"override_settings": {"sd_noise_schedule": "Zero Terminal SNR"}}
    for method, request in ((host.txt2img, {}), (host.img2img, IMG2IMG)):
        with recording(host) as record:
            assert method(**animate(), **request, **setting).ok
        (run,) = record["sampler_runs"]
        assert run["sigmas"][0] == pytest.approx(LEAST, rel=1e-3)
        assert run["sigmas"][1] > 1000


def test_batch_count_makes_videos_with_their_own_seeds_and_files(host):
    request = {**animate(format=["GIF", "PNG"], video_length=4, request_id="abc"), "n_iter": 3, "seed": 7, "save_images": True}
    answer = host.txt2img(**request)
    info = info_of(answer)
    files = [Path(file) for file in info["extra_generation_params"]["AnimateDiff files"]]
    gifs, pngs = ([file for file in files if file.suffix == suffix] for suffix in (".gif", ".png"))
    assert [file.stem.split("-", 1)[1] for file in gifs] == ["7-abc", "11-abc", "15-abc"]
    assert info["all_seeds"] == [7, 11, 15]
    assert [text.split("Seed: ")[1].split(",")[0] for text in info["infotexts"]] == ["7", "11", "15"]
    assert [gif.n_frames for gif in files_of(answer)] == [4, 4, 4]
    assert all(file.parent.parent.name == "AnimateDiff" for file in gifs)
    for gif in gifs:
        frames = sorted(file for file in pngs if file.parent == gif.with_suffix(""))
        assert [frame.name for frame in frames] == [f"{index:05}.png" for index in range(4)]
        infotext = Image.open(gif).info["comment"].decode()
        assert infotext == Image.open(frames[0]).info["parameters"] == info["infotexts"][gifs.index(gif)]
        assert "mm_tiny_v3.safetensors" in infotext


def test_nothing_is_saved_unless_the_request_asks_for_it(host):
    before = sorted(host.data_dir.rglob("outputs/**/*"))
    assert host.txt2img(**animate(format=["GIF", "PNG"], video_length=2), steps=1).ok
    assert sorted(host.data_dir.rglob("outputs/**/*")) == before


def heard(host, *, stamps=False, **request):
    """Returns the answer to a request, and what a gallery that fails at every file has heard of the files."""
    host.post("/probe/v1/gallery", {"on": True, "stamps": stamps})
    try:
        answer = host.txt2img(**request, steps=1, save_images=True)
    finally:
        host.post("/probe/v1/gallery", {"on": False})
    return answer, host.get("/probe/v1/gallery").json()


@pytest.mark.parametrize("by_the_webui", [False, True], ids=["our folders", "the WebUI's folder"])
def test_other_extensions_hear_of_each_file_once(host, by_the_webui):
    request = animate(format=["GIF", "WEBP", "MP4", "WEBM", "PNG", "TXT"], video_length=3, video_delivery="url")
    setting = {"override_settings": {"animatediff_save_to_custom": not by_the_webui}}
    answer, entries = heard(host, **request, **setting)
    info = info_of(answer)
    files = info["extra_generation_params"]["AnimateDiff files"]
    assert [entry["file"] for entry in entries] == [file for file in files if not file.endswith(".txt")]
    assert sorted(Path(entry["file"]).suffix for entry in entries) == sorted([".gif", ".webp", ".mp4", ".webm", *[".png"] * 3])
    assert {entry["text"] for entry in entries if not entry["file"].endswith(".png")} == {info["infotexts"][0]}
    assert all(entry["size"] == [64, 64] and entry["steps"] == 1 and entry["is_whole"] for entry in entries)
    assert "AnimateDiff warnings" not in info["extra_generation_params"], "a gallery that fails disturbs nothing"
    assert files_of(answer)[0].n_frames == 3


def test_other_extensions_hear_of_nothing_where_nothing_is_saved(host):
    _, entries = heard(host, **animate(format=["TXT"], video_length=2))
    assert entries == []


def test_other_extensions_may_change_frames_that_are_saved(host):
    answer, entries = heard(host, stamps=True, **animate(format=["GIF", "PNG"], video_length=2))
    files = [Path(entry["file"]) for entry in entries]
    assert [file.name for file in files[:2]] == ["00000.png", "00001.png"] and files[2].suffix == ".gif"
    for frame in map(Image.open, files[:2]):
        assert frame.info["stamp"] == "by the probe" and frame.getextrema() == ((255, 255),) * 3
    assert np.asarray(files_of(answer)[0].convert("RGB")).min() < 255


def test_frames_can_be_saved_in_the_webuis_own_folder(host):
    request = {**animate(format=["GIF", "PNG"], video_length=3), "steps": 1, "save_images": True}
    before = set(host.data_dir.rglob("txt2img-images/*/*.png"))
    answer = host.txt2img(**request, override_settings={"animatediff_save_to_custom": False})
    files = [Path(file) for file in info_of(answer)["extra_generation_params"]["AnimateDiff files"]]
    assert [file.suffix for file in files] == [".png", ".png", ".png", ".gif"]
    new = set(host.data_dir.rglob("txt2img-images/*/*.png")) - before
    assert len(new) == 3 and not any("AnimateDiff" in file.parts for file in new)
    assert set(files[:3]) == new
