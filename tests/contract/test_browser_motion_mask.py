"""A motion mask that is drawn on the page, over the first frame."""

import io

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from support.browser import MINUTES, choose_formats, generate, gif_in_gallery, open_panel
from support.pictures import gradient

NO_SCRIPT = "the embedded host's page loads no scripts"


def open_motion(page):
    page.locator("#txt2img-ad-motion > .label-wrap").first.click()
    expect(page.locator("#txt2img-ad-motion-mask-drawing")).to_be_visible()


def draw(page):
    """Draws a broad line down the left third of the frame, and takes it as the mask."""
    page.locator("#txt2img-ad-motion-mask-drawing").click()
    canvas = page.locator("dialog.ad-mask canvas").last
    expect(canvas).to_be_visible()
    page.locator("dialog.ad-mask input[type=range]").evaluate("range => { range.value = range.max; }")
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 6, box["y"] + 1)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 6, box["y"] + box["height"] - 1, steps=5)
    page.mouse.up()
    page.locator("dialog.ad-mask button", has_text="Use this mask").click()
    expect(page.locator("dialog.ad-mask")).to_have_count(0)


def mask_in_panel(page):
    picture = page.locator("#txt2img-ad-motion-mask img").first
    picture.wait_for(timeout=MINUTES)
    page.wait_for_function("picture => picture.complete && picture.naturalWidth", arg=picture.element_handle())
    pixels = picture.evaluate("""async picture => [...new Uint8Array(await (await fetch(picture.src)).arrayBuffer())]""")
    return np.asarray(Image.open(io.BytesIO(bytes(pixels))).convert("L"))


@pytest.mark.webui_only(NO_SCRIPT)
def test_a_drawn_mask_has_the_size_of_the_frames_and_reaches_the_request(page):
    open_motion(page)
    draw(page)
    mask = mask_in_panel(page)
    assert mask.shape == (64, 64), "without a picture, it is as large as the frames"
    assert (mask[:, :20] == 255).mean() > 0.9 and (mask[:, 40:] == 0).all()
    choose_formats(page, "GIF")
    generate(page)
    gif_in_gallery(page)
    said = "What is black in a motion mask (motion_mask) holds still only if"
    page.wait_for_function(f"() => document.body.innerText.includes({said!r})", timeout=2 * MINUTES)


@pytest.mark.webui_only(NO_SCRIPT)
def test_it_is_drawn_over_the_first_frame_of_the_last_clip(page):
    choose_formats(page, "GIF")
    generate(page)
    gif_in_gallery(page)
    open_motion(page)
    page.locator("#txt2img-ad-motion-mask-drawing").click()
    below = page.locator("dialog.ad-mask canvas").first
    expect(below).to_be_visible()
    colours = below.evaluate(
        "canvas => [...new Set(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data)].length"
    )
    assert colours > 20, "the frame is below the drawing"
    page.locator("dialog.ad-mask button", has_text="Cancel").click()
    expect(page.locator("dialog.ad-mask")).to_have_count(0)
    expect(page.locator("#txt2img-ad-motion-mask img")).to_have_count(0)


@pytest.mark.webui_only(NO_SCRIPT)
def test_in_img2img_it_is_drawn_over_the_picture(page, tmp_path):
    Image.fromarray(gradient(96, 64)).save(tmp_path / "picture.png")
    page.locator("#tabs > .tab-nav button", has_text="img2img").click()
    open_panel(page, "img2img")
    page.locator("#img2img_image input[type=file]").first.set_input_files(tmp_path / "picture.png")
    page.wait_for_function(
        "() => [...document.querySelectorAll('#mode_img2img img')].some(picture => picture.naturalWidth === 96)",
        timeout=MINUTES,
    )
    page.locator("#img2img-ad-motion > .label-wrap").first.click()
    page.locator("#img2img-ad-motion-mask-drawing").click()
    below = page.locator("dialog.ad-mask canvas").first
    expect(below).to_be_visible()
    assert below.evaluate("canvas => [canvas.width, canvas.height]") == [96, 64]
    corner = below.evaluate("canvas => [...canvas.getContext('2d').getImageData(0, 0, 1, 1).data]")
    assert np.abs(np.array(corner[:3]) - gradient(96, 64)[0, 0]).max() < 4
