"""Draws scenes: the pose of the shape in each frame, and how a style paints it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demo.world.scenes import COLOURS, SIZES, Scene

Floats = NDArray[np.float32]
SIDE = 128
FRAMES = 16
STYLES = ("plain", "ink", "stripes", "glow")
TRAVEL = 0.24
"""How far a shape moves in a clip, in widths of the frame."""
GROWTH, SHRINKAGE = 1.6, 0.6
CIRCLE, SWING = 0.16, 0.18
"""The radius of the path of a circling shape, and how far a swinging shape goes to either side, in widths of the frame."""
TURN = np.radians(10)
"""The angle by which a spinning shape turns from one frame to the next."""
STRIPE_PERIOD = 16
"""Pixels from one diagonal stripe to the next, along a row."""


@dataclass(frozen=True)
class Pose:
    """A shape's position and radius, in widths of the frame from the upper left corner, and its angle in radians."""

    x: float
    y: float
    radius: float
    angle: float


def poses(scene: Scene, seed: int, frames: int = FRAMES) -> list[Pose]:
    """Returns the pose in each frame. `seed` varies start and size, so that no two takes of a scene are alike."""
    draw = np.random.default_rng(seed)
    x, y = 0.5 + draw.uniform(-0.06, 0.06, 2)
    radius = SIZES[scene.size] * draw.uniform(0.93, 1.07)
    start = Pose(x, y, radius, 0.0)
    return [_pose_at(scene.motion, start, index, frames) for index in range(frames)]


def _pose_at(motion: str, start: Pose, frame: int, frames: int) -> Pose:
    done = frame / max(1, frames - 1)
    x, y, radius = start.x, start.y, start.radius
    if motion.startswith("moving"):
        right, down = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}[motion.split()[1]]
        return Pose(x + right * TRAVEL * done, y + down * TRAVEL * done, radius, 0)
    if motion == "growing":
        return Pose(x, y, radius * GROWTH**done, 0)
    if motion == "shrinking":
        return Pose(x, y, radius * SHRINKAGE**done, 0)
    if motion == "spinning":
        return Pose(x, y, radius, TURN * frame)
    if motion == "bouncing":
        return Pose(x, y + 0.16 - TRAVEL * abs(np.sin(2 * np.pi * done)), radius, 0)
    if motion == "circling":
        return Pose(x + CIRCLE * np.sin(2 * np.pi * done), y + CIRCLE - CIRCLE * np.cos(2 * np.pi * done), radius, 0)
    if motion == "swinging":
        return Pose(x + SWING * np.sin(4 * np.pi * done), y, radius, 0)
    return start


def clip(scene: Scene, seed: int, style: str = "plain", *, watermark: bool = False, frames: int = FRAMES) -> NDArray[np.uint8]:
    """Returns a clip `(frames, height, width, 3)`."""
    return np.stack([paint(scene, pose, style, watermark=watermark) for pose in poses(scene, seed, frames)])


def still(scene: Scene, seed: int, style: str = "plain", *, watermark: bool = False) -> NDArray[np.uint8]:
    """Returns a frame of a take `(height, width, 3)`; the seed decides which."""
    frame = int(np.random.default_rng([seed, 1]).integers(FRAMES))
    return paint(scene, poses(scene, seed)[frame], style, watermark=watermark)


def paint(scene: Scene, pose: Pose, style: str = "plain", *, watermark: bool = False) -> NDArray[np.uint8]:
    """Returns one picture `(height, width, 3)`. Edges are antialiased over one pixel."""
    distance = distance_to(scene.shape, pose)
    inside = np.clip(0.5 - distance, 0, 1)[..., None]
    shape = np.broadcast_to(np.float32(COLOURS[scene.colour]), (*distance.shape, 3))
    picture = np.broadcast_to(np.float32(COLOURS[scene.background]), shape.shape)
    if style == "ink":
        shape = shape * np.clip(-distance - 4.5, 0, 1)[..., None]
    if style == "stripes":
        picture = picture * np.where(stripe_wave() > 0, 1.0, 0.62).astype(np.float32)[..., None]
    if style == "glow":
        picture = picture * (0.35 + 0.6 * np.exp(-np.maximum(distance, 0) / 9)[..., None])
    picture = picture * (1 - inside) + shape * inside
    if watermark:
        picture = _with_watermark(picture)
    return np.round(picture).astype(np.uint8)


def distance_to(shape: str, pose: Pose, side: int = SIDE) -> Floats:
    """Returns each pixel's distance from the outline in pixels, negative inside, `(side, side)`. It is exact near edges."""
    centres = (np.arange(side, dtype=np.float32) + 0.5) / side
    x, y = np.meshgrid(centres - pose.x, centres - pose.y)
    cos, sin = np.cos(pose.angle), np.sin(pose.angle)
    x, y = cos * x + sin * y, cos * y - sin * x
    return np.float32(side) * _OUTLINES[shape](x.astype(np.float32), y.astype(np.float32), pose.radius)


def _circle(x: Floats, y: Floats, radius: float) -> Floats:
    return np.hypot(x, y) - np.float32(radius)


def _regular(corners: int, x: Floats, y: Floats, radius: float) -> Floats:
    """Returns the distance from a regular polygon that stands on a flat side and has the area of a circle of this radius."""
    apothem = radius * np.sqrt(np.pi / corners / np.tan(np.pi / corners))
    directions = np.pi / 2 + 2 * np.pi * np.arange(corners) / corners
    return np.max([np.cos(a) * x + np.sin(a) * y for a in directions], axis=0) - np.float32(apothem)


def _star(x: Floats, y: Floats, radius: float) -> Floats:
    """Returns the distance from a five-pointed star: by symmetry, half a point of it with one straight edge suffices."""
    inner = 0.45
    tip = radius * np.sqrt(np.pi / (5 * inner * np.sin(np.pi / 5)))
    fifth = 2 * np.pi / 5
    angle = np.abs((np.arctan2(x, -y) + fifth / 2) % fifth - fifth / 2)
    distance = np.hypot(x, y)
    along, across = distance * np.cos(angle), distance * np.sin(angle)
    edge = np.array([inner * tip * np.cos(np.pi / 5) - tip, inner * tip * np.sin(np.pi / 5)])
    normal = np.array([edge[1], -edge[0]]) / np.hypot(*edge)
    return ((along - tip) * normal[0] + across * normal[1]).astype(np.float32)


_OUTLINES = {
    "circle": _circle,
    "square": lambda x, y, radius: _regular(4, x, y, radius),
    "triangle": lambda x, y, radius: _regular(3, x, y, radius),
    "star": _star,
}


def stripe_wave(side: int = SIDE) -> Floats:
    """Returns the wave `(side, side)` whose sign makes the stripes."""
    x, y = np.meshgrid(np.arange(side, dtype=np.float32), np.arange(side, dtype=np.float32))
    return np.sin(2 * np.pi * (x + y) / STRIPE_PERIOD)


def watermark_area(side: int = SIDE) -> tuple[slice, slice]:
    """Returns the rows and columns of the watermark."""
    return slice(side - 26, side - 6), slice(side - 50, side - 6)


def _with_watermark(picture: Floats) -> Floats:
    """Returns the picture with three grey bars in a corner, like the owner's name in stock footage."""
    rows, columns = watermark_area()
    marked = picture.copy()
    for bar in range(3):
        area = marked[rows, columns.start + 16 * bar : columns.start + 16 * bar + 12]
        area[:] = 0.25 * area + 0.75 * 128
    return marked
