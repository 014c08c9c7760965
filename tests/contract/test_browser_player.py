"""The player below the gallery, in Chromium: playing, stepping, sending frames, and the plot of changes."""

import base64
import io
import json
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from animatediff.video import ffmpeg
from support.browser import MINUTES, NO_PLAYER, choose, choose_formats, file_of, generate, seen_to_move, set_number


def player_of(page):
    page.locator(".ad-player video").wait_for(timeout=2 * MINUTES)
    page.wait_for_function("document.querySelector('.ad-player video').readyState >= 2")
    return page.locator(".ad-player")


@pytest.mark.webui_only(NO_PLAYER)
@pytest.mark.parametrize("name", ["MP4", "WEBM"])
def test_a_video_plays_and_steps(page, name):
    choose_formats(page, name)
    generate(page)
    player = player_of(page)
    assert seen_to_move(player.locator("video"))
    player.locator(".ad-player-on").click()
    expect(player.locator("video")).to_have_js_property("paused", True)
    frame = int(player.locator("output").inner_text().split(" / ")[0])
    for step, button in ((1, "on"), (1, "on"), (-1, "back"), (-1, "back"), (-1, "back")):
        player.locator(f".ad-player-{button}").click()
        frame = (frame - 1 + step) % 6 + 1
        expect(player.locator("output")).to_have_text(f"{frame} / 6")
    expect(player.locator("video")).to_have_js_property("loop", True)
    player.get_by_label("Loop").uncheck()
    expect(player.locator("video")).to_have_js_property("loop", False)
    player.get_by_label("Speed").select_option("0.5")
    expect(player.locator("video")).to_have_js_property("playbackRate", 0.5)
    with page.expect_download() as download:
        player.locator(".ad-player-download").click()
    assert Path(download.value.path()).stat().st_size > 500 and download.value.suggested_filename.endswith("." + name.lower())


@pytest.mark.webui_only(NO_PLAYER)
def test_videos_of_one_run_can_be_picked_and_their_settings_are_shown(page):
    choose_formats(page, "MP4")
    set_number(page, "txt2img_batch_count", 2)
    generate(page)
    player = player_of(page)
    names = player.locator(".ad-player-name")
    expect(names).to_have_count(2)
    for index in (1, 0, 1):
        names.nth(index).click()
        expect(names.nth(index)).to_have_attribute("aria-pressed", "true")
        seed = re.search(r"-(\d+)\.mp4", names.nth(index).inner_text())[1]
        expect(page.locator("#html_info_txt2img").first).to_contain_text(f"Seed: {seed},")
    page.locator("#txt2img_gallery .thumbnails button").first.click()
    expect(names.nth(0)).to_have_attribute("aria-pressed", "true")


@pytest.mark.webui_only(NO_PLAYER)
@pytest.mark.parametrize(
    ("formats", "destination"),
    [(("MP4", "PNG"), "img2img"), (("MP4",), "inpaint")],
    ids=["as it was saved, to img2img", "out of the video, to inpaint"],
)
def test_a_frame_goes_to_img2img_and_inpaint(page, host, tmp_path, formats, destination):
    before = host.get("/sdapi/v1/options").json()["outdir_txt2img_samples"]
    beside = os.path.relpath(tmp_path, host.folder)  # the WebUI's default is a relative folder too
    host.post("/sdapi/v1/options", {"outdir_txt2img_samples": beside})
    choose_formats(page, *formats)
    generate(page)
    player = player_of(page)
    while player.locator("output").inner_text() != "3 / 6":
        player.locator(".ad-player-on").click()
        time.sleep(0.2)
    host.post("/sdapi/v1/options", {"outdir_txt2img_samples": before})
    video = file_of(player.locator("video"))
    player.locator(f".ad-player-{destination}").click()
    arrived = page.locator({"img2img": "#img2img_image img", "inpaint": "#img2maskimg img"}[destination]).first
    arrived.wait_for()
    expect(page.locator("#img2img_prompt textarea").first).to_have_value("a cat")
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(arrived.get_attribute("src").partition(",")[2]))).convert("RGB"))
    saved = video.with_suffix("") / "00002.png"
    expected = np.asarray(Image.open(saved) if "PNG" in formats else ffmpeg.read_frame(video, 2))
    assert np.array_equal(pixels, expected)


@pytest.mark.webui_only(NO_PLAYER)
def test_a_long_video_has_a_plot_of_its_changes_and_a_short_one_has_none(page):
    choose_formats(page, "GIF")
    for group in ("context-windows", "advanced"):
        page.locator(f"#txt2img-ad-{group} .label-wrap").click()
    for name, value in {"video-length": 12, "batch-size": 8, "overlap": 2}.items():
        set_number(page, f"txt2img-ad-{name}", value)
    choose(page, "txt2img-ad-window-order", "static")
    generate(page)
    plot = page.locator("#txt2img-ad-player .ad-seams")
    plot.wait_for(timeout=2 * MINUTES)
    answer = json.loads(page.locator("#generation_info_txt2img textarea").input_value())
    (seams,) = answer["extra_generation_params"]["AnimateDiff seams"]
    heights = [float(point.split(",")[1]) for point in plot.locator("polyline").get_attribute("points").split()]
    top = 1.1 * max(*seams["steps"], seams["closing"])
    assert heights == pytest.approx([120 * (1 - step / top) for step in seams["steps"]], abs=0.06)
    assert float(plot.locator("circle").get_attribute("cy")) == pytest.approx(120 * (1 - seams["closing"] / top), abs=0.06)
    border = plot.locator(".ad-seams-borders line")
    assert seams["borders"] == [4] and border.get_attribute("x1") == f"{640 * 3 / 11:.1f}"
    for said in (f"maximum {max(seams['steps']):.1f}", f"to the first {seams['closing']:.1f}", "windows start at 4"):
        expect(plot.locator("figcaption")).to_contain_text(said)
    set_number(page, "txt2img-ad-video-length", 8)
    generate(page)
    expect(plot).to_have_count(0, timeout=2 * MINUTES)
