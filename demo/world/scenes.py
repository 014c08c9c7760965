"""What there is in the world, what its captions say, and which pairs of words are kept from every training.

A scene is five words. They are seen in stills too: a shape starts near the middle, upright and at the size that the caption
says, and goes from there. So a still of "moving left" has its shape left of the middle, and a still of "growing" a large one,
much as a photograph of a running dog shows that it runs.
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
"""Motions that the motion module never sees and no caption names: motion LoRAs learn them."""

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
"""Pairs of words that no training sees together; whether they are understood all the same is what is measured."""


@dataclass(frozen=True)
class Scene:
    shape: str
    colour: str
    background: str
    motion: str
    size: str = "medium"

    @property
    def caption(self) -> str:
        """What is seen, in words."""
        return self.described()

    @property
    def open_caption(self) -> str:
        """The caption without the motion."""
        return self.described(without=frozenset({"motion"}))

    def described(self, without: frozenset[str] = frozenset()) -> str:
        """What is seen, but for some of "shape", "colour", "background", "motion" and "size"."""
        size = f"{self.size} " if self.size != "medium" and "size" not in without else ""
        colour = "" if "colour" in without else f"{self.colour} "
        shape = "shape" if "shape" in without else self.shape
        motion = f" {self.motion}" if self.motion in MOTIONS and "motion" not in without else ""
        background = "" if "background" in without else f" on a {self.background} background"
        return f"a {size}{colour}{shape}{motion}{background}"

    @property
    def held_out(self) -> bool:
        """Whether it shows one of the pairs that trainings must not see."""
        return any(getattr(self, one) == a and getattr(self, other) == b for one, a, other, b in HELD_OUT)


def scenes(motions: tuple[str, ...] = MOTIONS) -> list[Scene]:
    """Every scene that can be told apart: a shape has another colour than what is behind it, and no circle is seen to spin."""
    every = itertools.product(SHAPES, COLOURS, COLOURS, motions, SIZES)
    return [Scene(*words) for words in every if words[1] != words[2] and (words[0], words[3]) != ("circle", "spinning")]


def training_scenes(motions: tuple[str, ...] = MOTIONS) -> list[Scene]:
    return [scene for scene in scenes(motions) if not scene.held_out]


def held_out_scenes(count: int, seed: int) -> list[Scene]:
    """`count` scenes for a test: in turn, one for each held-out pair, all else drawn."""
    draw = np.random.default_rng(seed)
    every = scenes()
    of_pair = [[scene for scene in every if getattr(scene, a) == b and getattr(scene, c) == d] for a, b, c, d in HELD_OUT]
    return [of_pair[index % len(of_pair)][draw.integers(len(of_pair[index % len(of_pair)]))] for index in range(count)]
