"""The plot of the camera's way in the panel, and how it turns under the mouse, in Chromium."""

import math

import pytest
import torch
from playwright.sync_api import expect

from animatediff.page.camera_plot import plot, seen
from motion_module.camera_poses import trajectory_of
from support.browser import MINUTES, NO_PLAYER
from support.camera_weights import pose_file
from support.server import REPOSITORY


@pytest.fixture
def shown(browser):
    """A page with nothing but a plot."""
    page = browser.new_page(viewport={"width": 800, "height": 600})
    parts = [(REPOSITORY / name).read_text() for name in ("style.css", "javascript/animatediff_camera.js")]
    page.set_content(f"<style>{parts[0]}</style><script>{parts[1]}</script>{plot(trajectory_of('orbit left, tilt up', 17))}")
    yield page
    page.close()


def points_of(line, name):
    return torch.tensor([[float(part) for part in point.split(",")] for point in line.get_attribute(name).split(" ")])


@pytest.mark.parametrize("share", [0.1, 0.5, 0.75])
def test_the_plot_turns_under_the_mouse(shown, share):
    picture, line = shown.locator(".ad-camera svg"), shown.locator(".ad-camera-view").last
    at_first, solid, box = points_of(line, "points"), points_of(line, "data-points"), picture.bounding_box()
    shown.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
    turned = points_of(line, "points")
    expected = torch.tensor(seen(solid, (share - 0.5) * 2 * math.pi))
    assert torch.allclose(turned, expected, atol=0.3) and (turned - at_first).abs().max() > 5


@pytest.mark.webui_only(NO_PLAYER)
def test_the_plot_follows_the_words_and_the_file(page, tmp_path):
    """The clip has six frames."""
    page.locator("#txt2img-ad-camera .label-wrap").first.click()
    words, plotted = page.locator("#txt2img-ad-camera-motion textarea").first, page.locator("#txt2img-ad-camera-plot").first
    words.fill("0: dolly in\n3: pan left ease")
    expect(plotted.locator(".ad-camera-view")).to_have_count(6, timeout=MINUTES)
    line = plotted.locator(".ad-camera-way")
    at_first = line.get_attribute("points")
    plotted.locator("svg").hover(position={"x": 20, "y": 20})
    assert line.get_attribute("points") != at_first, "it turns"
    words.fill("fly")
    expect(plotted).to_contain_text("“fly” is no move of the camera", timeout=MINUTES)
    words.fill("")
    (tmp_path / "walk.txt").write_text(pose_file(6))
    page.locator("#txt2img-ad-camera-poses input[type=file]").first.set_input_files(tmp_path / "walk.txt")
    expect(plotted.locator(".ad-camera-view")).to_have_count(6, timeout=MINUTES)
