"""SparseCtrl in the panel, in Chromium: its preset, and pictures that are uploaded."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import expect
from safetensors.torch import save_file

from support.animation import animate, files_of
from support.authors_sparse import sparse_weights
from support.browser import (
    MINUTES,
    ask_for_a_small_clip,
    choose,
    choose_formats,
    file_of,
    frames_of_file,
    frames_of_picture,
    generate,
    gif_in_gallery,
    number,
    set_number,
)
from support.pictures import encode, gradient
from support.server import PROBE, REPOSITORY

pytestmark = pytest.mark.webui_only("the embedded host's page shows no gallery of files")
PRESET = "Image to video (v3 + SparseCtrl RGB)"
MODEL = "v3_sd15_sparsectrl_rgb.safetensors"


@pytest.fixture(scope="module")
def server(start_host, weights, tmp_path_factory):
    """A WebUI whose folder of motion modules has one of v3, one of v1 before it, and a SparseCtrl model."""
    folder = tmp_path_factory.mktemp("motion")
    for family in ("v1", "v3"):
        (folder / f"mm_tiny_{family}.safetensors").symlink_to(weights / "motion" / f"mm_tiny_{family}.safetensors")
    torch.manual_seed(0)
    save_file(sparse_weights("RGB", text_width=64), folder / MODEL)
    server = start_host(extensions=[REPOSITORY, PROBE], options={"animatediff_model_path": str(folder)})
    yield server
    server.stop()


def test_the_preset_leaves_only_the_upload_to_do(browser, server, tmp_path):
    page = browser.new_page(viewport={"width": 1400, "height": 1600})
    page.goto(server.url, wait_until="domcontentloaded", timeout=2 * MINUTES)
    ask_for_a_small_clip(page)
    choose(page, "txt2img-ad-motion-module", "mm_tiny_v1.safetensors")
    page.locator("#txt2img-ad-presets .label-wrap").click()
    choose(page, "txt2img-ad-preset", PRESET)
    page.locator("#txt2img-ad-preset-load").click()
    prompt = page.locator("#txt2img_prompt textarea").first
    expect(prompt).to_have_value("a cat <lora:v3_sd15_adapter:1>", timeout=MINUTES)
    chosen = {"motion-module": "mm_tiny_v3.safetensors", "sparse-model": MODEL}
    for name, value in chosen.items():
        expect(page.locator(f"#txt2img-ad-{name} input").first).to_have_value(value, timeout=MINUTES)
    expect(page.locator("#txt2img-ad-sparse-init-image")).to_be_hidden()

    pictures = [gradient(shift=shift) for shift in (0, 30)]
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"{index}.png")
    page.locator("#txt2img-ad-sparse-pictures input[type=file]").first.set_input_files(
        [tmp_path / f"{index}.png" for index in range(2)]
    )
    expect(page.locator("#txt2img-ad-sparse-pictures")).to_contain_text(re.compile(r"1\s*\.png"), timeout=MINUTES)
    page.locator("#txt2img-ad-sparse-frames textarea, #txt2img-ad-sparse-frames input").first.fill("0, -2")
    page.locator("#txt2img-ad-sparse-frames textarea, #txt2img-ad-sparse-frames input").first.blur()
    set_number(page, "txt2img-ad-video-length", 4)
    set_number(page, "txt2img_seed", 7)
    prompt.fill("a cat")
    choose_formats(page, "GIF")
    names = {"sampler_name": "sampling", "scheduler": "scheduler"}  # the page begins with others than a request, in Neo
    settings = {key: page.locator(f"#txt2img_{name} input").first.input_value() for key, name in names.items()}
    cfg_scale = float(number(page, "txt2img_cfg_scale"))
    generate(page)
    made = frames_of_file(file_of(gif_in_gallery(page)))
    page.close()

    request = animate(
        model="mm_tiny_v3.safetensors",
        video_length=4,
        closed_loop="N",
        format=["GIF"],
        sparse_ctrl=MODEL,
        sparse_pictures=[{"frame": 0, "image": encode(pictures[0])}, {"frame": 2, "image": encode(pictures[1])}],
    )
    gif = files_of(server.txt2img(**request, **settings, prompt="a cat", steps=3, seed=7, cfg_scale=cfg_scale))[0]
    np.testing.assert_array_equal(made, frames_of_picture(gif))


def test_a_preset_says_which_file_is_missing(browser, start_host, weights, tmp_path):
    (tmp_path / "mm_tiny_v3.safetensors").symlink_to(weights / "motion" / "mm_tiny_v3.safetensors")
    server = start_host(extensions=[REPOSITORY, PROBE], options={"animatediff_model_path": str(tmp_path)})
    page = browser.new_page(viewport={"width": 1400, "height": 1600})
    page.goto(server.url, wait_until="domcontentloaded", timeout=2 * MINUTES)
    ask_for_a_small_clip(page)
    page.locator("#txt2img-ad-presets .label-wrap").click()
    choose(page, "txt2img-ad-preset", PRESET)
    page.locator("#txt2img-ad-preset-load").click()
    expect(page.locator(".toast-wrap")).to_contain_text(
        "This preset needs the model v3_sd15_sparsectrl_rgb.ckpt", timeout=MINUTES
    )
    page.close()
    server.stop()
