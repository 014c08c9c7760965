"""A source video in the panel, in Chromium: its strip, the ControlNet units that take it, and the preset for a second pass."""

import re

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from support import control_models
from support.animation import animate, files_of
from support.browser import (
    MINUTES,
    choose,
    choose_formats,
    file_of,
    frames_of_file,
    frames_of_picture,
    generate,
    gif_in_gallery,
    number,
    open_panel,
    set_number,
)
from support.control_models import controlnet_dir
from support.pictures import gradient
from support.server import PROBE, REPOSITORY

pytestmark = [
    pytest.mark.webui_only("the embedded host has no ControlNet, and its page none of the panel's scripts"),
    pytest.mark.skipif(controlnet_dir() is None, reason="there is no sd-webui-controlnet: set CONTROLNET_DIR"),
]
FRAMES = 30
SAMPLER = "DPM++ 2M"
"""The one that the page begins with."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A GIF of frames that differ."""
    file = tmp_path_factory.mktemp("clip") / "clip.gif"
    frames = [Image.fromarray(gradient(shift=4 * index)) for index in range(FRAMES)]
    frames[0].save(file, save_all=True, append_images=frames[1:], duration=100)
    return file


@pytest.fixture(scope="module")
def controlnet(start_host, weights):
    """A WebUI with ControlNet and random control models."""
    control_models.make_all(weights / "control")
    options = {"control_net_models_path": str(weights / "control"), "control_net_unit_count": 2}
    server = start_host(extensions=[REPOSITORY, PROBE, controlnet_dir()], options=options)
    yield server
    server.stop()


@pytest.fixture(params=["txt2img", "img2img"])
def tab(request):
    return request.param


@pytest.fixture
def page(browser, controlnet, tab, clip):
    """The page of a WebUI with ControlNet, with an uploaded source video."""
    page = browser.new_page(viewport={"width": 1400, "height": 1600})
    page.goto(controlnet.url, wait_until="domcontentloaded", timeout=2 * MINUTES)
    page.locator("#tabs > .tab-nav button", has_text=tab).click(timeout=2 * MINUTES)
    open_panel(page, tab)
    page.locator(f"#{tab}-ad-source-video .label-wrap").click()
    page.locator(f"#{tab}-ad-video-source input[type=file]").set_input_files(clip)
    page.locator(f"#{tab}_controlnet .label-wrap").first.click()
    yield page
    page.close()


def frames_used(page, tab):
    """Returns the numbers of the frames that the strip marks."""
    return page.locator(f"#{tab}-ad-source-strip .ad-source-used figcaption").evaluate_all(
        "captions => captions.map(caption => parseInt(caption.innerText))"
    )


def switch(page, tab, unit, **controls):
    """Opens a unit of ControlNet, and sets these controls of it."""
    page.locator(f"#{tab}_controlnet_tabs > .tab-nav button", has_text=f"Unit {unit}").click()
    name = f"{tab}_controlnet_ControlNet-{unit}_controlnet"
    for control, value in controls.items():
        if control == "enabled":
            page.locator(f"#{name}_enable_checkbox input").set_checked(value)
        else:
            page.locator(f"#{name}_preprocessor_dropdown input").first.click()
            page.locator(f"#{name}_preprocessor_dropdown li[aria-label='{value}']").dispatch_event("mousedown")


def test_the_strip_follows_the_panel(page, tab):
    shown = page.locator(f"#{tab}-ad-source-strip").first
    expect(shown).to_contain_text(f"Frames used: {FRAMES} · 0:00.00–0:02.90 · Frames of the source: {FRAMES}", timeout=MINUTES)
    assert len(frames_used(page, tab)) == 10
    expect(page.locator(f"#{tab}-ad-overlap").first).to_have_css("opacity", "1")
    for name, value in {"source-start": 4, "source-stride": 3, "video-length": 5}.items():
        set_number(page, f"{tab}-ad-{name}", value)
    expect(shown).to_contain_text(f"Frames used: 5 · 0:00.40–0:01.60 · Frames of the source: {FRAMES}", timeout=MINUTES)
    assert frames_used(page, tab) == [4, 7, 10, 13, 16]
    expect(shown.locator("figure", has_text="first")).to_contain_text("4 0:00.40", timeout=MINUTES)
    expect(shown.locator("figure", has_text="last")).to_contain_text("16 0:01.60", timeout=MINUTES)
    page.locator(f"#{tab}-ad-video-source [aria-label=Clear]").first.click()
    expect(shown).to_have_text("", timeout=MINUTES)
    set_number(page, f"{tab}-ad-video-length", 0)
    expect(page.locator(f"#{tab}-ad-overlap").first).to_have_css("opacity", "0.4" if tab == "txt2img" else "1")
    page.locator(f"#{tab}-ad-video-path textarea, #{tab}-ad-video-path input").first.fill("/etc/passwd")
    expect(shown).to_contain_text("lies outside the folders that may be read", timeout=MINUTES)


def test_the_units_that_take_the_source_are_named(page, tab):
    units = page.locator(f"#{tab}-ad-source-units").first
    nobody = "No ControlNet unit takes its frames."
    if tab == "txt2img":
        expect(units).to_contain_text(nobody, timeout=MINUTES)
    taking = "ControlNet units that take its frames:"
    switch(page, tab, 0, enabled=True, preprocessor="canny")
    expect(units).to_have_text(f"{taking} 0 (canny)", timeout=MINUTES)
    switch(page, tab, 1, enabled=True, preprocessor="tile_resample")
    expect(units).to_have_text(f"{taking} 0 (canny), 1 (tile_resample)", timeout=MINUTES)
    switch(page, tab, 0, enabled=False)
    expect(units).to_have_text(f"{taking} 1 (tile_resample)", timeout=MINUTES)
    if tab == "txt2img":  # in img2img, ControlNet hides its tabs at first
        switch(page, tab, 1)
        batch = page.locator("#txt2img_controlnet .tab-nav button", has_text=re.compile(r"^\s*Batch\s*$"))
        batch.locator("visible=true").click()
        expect(units).to_have_text(
            f"{nobody} Enable one without a picture of its own. · Units without a folder: 1 (tile_resample)", timeout=MINUTES
        )
        folder = page.locator("#txt2img_controlnet_ControlNet-1_batch_image_dir textarea")
        folder.fill("/nowhere")
        folder.press("Shift+Enter")
        folder.press_sequentially("keyframe:0")
        folder.blur()
        assert folder.input_value() == "/nowhere\nkeyframe:0"
        expect(units).to_contain_text("Units with a folder of their own: 1 (tile_resample)", timeout=MINUTES)


@pytest.mark.parametrize("tab", ["txt2img"], indirect=True)
def test_a_unit_with_a_picture_is_said_to_have_it(page, tab, clip, tmp_path):
    Image.fromarray(gradient()).save(tmp_path / "picture.png")
    switch(page, tab, 0, enabled=True, preprocessor="canny")
    upload = f"#{tab}_controlnet_ControlNet-0_input_image input[type=file]"
    page.locator(upload).first.set_input_files(tmp_path / "picture.png")
    expect(page.locator(f"#{tab}-ad-source-units").first).to_contain_text(
        "Units with a picture of their own: 0 (canny)", timeout=MINUTES
    )


@pytest.mark.parametrize("tab", ["img2img"], indirect=True)
def test_a_preset_for_a_second_pass_comes_with_the_extension(page, tab):
    page.locator(f"#{tab}-ad-context-windows .label-wrap").click()
    for name, value in {"source-start": 4, "video-length": 5, "fps": 12, "batch-size": 24}.items():
        set_number(page, f"{tab}-ad-{name}", value)
    page.locator(f"#{tab}-ad-presets .label-wrap").click()
    choose(page, f"{tab}-ad-preset", "Refine a finished video")
    page.locator(f"#{tab}-ad-source-video .label-wrap").first.click()
    expect(page.locator(f"#{tab}-ad-source-start").first).to_be_hidden()
    page.locator(f"#{tab}-ad-preset-load").click()
    expect(page.locator(f"#{tab}-ad-source-start").first).to_be_visible(timeout=MINUTES)
    expect(page.locator(f"#{tab}-ad-source-strip").first).to_contain_text(
        f"Frames used: {FRAMES} · 0:00.00–0:02.90 · Frames of the source: {FRAMES}", timeout=MINUTES
    )
    names = ("source-start", "video-length", "fps", "batch-size")
    assert [number(page, f"{tab}-ad-{name}") for name in names] == ["0", "0", "0", "24"]
    page.locator(f"#{tab}-ad-preset-delete").click()
    expect(page.locator(".toast-wrap")).to_contain_text("comes with the extension and cannot be deleted", timeout=MINUTES)


def test_generate_makes_the_clip_that_the_api_makes(page, tab, controlnet, clip):
    """A unit without a picture, enabled on the page, takes the frames of the uploaded video."""
    count, model = 5, "t2iadapter_tiny_random"
    page.locator(f"#{tab}_prompt textarea").first.fill("a cat")
    sides = {f"{tab}_{name}": value for name, value in {"steps": 3, "width": 64, "height": 64, "seed": 7}.items()}
    for name, value in {**sides, f"{tab}-ad-video-length": count}.items():
        set_number(page, name, value)
    choose(page, f"{tab}-ad-motion-module", "mm_tiny_v3.safetensors")
    choose_formats(page, "GIF", tab=tab)
    if tab == "img2img":
        page.locator("#img2img_image input[type=file]").set_input_files(clip)
    switch(page, tab, 0, enabled=True)
    unit = f"#{tab}_controlnet_ControlNet-0_controlnet"
    page.locator(f"{unit}_model_dropdown input").first.click()
    page.locator(f"{unit}_model_dropdown li", has_text=model).first.dispatch_event("mousedown")
    expect(page.locator(f"#{tab}-ad-source-units").first).to_contain_text("0 (t2iadapter", timeout=MINUTES)
    generate(page, tab)
    made = frames_of_file(file_of(gif_in_gallery(page, tab)))

    source = controlnet.data_dir / "source.gif"
    source.write_bytes(clip.read_bytes())
    with controlnet.settings(animatediff_source_folders=str(controlnet.data_dir)):
        request = animate(video_length=count, video_path=str(source), format=["GIF"], closed_loop="N", fps=0)
        request["alwayson_scripts"]["controlnet"] = {"args": [{"enabled": True, "model": model}]}
        make = controlnet.txt2img if tab == "txt2img" else controlnet.img2img
        more = {} if tab == "txt2img" else {"init_images": [], "denoising_strength": 0.75}
        gif = files_of(make(**request, **more, prompt="a cat", steps=3, seed=7, sampler_name=SAMPLER))[0]
    np.testing.assert_array_equal(made, frames_of_picture(gif))
