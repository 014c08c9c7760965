"""Motion modules for SDXL, on a narrow SDXL checkpoint: they match their authors' code, and all features work with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import expect
from safetensors.torch import save_file

from support.animation import LONG, animate, difference, files_of, frames_of, info_of, recording, unet_calls
from support.browser import MINUTES, choose, file_of, generate, gif_in_gallery, open_panel, set_number
from support.pictures import encode, gradient, mean_difference, pictures_of
from support.published_layouts import XL_FAMILIES, in_hotshots_layout, module_weights, save_as_the_beta
from support.sdxl_weights import HEAD_WIDTH
from support.server import PROBE, REPOSITORY

pytestmark = [
    pytest.mark.webui_only("the embedded host has no SDXL"),
    pytest.mark.not_on(("Forge", "Neo", "reForge"), "it takes no narrow SDXL checkpoint"),
]

FILES = {"xl-beta": "mm_sdxl_v10_beta.ckpt", "hotshot": "hsxl_temporal_layers.safetensors"}
FRAMES = {"xl-beta": 16, "hotshot": 8}
FACTS = {
    "xl-beta": {"motion_over_frames": True, "betas": "sdxl to 0.020"},
    "hotshot": {"over_frames": True, "betas": "sdxl", "sizes": [1920, 1080, 0, 0, 512, 512]},
}
"""The settings in the authors' code and configurations, for the reference UNet."""
LIMIT, POWER = 2, 10
"""In levels of 255: the most that a right frame may differ, and the least that a wrong one must."""
HIRES = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent", "denoising_strength": 0.6, "hr_second_pass_steps": 2}
JOB = {"steps": 3, "negative_prompt": "bad"}
every_family = pytest.mark.parametrize("family", XL_FAMILIES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, weights):
    folder = tmp_path_factory.mktemp("motion-xl")
    for family, file in FILES.items():
        torch.manual_seed(len(family))
        tensors = module_weights(family)
        for key, value in tensors.items():  # random layers change much, where trained ones each change a little
            if "proj_out" in key:
                tensors[key] = value * 0.5
        save_file(tensors, folder / f"{family}.authors")
        if family == "hotshot":
            save_file(in_hotshots_layout(tensors), folder / file)
        else:
            save_as_the_beta(tensors, folder / file)
    torch.manual_seed(3)
    save_file(module_weights("v3"), folder / "v3.safetensors")
    return folder


@pytest.fixture(scope="module")
def server(start_host, xl_weights, folder):
    options = {"sd_model_checkpoint": "tiny-xl-a.safetensors", "animatediff_model_path": str(folder)}
    options["show_progress_type"] = "Approx cheap"  # for another method, the WebUI would download a network
    server = start_host(extensions=[REPOSITORY, PROBE], options=options)
    yield server
    server.stop()


def asked(family, **args):
    return animate(model=FILES[family], **args)


def ours(server, family, frames=4, args=None, **request):
    method = server.img2img if "init_images" in request else server.txt2img
    return method(**asked(family, video_length=frames, **(args or {})), **request)


@pytest.fixture
def expected(server, folder):
    """Returns the frames of a request from the authors' UNet, without the extension."""

    def run(family, frames=4, **request):
        body = {"module": str(folder / f"{family}.authors"), "frames": frames, "head_width": HEAD_WIDTH, **FACTS[family]}
        assert server.post("/probe/v1/reference", body).ok
        method = server.img2img if "init_images" in request else server.txt2img
        try:
            return frames_of(method(batch_size=frames, override_settings={"return_grid": False}, **request))
        finally:
            assert server.post("/probe/v1/reference", {}).ok

    return run


@every_family
def test_the_unet_equals_the_authors_in_every_order_of_rows(server, folder, family):
    norms = {key: value for key, value in FACTS[family].items() if "over_frames" in key}
    body = {"module": str(folder / f"{family}.authors"), "own_file": str(folder / FILES[family]), "frames": 5, **norms}
    found = server.post("/probe/v1/differences", {**body, "head_width": HEAD_WIDTH}).json()
    assert found.pop("spread") > 0.1
    assert len(found) == 5 and max(found.values()) < 1e-5


@every_family
@pytest.mark.parametrize("norms", ["over_frames", "motion_over_frames"])
def test_the_comparison_detects_the_other_norms(server, folder, family, norms):
    wrong = {"over_frames": False, "motion_over_frames": False, norms: norms not in FACTS[family]}
    body = {"module": str(folder / f"{family}.authors"), "own_file": str(folder / FILES[family]), "frames": 5, **wrong}
    found = server.post("/probe/v1/differences", {**body, "head_width": HEAD_WIDTH}).json()
    assert found["one clip"] > 1e-3


REQUESTS = {
    "Euler a": {"sampler_name": "Euler a"},
    "DDIM": {"sampler_name": "DDIM"},
    "emphasis, editing": {"prompt": "a (red:1.3) [cat:dog:0.5]", "steps": 4},
    "no negative prompt": {"negative_prompt": ""},
    "a longer prompt": {"prompt": LONG},
    "a longer negative prompt": {"negative_prompt": LONG},
    "hires": HIRES,
    "another size": {"width": 96, "height": 64},
}


@every_family
@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_frames_equal_those_of_the_authors_unet(server, expected, family, request_):
    request = {**JOB, **request_}
    frames, wanted = frames_of(ours(server, family, **request)), expected(family, **request)
    assert difference(frames, wanted) <= LIMIT
    assert mean_difference(frames[0], frames[3]) > POWER


@every_family
@pytest.mark.parametrize("frames", [8, 16])
def test_clips_of_their_trained_length(server, expected, family, frames):
    together = {"batch_size": frames}
    assert difference(frames_of(ours(server, family, frames, together, **JOB)), expected(family, frames, **JOB)) <= LIMIT


@every_family
def test_frames_from_a_picture(server, expected, family):
    picture = {"init_images": [encode(gradient())], "denoising_strength": 0.7}
    seed = {"seed": 5}
    server.post("/probe/v1/seed", seed)
    frames = frames_of(ours(server, family, **JOB, **picture, args={"latent_power": 1, "latent_scale": 1e9}))
    server.post("/probe/v1/seed", seed)
    assert difference(frames, expected(family, **JOB, **picture)) <= LIMIT


@pytest.mark.parametrize("sizes", [None, [64, 64, 0, 0, 64, 64]])
def test_hotshots_size_conditioning_changes_the_frames(server, expected, sizes, monkeypatch):
    monkeypatch.setitem(FACTS, "hotshot", {**FACTS["hotshot"], "sizes": sizes})
    assert difference(frames_of(ours(server, "hotshot", **JOB)), expected("hotshot", **JOB)) > LIMIT


@every_family
def test_two_videos(server, family):
    both = frames_of(ours(server, family, n_iter=2, **JOB))
    assert len(both) == 8
    assert np.array_equal(both[:4], frames_of(ours(server, family, **JOB)))
    assert mean_difference(both[0], both[4]) > POWER


@every_family
def test_a_lora_of_the_webui(server, family):
    plain, changed = (frames_of(ours(server, family, prompt=f"a cat{lora}", **JOB)) for lora in ("", " <lora:lora_tiny_xl:1>"))
    assert mean_difference(plain, changed) > 1
    assert np.array_equal(plain, frames_of(ours(server, family, prompt="a cat", **JOB)))


@every_family
def test_the_noise_schedule_is_replaced_and_restored(server, family):
    before = server.get("/probe/v1/state").json()
    with recording(server) as record:
        frames_of(ours(server, family, **JOB))
    last = {"xl-beta": 0.020, "hotshot": 0.012}[family]
    betas = torch.linspace(0.00085**0.5, last**0.5, 1000, dtype=torch.float64) ** 2
    alphas = (1 - betas).cumprod(0)
    found = torch.tensor(record["sampler_runs"][0]["noise_table"], dtype=torch.float64)
    torch.testing.assert_close(found, ((1 - alphas) / alphas).sqrt(), rtol=2e-5, atol=0)
    assert all(call["forward_hooks"] == 15 for call in unet_calls(record["sampler_runs"][0]))
    assert server.get("/probe/v1/state").json() == before


@every_family
@pytest.mark.parametrize("how", ["interrupt", "an exception"])
def test_a_plain_image_made_afterwards_is_the_same_to_the_bit(server, family, how):
    plain = pictures_of(server.txt2img(sampler_name="Euler a", batch_size=2))
    if how == "interrupt":
        server.post("/probe/v1/interrupt-at", {"step": 2})
        assert len(frames_of(ours(server, family))) == 4
    else:
        server.post("/probe/v1/fault", {"step": 2})
        assert ours(server, family).status_code == 500
    assert np.array_equal(pictures_of(server.txt2img(sampler_name="Euler a", batch_size=2)), plain)


# --- features that build on motion modules ---


@every_family
@pytest.mark.parametrize("mode", ["whole UNet", "motion attention"])
def test_one_window_equals_no_windows_and_several_are_blended(server, family, mode):
    windows = {"batch_size": 4, "context_mode": mode}
    assert difference(frames_of(ours(server, family, 4, windows, **JOB)), frames_of(ours(server, family, 4, **JOB))) == 0
    with recording(server) as record:
        frames = frames_of(ours(server, family, 7, {**windows, "overlap": 1}, **JOB))
    assert len(frames) == 7 and min(frame.std() for frame in frames) > 1
    rows = {call["rows"] for call in unet_calls(record["sampler_runs"][0])}
    assert rows == ({8} if mode == "whole UNet" else {14})


@every_family
def test_frames_at_keyframes_equal_single_images_of_their_prompts(server, family):
    """With the module off, a frame at a keyframe is the single image of its prompt."""
    args = {"motion_start": 0.99}
    travel = frames_of(ours(server, family, 3, args, **{**JOB, "prompt": "0: a cat\n2: a red boat on a lake"}))
    for frame, prompt in ((0, "a cat"), (2, "a red boat on a lake")):
        still = frames_of(ours(server, family, 3, args, **{**JOB, "prompt": prompt}))
        assert difference(travel[frame : frame + 1], still[frame : frame + 1]) <= 1
    assert min(mean_difference(travel[1], travel[other]) for other in (0, 2)) > 1


@every_family
def test_frames_equal_single_images_where_the_module_is_off(server, family):
    """Except with the beta, whose noise schedule applies to the whole job."""
    stills = pictures_of(server.txt2img(batch_size=4, override_settings={"return_grid": False}, **JOB))
    apart = difference(frames_of(ours(server, family, args={"motion_start": 0.99}, **JOB)), np.stack(stills))
    assert apart <= 1 if family == "hotshot" else apart > LIMIT


def test_a_rule_for_a_level_that_sdxl_does_not_have_gives_a_warning(server):
    answer = ours(server, "xl-beta", args={"motion_rules": "up_3: scale 1.2; up_2: scale 1.1"}, **JOB)
    comments = info_of(answer)["comments"] if "comments" in info_of(answer) else str(info_of(answer))
    assert "The motion rule for up_3 has no effect" in comments and "for up_2" not in comments
    assert "the size is 64×64, not about as large as 1024×1024" in comments


def test_first_frame_attention_changes_frames_and_zero_does_not(server):
    loose, held = (frames_of(ours(server, "xl-beta", args={"first_frame_attention": anchor}, **JOB)) for anchor in (0.0, 1.0))
    assert np.array_equal(loose, frames_of(ours(server, "xl-beta", **JOB))) and mean_difference(loose, held) > 0.5


def test_another_checkpoint_as_refiner_is_animated_too(server):
    refiner = {"refiner_checkpoint": "tiny-xl-b.safetensors", "refiner_switch_at": 0.5}
    with recording(server) as record:
        frames = frames_of(ours(server, "xl-beta", **{**JOB, "steps": 4}, **refiner))
    assert all(call["forward_hooks"] == 15 for call in unet_calls(record["sampler_runs"][0]))
    assert mean_difference(frames, frames_of(ours(server, "xl-beta", **{**JOB, "steps": 4}))) > 1


def test_a_video_is_saved(server):
    answer = ours(server, "hotshot", 8, {"format": ["GIF"]}, **JOB)
    (gif,) = files_of(answer)
    assert gif.n_frames == 8 and gif.info["duration"] == 120  # 8 fps, in hundredths of a second


# --- on the page ---


@pytest.fixture
def page(browser, server):
    page = browser.new_page(viewport={"width": 1400, "height": 1600})
    page.goto(server.url, wait_until="domcontentloaded", timeout=2 * MINUTES)
    open_panel(page)
    page.locator("#txt2img_prompt textarea").first.fill("a cat <lora:lora_tiny_xl:1>")
    for name, value in {"txt2img_steps": 3, "txt2img_width": 64, "txt2img_height": 64, "txt2img_batch_count": 2}.items():
        set_number(page, name, value)
    yield page
    page.close()


@pytest.mark.parametrize(
    ("family", "made_for"),
    [
        ("xl-beta", "Euler, DDIM, 100 steps, CFG 8.5, about 1024×1024"),
        ("hotshot", "Euler a, 30 steps, CFG 5, about 512×512"),
    ],
)
def test_two_clips_from_the_page(page, family, made_for):
    choose(page, "txt2img-ad-motion-module", FILES[family])
    advice = page.locator("#txt2img-ad-advice").first
    expect(advice).to_contain_text(made_for)
    expect(advice).to_contain_text("for checkpoints of type SDXL")
    expect(advice).to_contain_text("the size is 64×64, not about as large as")
    expect(advice).not_to_contain_text("assumed")
    generate(page)
    for index in (0, 1):
        picture = page.locator(
            "#txt2img_gallery .grid-container img[src*='.gif'], #txt2img_gallery .thumbnails img[src*='.gif']"
        )
        picture.nth(index).wait_for(timeout=2 * MINUTES)
        with Image.open(file_of(picture.nth(index))) as gif:
            assert gif.n_frames == FRAMES[family]


@every_family
def test_hires_from_the_page(page, family):
    choose(page, "txt2img-ad-motion-module", FILES[family])
    page.locator("#txt2img_hr .label-wrap").first.click()
    expect(page.locator("#txt2img_hr_scale").first).to_be_visible()
    for name, value in {"txt2img_hr_scale": 1.5, "txt2img_batch_count": 1, "txt2img-ad-video-length": 8}.items():
        set_number(page, name, value)
    generate(page)
    with Image.open(file_of(gif_in_gallery(page))) as gif:
        assert gif.n_frames == 8 and gif.size == (96, 96)


@every_family
def test_a_plain_image_after_an_interrupt_from_the_page(page, server, family):
    plain = pictures_of(server.txt2img(prompt="a cat <lora:lora_tiny_xl:1>", steps=3, seed=7, sampler_name="DPM++ 2M"))[0]
    choose(page, "txt2img-ad-motion-module", FILES[family])
    for name, value in {"txt2img_steps": 150, "txt2img_batch_count": 1, "txt2img_seed": 7}.items():
        set_number(page, name, value)
    generate(page)
    page.wait_for_function("fetch('/sdapi/v1/progress').then(a => a.json()).then(job => job.state.sampling_step > 3)")
    page.locator("#txt2img_interrupt").click()
    picture = page.locator("#txt2img_gallery img").first
    picture.wait_for(timeout=2 * MINUTES)
    assert "txt2img-images" not in picture.get_attribute("src"), "the WebUI does not save incomplete images"
    with Image.open(file_of(picture)) as gif:
        assert gif.format == "GIF" and gif.n_frames == FRAMES[family]
    set_number(page, "txt2img_steps", 3)
    page.locator("#txt2img-ad-enable .label-wrap").first.click()
    generate(page)
    saved = page.locator("#txt2img_gallery img[src*='txt2img-images']").first
    saved.wait_for(timeout=2 * MINUTES)
    with Image.open(file_of(saved)) as found:
        assert np.array_equal(np.asarray(found.convert("RGB")), plain)


# --- refusals ---


def checkpoint(name):
    return {"override_settings": {"sd_model_checkpoint": name}}


@pytest.mark.parametrize(
    ("model", "loaded", "words"),
    [
        ("v3.safetensors", "tiny-xl-a.safetensors", ["is SDXL", "v3.safetensors is made for SD 1.5", "Choose an SD 1.5"]),
        (FILES["xl-beta"], "tiny-a.safetensors", ["is SD 1.5", "is made for SDXL", "Choose an SDXL checkpoint"]),
        (FILES["hotshot"], "tiny-a.safetensors", ["is SD 1.5", "is made for SDXL", "Choose an SDXL checkpoint"]),
        (FILES["xl-beta"], "tiny-xl-refiner.safetensors", ["is the SDXL refiner", "Choose an SDXL checkpoint"]),
    ],
)
def test_a_checkpoint_of_another_kind_is_refused(server, model, loaded, words):
    answer = server.txt2img(**animate(model=model, video_length=4), **checkpoint(loaded))
    assert answer.status_code == 422
    assert all(word in answer.json()["detail"] for word in words), answer.text


@pytest.mark.parametrize("name", ["tiny-xl-refiner.safetensors", "tiny-a.safetensors"])
def test_a_refiner_of_another_kind_is_refused_before_anything_is_sampled(server, name):
    with recording(server) as record:
        answer = ours(server, "xl-beta", **JOB, refiner_checkpoint=name, refiner_switch_at=0.5)
    assert answer.status_code == 422 and not record["sampler_runs"]
    assert answer.json()["detail"].startswith(f"The refiner {name}") and "for it, or none" in answer.json()["detail"]
    assert ours(server, "xl-beta", **JOB, refiner_checkpoint=name, refiner_switch_at=1.0).ok, "the refiner never takes over"


def test_a_hires_checkpoint_of_another_kind_is_refused_before_anything_is_sampled(server):
    with recording(server) as record:
        answer = ours(server, "xl-beta", **JOB, **HIRES, hr_checkpoint_name="tiny-a.safetensors")
    assert answer.status_code == 422 and not record["sampler_runs"]
    assert answer.json()["detail"].startswith("The hires checkpoint tiny-a.safetensors")


def test_a_second_module_of_another_kind_is_refused(server):
    answer = ours(server, "xl-beta", args={"model_2": "v3.safetensors"}, **JOB)
    assert answer.status_code == 422
    assert "v3.safetensors (model_2) is made for SD 1.5, the first for SDXL" in answer.json()["detail"]
