"""The plot of the camera's way turns under the mouse, in Chromium. It needs no host."""

import math

import pytest
import torch

from animatediff.page.camera_plot import plot, seen
from motion_module.camera_poses import trajectory_of
from support.server import REPOSITORY


@pytest.fixture
def shown(browser):
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
