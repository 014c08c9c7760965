"""The page in Chromium, used as a person uses it: enable AnimateDiff, press Generate, and see the video move."""

import base64
import re
import shutil
import time

import numpy as np
import pytest
from PIL import Image, ImageSequence
from playwright.sync_api import expect

from support.animation import animate, files_of
from support.browser import (
    MINUTES,
    NO_PLAYER,
    choose_formats,
    expect_prompt,
    file_of,
    frames_of_file,
    frames_of_picture,
    generate,
    gif_in_gallery,
    number,
    open_panel,
    seen_to_move,
    set_number,
)


def test_generate_shows_a_gif_that_moves(page):
    choose_formats(page, "GIF")
    expect(page.locator("#txt2img-ad-duration").first).to_contain_text("Length 0.75 s (6 frames)")
    generate(page)
    assert seen_to_move(gif_in_gallery(page))


def test_an_mp4_is_named_below_the_gallery(page):
    choose_formats(page, "MP4")
    generate(page)
    page.wait_for_function(
        """() => [document.body.innerText, ...[...document.querySelectorAll("textarea")].map(area => area.value)]
            .some(text => /AnimateDiff saved .*\\.mp4/.test(text))""",
        timeout=2 * MINUTES,
    )


# --- the panel ---


def test_controls_without_effect_are_dimmed(page):
    overlap, factor = (page.locator(f"#txt2img-ad-{name}").first for name in ("overlap", "interp-x"))
    for control in (overlap, factor):
        expect(control).to_have_css("opacity", "0.4")
    set_number(page, "txt2img-ad-video-length", 40)
    expect(overlap).to_have_css("opacity", "1")
    expect(factor).to_have_css("opacity", "0.4")


@pytest.mark.webui_only("the embedded host shows no tooltips")
def test_help_is_shown_as_a_tooltip(page):
    expect(page.locator("#txt2img-ad-motion-scale")).to_have_attribute("title", re.compile("^Multiplies the keys"))
    assert page.locator("#txt2img-ad-motion-scale").get_by_text("Multiplies").count() == 0
    dimmed = re.compile(r"^Multiplies .* Has an effect only if Frame interpolation \(interp\) is not “Off”\.$")
    expect(page.locator("#txt2img-ad-interp-x").first).to_have_attribute("title", dimmed)
    expect(page.locator("#txt2img-ad-use-settings")).to_have_attribute("title", re.compile("authors recommend"))


@pytest.mark.webui_only(NO_PLAYER)
def test_pasted_values_beyond_the_end_of_a_slider_are_used(page):
    values = {"motion_scale": "7.125", "motion_effect": "-2", "stride": "20", "batch_size": "100", "overlap": "50"}
    entries = ", ".join(f"{name}: {value}" for name, value in values.items())
    given = f"enable: True, model: mm_tiny_v3.safetensors, video_length: 4, format: GIF, positions: stretch, {entries}"
    page.locator("#txt2img_prompt textarea").first.fill(f'a cat\nSteps: 3, Seed: 5, Size: 64x64, AnimateDiff: "{given}"')
    page.locator("#txt2img_tools #paste").click()
    for name, value in values.items():
        expect(page.locator(f"#txt2img-ad-{name.replace('_', '-')} input[type=number]").first).to_have_value(value)
    generate(page)
    gif_in_gallery(page)
    for name, value in values.items():
        expect(page.locator("#html_info_txt2img").first).to_contain_text(f"{name}: {value}")


# --- settings that travel with the file ---


def read_in_png_info(page, field, file):
    page.locator("#tabs > .tab-nav button", has_text="PNG Info").click()
    page.locator(f"#{field} input[type=file]").set_input_files(file)
    expect(page.locator("#tab_pnginfo")).to_contain_text("mm_tiny_v3.safetensors", timeout=MINUTES)
    page.locator("#tab_pnginfo #txt2img_tab").click()
    expect(page.locator("#txt2img_prompt textarea").first).to_be_visible()


@pytest.mark.webui_only(NO_PLAYER)
@pytest.mark.parametrize("name", ["GIF", "WEBP", "MP4"])
def test_a_file_dropped_on_png_info_makes_the_same_frames_again(page, browser, host, name, tmp_path):
    answer = host.txt2img(
        **animate(video_length=5, fps=12, loop_number=2, format=["GIF", name]), steps=3, prompt="a dog, (red:1.2)", seed=77
    )
    assert answer.ok
    gif, file = tmp_path / "clip.gif", tmp_path / f"clip.{name.lower()}"
    for path, text in zip((gif, file), answer.json()["images"]):  # if both formats are the same, there is one picture
        path.write_bytes(base64.b64decode(text))
    page.reload()
    page.locator("#txt2img-ad-enable input[type=checkbox]").first.wait_for(timeout=2 * MINUTES)
    read_in_png_info(page, "pnginfo-ad-video" if name == "MP4" else "pnginfo_image", file)
    expect(page.locator("#txt2img-ad-enable input[type=checkbox]").first).to_be_checked()
    expect_prompt(page, host, "a dog, (red:1.2)")
    assert [number(page, f"txt2img-ad-{field}") for field in ("video-length", "fps", "loop-number")] == ["5", "12", "2"]
    generate(page)
    assert np.array_equal(frames_of_file(file_of(gif_in_gallery(page))), frames_of_file(gif))


@pytest.mark.webui_only("the embedded host has none of the WebUI's own scripts")
@pytest.mark.not_on(("Neo",), "it saves no grid: “Invalid quality setting”, also of plain pictures")
def test_a_plot_over_fps_and_frames(page):
    choose_formats(page, "GIF")
    page.locator("#script_list input").first.click()
    page.locator("li[aria-label='X/Y/Z plot']").dispatch_event("mousedown")
    for axis, (name, values) in {"x": ("FPS", "4, 10"), "y": ("Number of frames", "2, 5")}.items():
        page.locator(f"#script_txt2img_xyz_plot_{axis}_type input").first.click()
        page.locator(f"li[aria-label='[AnimateDiff] {name}']").dispatch_event("mousedown")
        time.sleep(1)  # the choice clears the field for values
        page.locator(f"#script_txt2img_xyz_plot_{axis}_values textarea").fill(values)
    page.locator("#script_txt2img_xyz_plot_include_lone_images input").check()
    generate(page)
    page.locator("#txt2img_gallery .thumbnails img[src*='.gif']").nth(3).wait_for(timeout=3 * MINUTES)
    found = []
    for picture in page.locator("#txt2img_gallery .thumbnails img[src*='.gif']").all():
        with Image.open(file_of(picture)) as gif:
            found.append((gif.n_frames, sum(frame.info["duration"] for frame in ImageSequence.Iterator(gif))))
    assert found == [(2, 500), (2, 200), (5, 1250), (5, 500)]


@pytest.mark.webui_only(NO_PLAYER)
def test_a_preset_outlives_the_page(page):
    choose_formats(page, "WEBP", "TXT")
    for name, value in {"video-length": 7, "fps": 13, "loop-number": 4}.items():
        if name == "loop-number":
            page.locator("#txt2img-ad-enable").get_by_text("Output").first.click()
        set_number(page, f"txt2img-ad-{name}", value)
    page.locator("#txt2img-ad-presets .label-wrap").click()
    page.locator("#txt2img-ad-preset-name input").fill("slow, “clouds”")
    page.locator("#txt2img-ad-preset-save").click()
    expect(page.locator("#txt2img-ad-preset input").first).to_have_value("slow, “clouds”")
    page.reload()
    open_panel(page)
    page.locator("#txt2img-ad-presets .label-wrap").click()
    assert number(page, "txt2img-ad-fps") == "8"
    page.locator("#txt2img-ad-preset input").first.click()
    page.locator("li[aria-label='slow, “clouds”']").dispatch_event("mousedown")
    page.locator("#txt2img-ad-preset-load").click()
    expect(page.locator("#txt2img-ad-fps input[type=number]").first).to_have_value("13")
    assert [number(page, f"txt2img-ad-{name}") for name in ("video-length", "loop-number")] == ["7", "4"]
    ticked = page.locator("#txt2img-ad-save-format input:checked")
    assert [box.evaluate("box => box.parentElement.innerText.trim()") for box in ticked.all()] == ["WEBP", "TXT"]
    page.locator("#txt2img-ad-preset-delete").click()
    expect(page.locator("#txt2img-ad-preset input").first).to_have_value("")
    page.locator("#txt2img-ad-preset input").first.click()
    expect(page.locator("li[aria-label='slow, “clouds”']")).to_have_count(0)


# --- recommended settings ---


@pytest.fixture
def modules(host, tmp_path):
    """A folder with a module that looks like AnimateDiff-Lightning, chosen in the settings."""
    shutil.copy(host.weights / "motion" / "mm_tiny_v2.safetensors", tmp_path / "Lightning 4step.safetensors")
    shutil.copy(host.weights / "motion" / "mm_tiny_v3.safetensors", tmp_path / "mm_tiny_v3.safetensors")
    with host.settings(animatediff_model_path=str(tmp_path)):
        yield


def chosen(page, name):
    return page.locator(f"#{name} input").first.input_value()


@pytest.mark.usefixtures("modules")
@pytest.mark.webui_only("the embedded host has no schedule type “Trailing”")
def test_a_button_sets_the_recommended_settings(page):
    advice = page.locator("#txt2img-ad-advice").first
    page.locator("#txt2img-ad-refresh").click()
    page.wait_for_timeout(1000)
    page.locator("#txt2img-ad-motion-module input").first.click()
    page.locator("li[aria-label='Lightning 4step.safetensors']").dispatch_event("mousedown")
    expect(advice).to_contain_text("AnimateDiff-Lightning, 4 steps · a guess; if it is wrong")
    expect(advice).to_contain_text("recommended: Euler, Trailing, 4 steps, CFG 1")
    expect(advice).to_contain_text("Your settings differ:")
    expect(advice).to_contain_text("the number of steps is 3, not 4;")
    page.locator("#txt2img-ad-use-settings").click()
    expect(advice).not_to_contain_text("differ")
    assert (chosen(page, "txt2img_sampling"), chosen(page, "txt2img_scheduler")) == ("Euler", "Trailing")
    assert (number(page, "txt2img_steps"), number(page, "txt2img_cfg_scale")) == ("4", "1")
    set_number(page, "txt2img_cfg_scale", 7)
    expect(advice).to_contain_text("the CFG scale is 7, not 1 to 2")
    generate(page)
    gif_in_gallery(page)
    page.wait_for_function("() => document.body.innerText.includes('is made for Euler, Trailing, 4 steps, CFG 1')")


def test_the_button_sets_the_settings_of_the_module_that_is_chosen(page):
    advice = page.locator("#txt2img-ad-advice").first
    expect(advice).to_contain_text("AnimateDiff v3 · recommended: DDIM, 25 steps, CFG 7.5")
    page.locator("#txt2img-ad-use-settings").click()
    expect(page.locator("#txt2img_steps input[type=number]").first).to_have_value("25")
    assert (chosen(page, "txt2img_sampling"), number(page, "txt2img_cfg_scale")) == ("DDIM", "7.5")


# --- unfinished videos ---


@pytest.mark.webui_only("the embedded host's page has no buttons that paste settings")
def test_a_button_brings_an_unfinished_video_back(page, host):
    windows = animate(video_length=8, batch_size=4, format=["GIF"])
    request = {**windows, "steps": 5, "seed": 77, "prompt": "a red cat", "scheduler": "Karras", "sampler_name": "DPM++ 2M"}
    (expected,) = files_of(host.txt2img(**request))
    expect(page.locator("#txt2img-ad-resume")).to_be_hidden()
    host.post("/probe/v1/fault", {"step": 8})
    assert host.txt2img(**request).status_code == 500
    page.reload(wait_until="domcontentloaded", timeout=2 * MINUTES)
    open_panel(page)
    page.locator("#txt2img-ad-resume").click(timeout=2 * MINUTES)
    expect_prompt(page, host, "a red cat")
    expect(page.locator("#txt2img_seed input").first).to_have_value("77")
    generate(page)
    picture = gif_in_gallery(page)
    assert np.array_equal(frames_of_file(file_of(picture)), frames_of_picture(expected))
    expect(page.locator("#html_log_txt2img").first).to_contain_text("AnimateDiff went on after step")
    expect(page.locator("#txt2img-ad-resume")).to_be_hidden()
