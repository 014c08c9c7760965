"""The judge of the paper's experiments: reads from a clip what it shows.

It knows the geometry and the colours of the world, and nothing of any model. Its own error, on clips drawn by `render`, is part
of every report. It answers "none" for what it cannot read, which agrees with no caption.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from demo.world import render
from demo.world.render import Floats, Pose
from demo.world.scenes import COLOURS, SHAPES, Scene

NONE = "none"
FOLDS = {"circle": 0, "square": 4, "triangle": 3, "star": 5}
"""The order of each shape's rotational symmetry; 0 for a circle, which has every order."""
LEAST_OVERLAP = 0.75
"""The least mean intersection over union, over the frames, of a shape and the blob that is taken for it."""
LEAST_PART, LEAST_FIT, MOST_UNREST = 0.4, 0.75, 0.02
"""A motion counts from this fraction of its usual extent on, if it explains this fraction of the track's variance. A shape
stands still if every motion is below that extent and its position varies by less than `MOST_UNREST` widths of the frame."""

_NAMES = tuple(COLOURS)
_PALETTE = np.array([COLOURS[name] for name in _NAMES], np.float32)
_DIRECTIONS = _PALETTE / np.linalg.norm(_PALETTE, axis=1, keepdims=True)


@dataclass(frozen=True)
class Reading:
    """What the judge sees in a clip; "none" for what it cannot read."""

    shape: str
    colour: str
    background: str
    motion: str
    style: str
    watermark: bool

    def agrees(self, scene: Scene) -> dict[str, bool]:
        """Returns, for each attribute in the scene's caption, whether the clip shows it."""
        return {word: getattr(self, word) == getattr(scene, word) for word in ("shape", "colour", "background", "motion")}


@dataclass(frozen=True, eq=False)
class _Blob:
    """The shape in one frame: its pixels, and the centre and radius of a circle with its area, in widths of the frame."""

    mask: NDArray[np.bool_]
    x: float
    y: float
    radius: float


def read(clip: NDArray[np.uint8]) -> Reading:
    """Reads a clip `(frames, height, width, 3)`."""
    pictures = clip.astype(np.float32)
    background = _background(pictures)
    light, blobs = zip(*(_blob(picture, _PALETTE[_NAMES.index(background)]) for picture in pictures))
    seen = [blob for blob in blobs if blob is not None]
    watermark = _has_watermark(pictures)
    if len(seen) < len(clip):
        return Reading(NONE, NONE, background, NONE, NONE, watermark)
    shape, tracks = _shape(seen)
    return Reading(
        shape,
        _colour(pictures, seen),
        background,
        _motion(tracks, FOLDS.get(shape, 0)),
        _style(pictures, light, seen),
        watermark,
    )


def _background(pictures: Floats) -> str:
    edge = np.concatenate([pictures[:, :6].reshape(-1, 3), pictures[:, :, :6].reshape(-1, 3)])
    return _nearest(np.median(edge / np.maximum(edge.max(axis=1, keepdims=True), 1), axis=0))


def _nearest(colour: Floats) -> str:
    """Returns the name of the nearest colour, regardless of brightness."""
    return _NAMES[int(np.argmax(_DIRECTIONS @ (colour / max(float(np.linalg.norm(colour)), 1e-6))))]


def _blob(picture: Floats, background: Floats) -> tuple[Floats, _Blob | None]:
    """Returns the brightness of the background at each pixel, as a fraction of its colour, and the largest other blob."""
    light = picture @ background / (background @ background)
    other = np.linalg.norm(picture - light[..., None] * background, axis=-1) > 45
    mask = other | (light < 0.26) | (light > 1.25)
    mask[render.watermark_area(len(picture))] = False
    parts, count = ndimage.label(mask)
    if count == 0:
        return light, None
    sizes = np.bincount(parts.ravel())[1:]
    mask = ndimage.binary_fill_holes(parts == 1 + int(np.argmax(sizes)))
    rows, columns = np.nonzero(mask)
    side = len(picture)
    if len(rows) < (0.03 * side) ** 2:
        return light, None
    x, y = (columns.mean() + 0.5) / side, (rows.mean() + 0.5) / side
    return light, _Blob(mask, x, y, float(np.sqrt(len(rows) / np.pi)) / side)


def _shape(blobs: list[_Blob]) -> tuple[str, Floats]:
    """Returns the shape with the best overlap over all frames, and its poses `(frames, 4)`: x, y, log radius and angle."""
    best, overlap, angles = NONE, 0.0, np.zeros(len(blobs))
    for shape in SHAPES:
        turned = np.array([_angle(blob, FOLDS[shape]) for blob in blobs])
        overlaps = [_overlap(blob, shape, angle) for blob, angle in zip(blobs, turned)]
        if np.mean(overlaps) > overlap:
            best, overlap, angles = shape, float(np.mean(overlaps)), turned
    positions = np.array([(blob.x, blob.y, np.log(blob.radius)) for blob in blobs])
    return best if overlap >= LEAST_OVERLAP else NONE, np.column_stack([positions, angles])


def _angle(blob: _Blob, fold: int) -> float:
    """Returns the angle by which it is turned from its upright pose in `render`, from its moment of order `fold`."""
    if fold == 0:
        return 0.0
    rows, columns = np.nonzero(blob.mask)
    x, y = (columns + 0.5) / len(blob.mask) - blob.x, (rows + 0.5) / len(blob.mask) - blob.y
    moment = np.sum(np.hypot(x, y) ** 2 * np.exp(1j * fold * np.arctan2(y, x)))
    upright = {3: -np.pi / 2, 4: np.pi / 4, 5: -np.pi / 2}[fold]  # the direction of a corner
    return float(np.angle(moment) / fold - upright)


def _overlap(blob: _Blob, shape: str, angle: float) -> float:
    drawn = render.distance_to(shape, Pose(blob.x, blob.y, blob.radius, angle), len(blob.mask)) < 0
    return float((drawn & blob.mask).sum() / (drawn | blob.mask).sum())


def _colour(pictures: Floats, blobs: list[_Blob]) -> str:
    inner = [picture[ndimage.binary_erosion(blob.mask, iterations=2)] for picture, blob in zip(pictures, blobs)]
    pixels = np.concatenate(inner)
    lit = pixels[pixels.max(axis=1) > 90]
    return _nearest(np.median(lit / lit.max(axis=1, keepdims=True), axis=0)) if len(lit) else NONE


# --- motion ---


def _motion(tracks: Floats, fold: int) -> str:
    """Returns the motion whose curve fits best: a line in position, size or angle, or the curve of a periodic motion."""
    time = np.linspace(0, 1, len(tracks))
    x, y, size, angle = tracks.T
    angle = np.unwrap(angle, period=2 * np.pi / fold) if fold else angle
    usual = {
        "moving left": (x, -render.TRAVEL),
        "moving right": (x, render.TRAVEL),
        "moving up": (y, -render.TRAVEL),
        "moving down": (y, render.TRAVEL),
        "growing": (size, np.log(render.GROWTH)),
        "shrinking": (size, np.log(render.SHRINKAGE)),
        "spinning": (np.abs(angle - angle[0]), render.TURN * (len(tracks) - 1)),
    }
    parts = {motion: _part_and_fit(track, time, extent) for motion, (track, extent) in usual.items()}
    parts["bouncing"] = _part_and_fit(y, np.abs(np.sin(2 * np.pi * time)), -render.TRAVEL)
    parts["swinging"] = _part_and_fit(x, np.sin(4 * np.pi * time), render.SWING)
    across = _part_and_fit(x, np.sin(2 * np.pi * time), render.CIRCLE)
    down = _part_and_fit(y, -np.cos(2 * np.pi * time), render.CIRCLE)
    parts["circling"] = min(across[0], down[0]), min(across[1], down[1])
    motion = max(parts, key=lambda name: parts[name][0] * (parts[name][1] >= LEAST_FIT))
    part, fit = parts[motion]
    if part >= LEAST_PART and fit >= LEAST_FIT:
        return motion
    unrest = float(np.hypot(x.std(), y.std()))
    still = all(abs(part) < LEAST_PART for part, _ in parts.values())
    return "standing still" if still and unrest < MOST_UNREST and size.std() < 0.1 else NONE


def _part_and_fit(track: Floats, curve: Floats, extent: float) -> tuple[float, float]:
    """Returns the slope of a track along `curve`, as a fraction of `extent`, and the fraction of its variance explained."""
    centred, shape = track - track.mean(), curve - curve.mean()
    slope = float(centred @ shape / (shape @ shape))
    variance = float(centred @ centred)
    return slope / extent, slope**2 * float(shape @ shape) / variance if variance > 1e-9 else 0.0


# --- style and domain ---


def _style(pictures: Floats, light: tuple[Floats, ...], blobs: list[_Blob]) -> str:
    """Returns the style whose mark the clip shows; "plain" if none, "none" if several."""
    marks = {"ink": [], "stripes": [], "glow": []}  # type: dict[str, list[float]]
    wave = np.exp(2j * np.pi * np.add.outer(*[np.arange(len(light[0]))] * 2) / render.STRIPE_PERIOD)
    for picture, lit, blob in zip(pictures, light, blobs):
        outside = ndimage.distance_transform_edt(~blob.mask)
        ground = outside > 3
        depth = ndimage.distance_transform_edt(blob.mask)
        rim = (depth > 1) & (depth < 4)
        marks["ink"].append(float((picture[rim].max(axis=1) < 80).mean()) / 0.5)
        contrast = 2 * abs((wave[ground] * (lit[ground] - lit[ground].mean())).mean())
        marks["stripes"].append(contrast / 0.12)
        near, far = lit[ground & (outside < 7)], lit[outside > 35]
        marks["glow"].append((float(near.mean() / max(far.mean(), 0.05)) if len(far) else 1.0) / 1.5)
    seen = [style for style, values in marks.items() if np.median(values) >= 1]
    return "plain" if not seen else seen[0] if len(seen) == 1 else NONE


def _has_watermark(pictures: Floats) -> bool:
    """Returns whether the corner of the watermark shows bars of another colour than the gaps between them."""
    rows, columns = render.watermark_area(pictures.shape[1])
    corner = np.median(pictures, axis=0)[rows, columns]
    bars = np.arange(columns.stop - columns.start) % 16 < 12
    between = ~bars
    return float(np.linalg.norm(corner[:, bars].mean(axis=(0, 1)) - corner[:, between].mean(axis=(0, 1)))) > 25
