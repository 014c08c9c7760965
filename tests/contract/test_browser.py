"""As a person does it: tick AnimateDiff on the page, press Generate, and see the video move. Needs Chromium."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from urllib.parse import unquote

import av
import numpy as np
import pytest
from animation import animate, files_of
from imageio_ffmpeg import get_ffmpeg_exe
from pictures import encode, gradient, mean_difference, pictures_of
from PIL import Image, ImageSequence
from playwright.sync_api import expect, sync_playwright

from animatediff.video import ffmpeg

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--no-first-run"]
MINUTES = 60_000
NO_PLAYER = "the embedded host's page names videos, and has neither player nor other tabs"


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine for the tests of the page")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, host):
    page = browser.new_page(viewport={"width": 1400, "height": 1600})
    page.goto(host.url, wait_until="domcontentloaded", timeout=2 * MINUTES)
    ask_for_a_small_clip(page)
    yield page
    page.close()


def ask_for_a_small_clip(page):
    open_panel(page)
    page.locator("#txt2img_prompt textarea").first.fill("a cat")
    for name, value in {"txt2img_steps": 3, "txt2img_width": 64, "txt2img_height": 64, "txt2img-ad-video-length": 6}.items():
        set_number(page, name, value)
    page.locator("#txt2img-ad-motion-module input").first.click()
    page.locator("li[data-value='mm_tiny_v3.safetensors']").dispatch_event("mousedown")


def open_panel(page, tab="txt2img"):
    # The WebUI's panel opens with a click on its title, once its script has put a tick box there; the other host has the box.
    page.locator(f"#{tab}-ad-enable input[type=checkbox]").first.wait_for(timeout=2 * MINUTES)
    page.locator(f"#{tab}-ad-enable .label-wrap, #{tab}-ad-enable input[type=checkbox]").first.click()
    expect(page.locator(f"#{tab}-ad-motion-module")).to_be_visible()


def set_number(page, name, value):
    field = page.locator(f"#{name} input[type=number]").first
    field.fill(str(value))
    field.blur()


def number(page, name):
    return page.locator(f"#{name} input[type=number]").first.input_value()


def seen_to_move(picture, seconds=10):
    """Whether screenshots show at least three pictures: a veil that lifts from a still would make two."""
    seen, end = set(), time.monotonic() + seconds
    while len(seen) < 3 and time.monotonic() < end:
        seen.add(picture.screenshot())
        time.sleep(0.1)
    return len(seen) >= 3


def choose_formats(page, *names, tab="txt2img"):
    for box in page.locator(f"#{tab}-ad-save-format input[type=checkbox]").all():
        box.set_checked(box.evaluate("box => box.parentElement.innerText.trim()") in names)


def choose(page, name, value):
    page.locator(f"#{name} input").first.click()
    page.locator(f"li[data-value='{value}']").dispatch_event("mousedown")


def generate(page, tab="txt2img"):
    page.locator(f"#{tab}_generate").click()


def gif_in_gallery(page, tab="txt2img"):
    picture = page.locator(f"#{tab}_gallery img[src*='.gif']").first
    picture.wait_for(timeout=2 * MINUTES)
    return picture


def frames_of_file(path):
    with Image.open(path) as picture:
        return frames_of_picture(picture)


def frames_of_picture(picture):
    return np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(picture)])


def file_of(picture):
    """The file on disk that the page shows."""
    return Path(unquote(re.search(r"file=([^?]*)", picture.get_attribute("src"))[1]))


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


# --- player ---


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
    beside = os.path.relpath(tmp_path, host.folder)  # the WebUI's own default is a relative folder too
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
    page.locator("#txt2img-ad-context-windows .label-wrap").click()
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
    for said in (f"at most {max(seams['steps']):.1f}", f"to the first {seams['closing']:.1f}", "windows begin at 4"):
        expect(plot.locator("figcaption")).to_contain_text(said)
    set_number(page, "txt2img-ad-video-length", 8)
    generate(page)
    expect(plot).to_have_count(0, timeout=2 * MINUTES)


# --- prompt travel ---


def start_typing(page, prompt, tab="txt2img", name="prompt"):
    """Returns the timeline below that prompt."""
    field = page.locator(f"#{tab}_{name} textarea").first
    field.fill("")
    field.press_sequentially(prompt, delay=10)
    return page.locator(f"#{tab}_{name}-ad-timeline").first


@pytest.mark.webui_only(NO_PLAYER)
def test_keyframes_are_shown_while_they_are_typed(page):
    page.wait_for_timeout(1000)  # what the page asks for at first is over
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    prompt = "# a comment\na cat\n0: asleep\n3-4: awake <lora:lora_tiny:1>\nsharp"
    timeline = start_typing(page, prompt)
    segments = timeline.locator(".ad-timeline > span")
    expect(segments).to_have_text(["0: asleep", "3–4: awake"])
    expect(timeline.locator(".ad-timeline-shared")).to_have_text("In all frames: a cat … sharp")
    assert len(asked) < len(prompt) / 2, "each key is a question of its own"
    assert segments.nth(1).get_attribute("title") == "a cat, awake, sharp"
    first, second = (segments.nth(index).bounding_box() for index in (0, 1))
    assert first["width"] == pytest.approx(second["width"], abs=1)
    box = page.locator("#txt2img_prompt").bounding_box()
    assert 0 <= first["y"] - (box["y"] + box["height"]) < 20 and first["width"] > 0.4 * box["width"]


@pytest.mark.webui_only(NO_PLAYER)
def test_a_timeline_follows_the_panel(page):
    timeline = start_typing(page, "0: asleep\n3: awake")
    segments = timeline.locator(".ad-timeline > span")
    expect(segments).to_have_text(["0: asleep", "3: awake"])
    page.locator("#txt2img-ad-context-windows .label-wrap").click()
    choose(page, "txt2img-ad-closed-loop", "R+P")
    expect(segments).to_have_text(["0: asleep", "3: awake", "↻"])
    set_number(page, "txt2img-ad-video-length", 3)
    expect(timeline.locator("mark")).to_have_text("3: awake")
    expect(timeline).to_contain_text("whose 3 frames are numbered from 0 to 2. Move it, or ask for more frames.")
    set_number(page, "txt2img-ad-video-length", 0)
    expect(segments).to_have_count(3)
    page.locator("#txt2img-ad-enable input[type=checkbox]").first.uncheck()
    expect(timeline).to_be_hidden()


@pytest.mark.webui_only(NO_PLAYER)
def test_every_prompt_has_its_timeline(page):
    expect(start_typing(page, "0: bad\n3: worse", name="neg_prompt").locator("span")).to_have_text(["0: bad", "3: worse"])
    expect(page.locator("#txt2img_prompt-ad-timeline").first).to_be_hidden()
    page.locator("#tabs > .tab-nav button", has_text="img2img").click()
    timeline = start_typing(page, "0: asleep\n0: awake", "img2img")
    page.locator("#img2img-ad-enable input[type=checkbox]").first.check()
    expect(timeline.locator("mark")).to_have_text(["0: asleep", "0: awake"])
    expect(timeline).to_contain_text("Two keyframes of the prompt are at frame 0.")


@pytest.mark.webui_only(NO_PLAYER)
def test_prompts_of_the_hires_pass_have_timelines_below_them(page):
    hires = 'Hires prompt: "a cat\\n0: asleep\\n3: awake", Hires upscale: 2, Denoising strength: 0.7'
    page.locator("#txt2img_prompt textarea").first.fill(
        f'a cat\nSteps: 3, {hires}, AnimateDiff: "enable: True, video_length: 6"'
    )
    page.locator("#txt2img_tools #paste").click()  # which shows these boxes, whatever the settings say
    page.locator("#hires_neg_prompt textarea").first.press_sequentially("0: worse\n6: bad", delay=10)
    timeline, negative = (page.locator(f"#{name}-ad-timeline").first for name in ("hires_prompt", "hires_neg_prompt"))
    expect(timeline.locator(".ad-timeline > span")).to_have_text(["0: asleep", "3: awake"])
    expect(timeline.locator(".ad-timeline-shared")).to_have_text("In all frames: a cat …")
    expect(negative.locator("mark")).to_have_text("6: bad")
    for below, name in ((timeline, "hires_prompt"), (negative, "hires_neg_prompt")):
        box, strip = page.locator(f"#{name}").first.bounding_box(), below.bounding_box()
        assert 0 <= strip["y"] - (box["y"] + box["height"]) < 20 and strip["width"] == pytest.approx(box["width"], abs=1)
    expect(page.locator("#txt2img_prompt-ad-timeline").first).to_be_hidden()


# --- img2img: the batch tab, and a video that is uploaded ---

NO_IMG2IMG = "the embedded host's page has no img2img tab"


@pytest.fixture
def img2img(page):
    """Asks img2img for a clip of frames that stay what they are."""
    tab = "img2img"
    page.locator("#tabs > .tab-nav button", has_text=tab).click()
    open_panel(page, tab)
    for name, value in {"steps": 4, "width": 64, "height": 64, "denoising_strength": 0.01}.items():
        set_number(page, f"{tab}_{name}", value)
    page.locator(f"#{tab}-ad-motion-module input").first.click()
    page.locator("li[data-value='mm_tiny_v3.safetensors']").locator("visible=true").dispatch_event("mousedown")
    return page


@pytest.fixture
def pictures(tmp_path):
    """Twelve files whose names sort otherwise than people count."""
    files = [tmp_path / f"{number}.png" for number in range(1, 13)]
    for number, file in enumerate(files):
        Image.fromarray(gradient(shift=5 * number)).save(file)
    return files


def which(frames, pictures, host):
    """The pictures that frames are most like, each as the checkpoint's VAE gives it back."""
    request = {"denoising_strength": 0.01}
    stills = [host.img2img(init_images=[encode(np.asarray(Image.open(file)))], **request) for file in pictures]
    alone = [pictures_of(still)[0] for still in stills]
    return [int(np.argmin([mean_difference(frame, other) for other in alone])) for frame in frames]


def open_batch(page, source):
    page.locator("#mode_img2img > .tab-nav button", has_text="Batch").click()
    page.locator("#img2img_batch_source > .tab-nav button", has_text=source).click()


@pytest.mark.webui_only(NO_IMG2IMG)
def test_a_folder_in_the_batch_tab_becomes_one_clip(img2img, host, pictures, tmp_path):
    open_batch(img2img, "From directory")
    img2img.locator("#img2img_batch_input_dir textarea").fill(str(tmp_path))
    img2img.locator("#img2img_batch_output_dir textarea").fill(str(tmp_path / "out"))
    choose_formats(img2img, "GIF", tab="img2img")
    generate(img2img, "img2img")
    file = file_of(gif_in_gallery(img2img, "img2img"))
    assert which(frames_of_file(file), pictures, host) == list(range(12))
    assert tmp_path / "out" in file.parents and len(list((tmp_path / "out").rglob("*.gif"))) == 1


@pytest.mark.webui_only(NO_IMG2IMG)
def test_files_in_the_batch_tab_become_one_clip_of_as_many_frames_as_are_wanted(img2img, host, pictures):
    open_batch(img2img, "Upload")
    img2img.locator("#img2img_batch_upload input[type=file]").set_input_files(pictures[::-1])
    expect(img2img.locator("#img2img_batch_upload")).to_contain_text("12.png")
    set_number(img2img, "img2img-ad-video-length", 5)
    choose_formats(img2img, "GIF", tab="img2img")
    generate(img2img, "img2img")
    frames = frames_of_file(file_of(gif_in_gallery(img2img, "img2img")))
    assert which(frames, pictures, host) == list(range(5))


@pytest.mark.webui_only(NO_IMG2IMG)
def test_what_a_batch_cannot_be_is_said_on_the_page(img2img, pictures, tmp_path):
    Image.fromarray(gradient(32, 48)).save(pictures[3])
    open_batch(img2img, "From directory")
    img2img.locator("#img2img_batch_input_dir textarea").fill(str(tmp_path))
    generate(img2img, "img2img")
    said = img2img.locator("#html_log_img2img, #html_info_img2img").filter(has_text="picture 4 is 32×48, the first is 64×64")
    expect(said.first).to_be_visible(timeout=2 * MINUTES)


@pytest.mark.webui_only(NO_IMG2IMG)
def test_a_batch_is_pictures_where_animatediff_is_off(img2img, pictures, tmp_path):
    for file in pictures[2:]:
        file.unlink()
    img2img.locator("#img2img-ad-enable input[type=checkbox]").first.set_checked(False)
    open_batch(img2img, "From directory")
    img2img.locator("#img2img_batch_input_dir textarea").fill(str(tmp_path))
    generate(img2img, "img2img")
    img2img.locator("#img2img_gallery .thumbnails img").nth(1).wait_for(timeout=2 * MINUTES)
    assert img2img.locator("#img2img_gallery .thumbnails img").count() == 2
    assert img2img.locator("#img2img_gallery img[src*='.gif']").count() == 0


@pytest.mark.webui_only(NO_IMG2IMG)
def test_a_video_that_is_uploaded_brings_its_frames_speed_and_sound(img2img, host, pictures, tmp_path):
    file = tmp_path / "talks.mp4"
    frames, tone = ["-framerate", "5", "-i", str(tmp_path / "%d.png")], ["-f", "lavfi", "-i", "sine=440:d=2.4"]
    codecs = ["-c:v", "libx264rgb", "-crf", "0", "-c:a", "aac"]
    subprocess.run([get_ffmpeg_exe(), "-loglevel", "error", *frames, *tone, *codecs, str(file)], check=True)
    img2img.locator("#img2img-ad-source-video .label-wrap").click()
    img2img.locator("#img2img-ad-video-source input[type=file]").set_input_files(file)
    expect(img2img.locator("#img2img-ad-fps input[type=number]").first).to_have_value("0")
    choose_formats(img2img, "GIF", "MP4", tab="img2img")
    generate(img2img, "img2img")
    gif = file_of(gif_in_gallery(img2img, "img2img"))
    assert which(frames_of_file(gif), pictures, host) == list(range(12))
    with av.open(str(gif.with_suffix(".mp4"))) as container:
        assert container.streams.video[0].average_rate == 5
        heard = sum(part.samples / part.sample_rate for part in container.decode(audio=0))
    assert heard == pytest.approx(2.4, abs=0.03)


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
    for path, text in zip((gif, file), answer.json()["images"]):  # where the two are one, there is one picture
        path.write_bytes(base64.b64decode(text))
    page.reload()
    page.locator("#txt2img-ad-enable input[type=checkbox]").first.wait_for(timeout=2 * MINUTES)
    read_in_png_info(page, "pnginfo-ad-video" if name == "MP4" else "pnginfo_image", file)
    expect(page.locator("#txt2img-ad-enable input[type=checkbox]").first).to_be_checked()
    expect(page.locator("#txt2img_prompt textarea").first).to_have_value("a dog, (red:1.2)")
    assert [number(page, f"txt2img-ad-{field}") for field in ("video-length", "fps", "loop-number")] == ["5", "12", "2"]
    generate(page)
    assert np.array_equal(frames_of_file(file_of(gif_in_gallery(page))), frames_of_file(gif))


@pytest.mark.webui_only("the embedded host has no scripts that are chosen by name")
def test_a_plot_over_fps_and_frames(page):
    choose_formats(page, "GIF")
    page.locator("#script_list input").first.click()
    page.locator("li[data-value='X/Y/Z plot']").dispatch_event("mousedown")
    for axis, (name, values) in {"x": ("FPS", "4, 10"), "y": ("Number of frames", "2, 5")}.items():
        page.locator(f"#script_txt2img_xyz_plot_{axis}_type input").first.click()
        page.locator(f"li[data-value='[AnimateDiff] {name}']").dispatch_event("mousedown")
        time.sleep(1)  # the choice empties the field for values
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
            page.locator("#txt2img-ad-enable").get_by_text("Playback").first.click()
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
    page.locator("li[data-value='slow, “clouds”']").dispatch_event("mousedown")
    page.locator("#txt2img-ad-preset-load").click()
    expect(page.locator("#txt2img-ad-fps input[type=number]").first).to_have_value("13")
    assert [number(page, f"txt2img-ad-{name}") for name in ("video-length", "loop-number")] == ["7", "4"]
    ticked = page.locator("#txt2img-ad-save-format input:checked")
    assert [box.evaluate("box => box.parentElement.innerText.trim()") for box in ticked.all()] == ["WEBP", "TXT"]
    page.locator("#txt2img-ad-preset-delete").click()
    expect(page.locator("#txt2img-ad-preset input").first).to_have_value("")
    page.locator("#txt2img-ad-preset input").first.click()
    expect(page.locator("li[data-value='slow, “clouds”']")).to_have_count(0)


# --- what its authors recommend ---


@pytest.fixture
def modules(host, tmp_path):
    """A folder with a module that looks like AnimateDiff-Lightning, chosen in the settings."""
    key, before = "animatediff_model_path", host.get("/sdapi/v1/options").json()["animatediff_model_path"]
    shutil.copy(host.weights / "motion" / "mm_tiny_v2.safetensors", tmp_path / "Lightning 4step.safetensors")
    shutil.copy(host.weights / "motion" / "mm_tiny_v3.safetensors", tmp_path / "mm_tiny_v3.safetensors")
    host.post("/sdapi/v1/options", {key: str(tmp_path)})
    yield
    host.post("/sdapi/v1/options", {key: before})


def chosen(page, name):
    return page.locator(f"#{name} input").first.input_value()


@pytest.mark.usefixtures("modules")
@pytest.mark.webui_only("the embedded host's page has no schedule types")
def test_a_module_brings_the_settings_of_its_authors(page):
    advice = page.locator("#txt2img-ad-advice").first
    page.locator("#txt2img-ad-refresh").click()
    page.wait_for_timeout(1000)
    page.locator("#txt2img-ad-motion-module input").first.click()
    page.locator("li[data-value='Lightning 4step.safetensors']").dispatch_event("mousedown")
    expect(advice).to_contain_text("AnimateDiff-Lightning, 4 steps · assumed; if that is wrong")
    expect(advice).to_contain_text("made for Euler, Trailing, 4 steps, CFG 1")
    expect(advice).to_contain_text("Your settings contradict that:")
    expect(advice).to_contain_text("the number of steps is 3, not 4;")
    page.locator("#txt2img-ad-use-settings").click()
    expect(advice).not_to_contain_text("contradict")
    assert (chosen(page, "txt2img_sampling"), chosen(page, "txt2img_scheduler")) == ("Euler", "Trailing")
    assert (number(page, "txt2img_steps"), number(page, "txt2img_cfg_scale")) == ("4", "1")
    set_number(page, "txt2img_cfg_scale", 7)
    expect(advice).to_contain_text("the CFG scale is 7, not 1 to 2")
    generate(page)
    gif_in_gallery(page)
    page.wait_for_function("() => document.body.innerText.includes('is made for Euler, Trailing, 4 steps, CFG 1')")


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
    expect(page.locator("#txt2img_prompt textarea").first).to_have_value("a red cat")
    expect(page.locator("#txt2img_seed input").first).to_have_value("77")
    generate(page)
    picture = gif_in_gallery(page)
    assert np.array_equal(frames_of_file(file_of(picture)), frames_of_picture(expected))
    expect(page.locator("#html_log_txt2img").first).to_contain_text("AnimateDiff went on after step")
    expect(page.locator("#txt2img-ad-resume")).to_be_hidden()
