"""As a person does it: tick AnimateDiff on the page, press Generate, and see the GIF move. Needs Chromium."""

from __future__ import annotations

import shutil
import time

import pytest
from playwright.sync_api import expect, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--no-first-run"]
MINUTES = 60_000


@pytest.fixture(scope="module")
def page(host):
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine for the tests of the page")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport={"width": 1400, "height": 1600})
        page.goto(host.url, wait_until="domcontentloaded", timeout=2 * MINUTES)
        ask_for_a_small_clip(page)
        yield page
        browser.close()


def ask_for_a_small_clip(page):
    # The WebUI's panel opens with a click on its title, once its script has put a tick box there; the other host has the box.
    page.locator("#txt2img-ad-enable input[type=checkbox]").first.wait_for(timeout=2 * MINUTES)
    page.locator("#txt2img-ad-enable .label-wrap, #txt2img-ad-enable input[type=checkbox]").first.click()
    expect(page.locator("#txt2img-ad-motion-module")).to_be_visible()
    page.locator("#txt2img_prompt textarea").first.fill("a cat")
    for name, value in {"txt2img_steps": 3, "txt2img_width": 64, "txt2img_height": 64, "txt2img-ad-video-length": 6}.items():
        set_number(page, name, value)
    page.locator("#txt2img-ad-motion-module input").first.click()
    page.locator("li[data-value='mm_tiny_v3.safetensors']").dispatch_event("mousedown")


def set_number(page, name, value):
    field = page.locator(f"#{name} input[type=number]").first
    field.fill(str(value))
    field.press("Tab")


def seen_to_move(picture, seconds=10):
    """Whether screenshots show at least three pictures: a veil that lifts from a still would make two."""
    seen, end = set(), time.monotonic() + seconds
    while len(seen) < 3 and time.monotonic() < end:
        seen.add(picture.screenshot())
        time.sleep(0.1)
    return len(seen) >= 3


def choose_formats(page, *names):
    for box in page.locator("#txt2img-ad-save-format input[type=checkbox]").all():
        box.set_checked(box.evaluate("box => box.parentElement.innerText.trim()") in names)


def test_generate_shows_a_gif_that_moves(page):
    choose_formats(page, "GIF")
    expect(page.locator("#txt2img-ad-duration").first).to_contain_text("6 frames: 0.75 seconds")
    page.locator("#txt2img_generate").click()
    picture = page.locator("#txt2img_gallery img[src*='.gif']").first
    picture.wait_for(timeout=2 * MINUTES)
    assert seen_to_move(picture)


def test_an_mp4_is_named_below_the_gallery(page):
    choose_formats(page, "MP4")
    page.locator("#txt2img_generate").click()
    page.wait_for_function(
        """() => [document.body.innerText, ...[...document.querySelectorAll("textarea")].map(area => area.value)]
            .some(text => /AnimateDiff saved .*\\.mp4/.test(text))""",
        timeout=2 * MINUTES,
    )
