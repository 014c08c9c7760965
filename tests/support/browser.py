"""Actions of a user on the page, in Chromium."""

import re
import time
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from PIL import Image, ImageSequence
from playwright.sync_api import expect

from demo.real_webui import NEO

MINUTES = 60_000
NO_PLAYER = "the embedded host's page lists the names of videos, and has neither a player nor other tabs"


def ask_for_a_small_clip(page):
    open_panel(page)
    page.locator("#txt2img_prompt textarea").first.fill("a cat")
    for name, value in {"txt2img_steps": 3, "txt2img_width": 64, "txt2img_height": 64, "txt2img-ad-video-length": 6}.items():
        set_number(page, name, value)
    page.locator("#txt2img-ad-motion-module input").first.click()
    page.locator("li[aria-label='mm_tiny_v3.safetensors']").dispatch_event("mousedown")


def open_panel(page, tab="txt2img"):
    # The WebUI's panel opens with a click on its title once its script has added a checkbox. The embedded host has a checkbox.
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
    """Returns whether screenshots differ at least twice. An overlay that disappears from a still would make two images."""
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
    page.locator(f"li[aria-label='{value}']").dispatch_event("mousedown")


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
    """Returns the file on disk that the page shows."""
    return Path(unquote(re.search(r"file=([^?]*)", picture.get_attribute("src"))[1]))


def expect_prompt(page, host, prompt):
    """Waits until a prompt has been pasted. Neo pastes none, also without this extension: there it is typed."""
    box = page.locator("#txt2img_prompt textarea").first
    if host.kind is NEO:
        box.fill(prompt)
    expect(box).to_have_value(prompt)
