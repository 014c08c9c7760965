"""Draws where a camera goes as a small picture in three dimensions, which `javascript/animatediff_camera.js` turns.

Each line has its points in three dimensions in `data-points`, and as they are seen at first in `points`. This module imports
nothing of the WebUI.
"""

from __future__ import annotations

import html
import math

import torch
from torch import Tensor

from motion_module.camera_poses import Trajectory

RADIUS = 74.0
"""Of what is drawn, in units of the picture, whose centre is at 0, 0."""
TURN, TILT = -0.6, 0.45
"""Radians: how it is seen at first, from the right and from above. The tilt stays, also in the script."""
MOST_CAMERAS = 9
DEPTH = 0.4
"""How far a camera is drawn to see, in parts of the way; of one unit of length at least, since a camera may stand still."""


def plot(trajectory: Trajectory) -> str:
    """Returns the picture as HTML, with a line of words below it."""
    places = trajectory.matrices[:, :3, 3]
    depth = DEPTH * max(1.0, float((places.amax(0) - places.amin(0)).norm()))
    last = trajectory.frames - 1
    frames = torch.linspace(0, last, min(trajectory.frames, MOST_CAMERAS)).round().long().tolist()
    pyramids = [_pyramid(trajectory, frame, depth) for frame in frames]
    everything = torch.cat([places, *pyramids])
    centre = (everything.amax(0) + everything.amin(0)) / 2
    scale = RADIUS / float((everything - centre).norm(dim=1).max())
    shapes = [_line("ad-camera-way", (places - centre) * scale)]
    for frame, pyramid in zip(frames, pyramids):
        share = f"--share: {frame / max(last, 1):.0%}"
        shapes.append(_line("ad-camera-view", (pyramid - centre) * scale, f"frame {frame}", share))
    return (
        "<figure class='ad-camera'><svg viewBox='-100 -75 200 150' role='img'><title>The way of the camera</title>"
        f"{''.join(shapes)}</svg><figcaption>{in_words(trajectory)}</figcaption></figure>"
    )


def fault(text: str) -> str:
    """Returns why there is no picture."""
    return f"<p class='ad-camera-fault'>{html.escape(text)}</p>"


def in_words(trajectory: Trajectory) -> str:
    """Returns how far a camera goes and turns, and how much its picture is enlarged, as HTML.

    Labels are elements of their own, because the WebUI translates whole texts.
    """
    places = trajectory.matrices[:, :3, 3]
    way = float((places[1:] - places[:-1]).norm(dim=1).sum())
    ahead = trajectory.matrices[:, :3, 2]
    turned = math.degrees(math.acos(max(-1.0, min(1.0, float(ahead[0] @ ahead[-1])))))
    enlarged = float(trajectory.focus[-1, 0] / trajectory.focus[0, 0])
    parts = [f"<span>Way:</span> {way:.2f}", f"<span>turned by</span> {turned:.0f}°", f"<span>enlarged</span> ×{enlarged:.2f}"]
    return " · ".join([*parts, "<span>Move the mouse over it to turn it.</span>"])


def seen(points: Tensor, turn: float = TURN) -> list[tuple[float, float]]:
    """Returns points as they are seen, from a turn about the vertical: x to the right, y down. The script computes the same."""
    x, y, z = points.unbind(-1)
    across, away = x * math.cos(turn) + z * math.sin(turn), z * math.cos(turn) - x * math.sin(turn)
    down = y * math.cos(TILT) - away * math.sin(TILT)
    return list(zip(across.tolist(), down.tolist()))


def _pyramid(trajectory: Trajectory, frame: int, depth: float) -> Tensor:
    """Returns a line along the edges of what a camera sees, to a depth."""
    focal_x, focal_y = trajectory.focus[frame, :2].tolist()
    right, down = 0.5 * depth / focal_x, 0.5 * depth / focal_y
    one, two, three, four = [(side * right, level * down, depth) for side, level in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    top = (0.0, 0.0, 0.0)
    line = [top, one, two, top, three, four, top, one, four, three, two]
    points = torch.tensor([(*point, 1.0) for point in line], dtype=torch.float64)
    return (points @ trajectory.matrices[frame].T)[:, :3]


def _line(name: str, points: Tensor, title: str = "", style: str = "") -> str:
    solid = " ".join(",".join(f"{number:.1f}" for number in point) for point in points.tolist())
    flat = " ".join(f"{x:.1f},{y:.1f}" for x, y in seen(points))
    inside = f"<title>{html.escape(title)}</title>" if title else ""
    styled = f" style='{style}'" if style else ""
    return f"<polyline class='{name}'{styled} data-points='{solid}' points='{flat}'>{inside}</polyline>"
