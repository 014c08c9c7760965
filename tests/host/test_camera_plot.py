"""The plot of a camera's way."""

import math
import re

import torch

from animatediff.page.camera_plot import RADIUS, fault, in_words, plot, seen
from motion_module.camera_poses import trajectory_of


def lines_of(words, frames=17):
    """Returns the lines of a plot: their points in three dimensions, and as they are seen."""
    shown = plot(trajectory_of(words, frames))

    def points(text):
        return torch.tensor([[float(number) for number in point.split(",")] for point in text.split(" ")])

    found = re.findall(r"<polyline class='([\w-]+)'[^>]*data-points='([^']*)' points='([^']*)'", shown)
    return [(name, points(solid), points(flat)) for name, solid, flat in found]


def test_a_camera_is_seen_from_the_right_and_from_above():
    """What is ahead is farther up, what is to the right is to the right."""
    (origin, ahead, right, below) = seen(torch.tensor([[0.0, 0, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0]]), turn=0.0)
    assert origin == (0, 0) and ahead[1] < 0 and right == (1, 0) and below[1] > 0


def test_a_whole_turn_is_as_before_and_half_a_turn_swaps_left_and_right():
    points = torch.randn(20, 3)
    at_first, half, whole = (torch.tensor(seen(points, turn)) for turn in (0.0, math.pi, 2 * math.pi))
    assert torch.allclose(whole, at_first, atol=1e-5) and torch.allclose(half[:, 0], -at_first[:, 0], atol=1e-5)


def test_the_way_and_some_cameras_are_drawn_inside_the_picture():
    (way, *cameras) = lines_of("dolly in, pan left")
    assert way[0] == "ad-camera-way" and len(way[1]) == 17
    assert [name for name, *_ in cameras] == ["ad-camera-view"] * 9
    assert max(float(solid.norm(dim=1).max()) for _, solid, _ in (way, *cameras)) < RADIUS + 0.2
    for _, solid, flat in (way, *cameras):
        assert torch.allclose(torch.tensor(seen(solid)), flat, atol=0.11)


def test_a_camera_is_drawn_where_it_is_and_looks_where_it_looks():
    (_, way, _), *cameras = lines_of("dolly in")
    for frame, (_, camera, _) in zip((0, 2, 4, 6, 8, 10, 12, 14, 16), cameras, strict=True):
        assert torch.allclose(camera[0], way[frame], atol=0.11), "its tip"
        corners = camera[[1, 2, 4, 5]]
        assert (corners[:, 2] > camera[0, 2]).all() and torch.allclose(corners.mean(0)[:2], camera[0, :2], atol=0.11)


def test_one_frame_and_a_still_camera_are_drawn_too():
    assert len(lines_of("still", 1)) == 2 and len(lines_of("still")) == 10


def test_the_words_say_how_far_it_goes():
    assert "<span>Way:</span> 1.50 · <span>turned by</span> 30° · <span>enlarged</span> ×1.50" in in_words(
        trajectory_of("dolly in, pan left, zoom in", 17)
    )


def test_a_fault_is_shown_as_text():
    assert "&lt;b&gt;" in fault("<b>")
