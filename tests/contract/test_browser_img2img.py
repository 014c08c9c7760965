"""The tab img2img in Chromium: its batch tab, and an uploaded video."""

import subprocess

import av
import numpy as np
import pytest
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image
from playwright.sync_api import expect

from support.animation import animate, difference
from support.browser import (
    MINUTES,
    choose,
    choose_formats,
    file_of,
    frames_of_file,
    generate,
    gif_in_gallery,
    open_panel,
    set_number,
)
from support.pictures import encode, gradient, mean_difference, pictures_of

NO_IMG2IMG = "the embedded host's page has no img2img tab"


@pytest.fixture
def img2img(page):
    """Fills in img2img for a clip whose frames stay like their pictures."""
    tab = "img2img"
    page.locator("#tabs > .tab-nav button", has_text=tab).click()
    open_panel(page, tab)
    for name, value in {"steps": 4, "width": 64, "height": 64, "denoising_strength": 0.01}.items():
        set_number(page, f"{tab}_{name}", value)
    page.locator(f"#{tab}-ad-motion-module input").first.click()
    page.locator("li[aria-label='mm_tiny_v3.safetensors']").locator("visible=true").dispatch_event("mousedown")
    return page


@pytest.fixture
def pictures(tmp_path):
    """Returns twelve files whose alphabetical order is not their numerical order."""
    files = [tmp_path / f"{number}.png" for number in range(1, 13)]
    for number, file in enumerate(files):
        Image.fromarray(gradient(shift=5 * number)).save(file)
    return files


def which(frames, pictures, host):
    """Returns the numbers of the pictures, encoded and decoded by the VAE, that frames are most similar to."""
    request = {"denoising_strength": 0.01}
    stills = [host.img2img(init_images=[encode(np.asarray(Image.open(file)))], **request) for file in pictures]
    alone = [pictures_of(still)[0] for still in stills]
    return [int(np.argmin([mean_difference(frame, other) for other in alone])) for frame in frames]


def open_batch(page, source):
    page.locator("#mode_img2img > .tab-nav button", has_text="Batch").click()
    if page.locator("#img2img_batch_source").count():  # reForge's takes only folders
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
@pytest.mark.not_on(("reForge",), "its Batch tab takes no uploads")
def test_files_in_the_batch_tab_become_one_clip_of_the_chosen_number_of_frames(img2img, host, pictures):
    open_batch(img2img, "Upload")
    img2img.locator("#img2img_batch_upload input[type=file]").set_input_files(pictures[::-1])
    expect(img2img.locator("#img2img_batch_upload")).to_contain_text("12.png")
    set_number(img2img, "img2img-ad-video-length", 5)
    choose_formats(img2img, "GIF", tab="img2img")
    generate(img2img, "img2img")
    frames = frames_of_file(file_of(gif_in_gallery(img2img, "img2img")))
    assert which(frames, pictures, host) == list(range(5))


@pytest.mark.webui_only(NO_IMG2IMG)
def test_a_batch_travels_between_keyframes_of_other_tools_and_words_of_others_are_for_all_frames(
    img2img, host, pictures, tmp_path
):
    request = {"prompt": "oil, \n0: a red ball\n11: a blue cube\n, sharp", "seed": 7, "denoising_strength": 0.9, "cfg_scale": 7}
    images = [encode(np.asarray(Image.open(file))) for file in pictures]
    expected = pictures_of(host.img2img(**animate(video_length=0, closed_loop="N"), init_images=images, **request))
    img2img.locator("#img2img_prompt textarea").fill('"0": "a red ball",\n"11": "a blue cube",')
    for name in ("seed", "denoising_strength", "cfg_scale"):
        set_number(img2img, f"img2img_{name}", request[name])
    choose(img2img, "img2img_sampling", "Euler a")
    open_batch(img2img, "From directory")
    img2img.locator("#img2img_batch_input_dir textarea").fill(str(tmp_path))
    img2img.locator("#img2img_batch_output_dir textarea").fill(str(tmp_path / "out"))
    choose_formats(img2img, "GIF", "PNG", tab="img2img")
    host.post("/probe/v1/added-words", {"at": "process", "before": "oil, ", "after": ", sharp"})
    try:
        generate(img2img, "img2img")
        gif_in_gallery(img2img, "img2img")
    finally:
        host.post("/probe/v1/added-words", {})
    frames = [np.asarray(Image.open(file)) for file in sorted((tmp_path / "out").rglob("*.png"))]
    assert difference(np.stack(frames), np.stack(expected)) <= 2, "the VAE's own noise is drawn anew"


@pytest.mark.webui_only(NO_IMG2IMG)
def test_the_page_shows_why_a_batch_is_refused(img2img, pictures, tmp_path):
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
