"""The scenes of the world, their captions, and the pairs of words that are held out from every training.

A scene is five words. Stills show the motion too: a shape starts near the middle, upright and in the size of the caption, and
moves from there. So in a still of "moving left" the shape is left of the middle, and in a still of "growing" it is large, much
as a photograph of a running dog shows that it runs.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

COLOURS = {
    "red": (220, 45, 45),
    "green": (45, 170, 75),
    "blue": (50, 85, 225),
    "yellow": (240, 205, 50),
    "purple": (155, 60, 190),
    "white": (240, 240, 240),
}
SHAPES = ("circle", "square", "triangle", "star")
SIZES = {"small": 0.13, "medium": 0.17, "large": 0.22}
"""The radius of a circle of the shape's area, in widths of the frame. Captions leave "medium" out."""
MOTIONS = (
    "moving left",
    "moving right",
    "moving up",
    "moving down",
    "growing",
    "shrinking",
    "spinning",
    "bouncing",
    "standing still",
)
LORA_MOTIONS = ("circling", "swinging")
"""Motions that the motion module is not trained on and that no caption names: motion LoRAs are trained on them."""

HELD_OUT: tuple[tuple[str, str, str, str], ...] = (
    ("shape", "star", "colour", "red"),
    ("shape", "square", "colour", "green"),
    ("shape", "triangle", "colour", "purple"),
    ("shape", "circle", "colour", "yellow"),
    ("colour", "blue", "background", "yellow"),
    ("colour", "white", "background", "red"),
    ("colour", "green", "background", "purple"),
    ("colour", "purple", "background", "white"),
    ("shape", "circle", "motion", "bouncing"),
    ("shape", "square", "motion", "moving right"),
    ("shape", "star", "motion", "growing"),
    ("shape", "triangle", "motion", "moving up"),
)
"""Pairs of words that no training combines. The tests measure whether models understand the combinations."""


@dataclass(frozen=True)
class Scene:
    """What a clip shows."""

    shape: str
    colour: str
    background: str
    motion: str
    size: str = "medium"

    @property
    def caption(self) -> str:
        """The full caption."""
        return self.described()

    @property
    def caption_without_motion(self) -> str:
        """The caption without the motion."""
        return self.described(without=frozenset({"motion"}))

    def described(self, without: frozenset[str] = frozenset()) -> str:
        """Returns a caption without some of "shape", "colour", "background", "motion" and "size"."""
        size = f"{self.size} " if self.size != "medium" and "size" not in without else ""
        colour = "" if "colour" in without else f"{self.colour} "
        shape = "shape" if "shape" in without else self.shape
        motion = f" {self.motion}" if self.motion in MOTIONS and "motion" not in without else ""
        background = "" if "background" in without else f" on a {self.background} background"
        return f"a {size}{colour}{shape}{motion}{background}"

    @property
    def held_out(self) -> bool:
        """Whether it shows one of the HELD_OUT pairs."""
        return any(getattr(self, one) == a and getattr(self, other) == b for one, a, other, b in HELD_OUT)


def scenes(motions: tuple[str, ...] = MOTIONS) -> list[Scene]:
    """Returns all scenes that can be seen: a shape differs in colour from its background, and no circle spins."""
    every = itertools.product(SHAPES, COLOURS, COLOURS, motions, SIZES)
    return [Scene(*words) for words in every if words[1] != words[2] and (words[0], words[3]) != ("circle", "spinning")]


def training_scenes(motions: tuple[str, ...] = MOTIONS) -> list[Scene]:
    return [scene for scene in scenes(motions) if not scene.held_out]


def held_out_scenes(count: int, seed: int) -> list[Scene]:
    """Returns `count` test scenes: one for each held-out pair in turn, with the other words drawn at random."""
    draw = np.random.default_rng(seed)
    every = scenes()
    of_pair = [[scene for scene in every if getattr(scene, a) == b and getattr(scene, c) == d] for a, b, c, d in HELD_OUT]
    return [of_pair[index % len(of_pair)][draw.integers(len(of_pair[index % len(of_pair)]))] for index in range(count)]
