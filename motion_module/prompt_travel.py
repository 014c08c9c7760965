"""Prompt travel: a prompt whose words change along the frames, and what a text encoder made of it between two of its keyframes.

    a cat in a garden
    0: sleeping
    12-16: awake
    100%: running
    sharp, colourful

Lines before the first keyframe and behind the last one count for all frames. The form is that of the established extension, and
more of it is understood: percentages, frames counted from the end, ranges, any order, no space behind the colon.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from .errors import UserError

Interpolation = Literal["slerp", "lerp"]
NEARLY_ALIKE = 0.9995
"""The cosine of two conditions from which on the arc between them is taken for a line."""
_PLACE = r"-?\d+(?:(?:\.\d+)?\s*%)?"
_KEYFRAME = re.compile(rf"\s*(?P<first>{_PLACE})\s*(?:-\s*(?P<last>{_PLACE})\s*)?:(?!\d)(?P<text>.*)")
"""Digits right behind the colon are a ratio or a time of day: 16:9, 12:30."""


class TravelError(UserError):
    """A prompt's keyframes cannot be followed. The text is for the user. `lines`: those of the prompt that it is about."""

    def __init__(self, text: str, *lines: str) -> None:
        super().__init__(text)
        self.lines = lines


@dataclass(frozen=True)
class Keyframe:
    """From frame `first` to frame `last`, `text` is what the prompt says beside the words for all frames."""

    first: int
    last: int
    text: str


@dataclass(frozen=True)
class Travel:
    """The keyframes of one prompt, in their order. `closed`: whether the last one goes over into the first. `head`, `tail`: the
    words for all frames, before those of a keyframe and behind them.
    """

    keyframes: tuple[Keyframe, ...]
    frames: int
    closed: bool = False
    head: str = ""
    tail: str = ""

    def prompt_at(self, keyframe: Keyframe) -> str:
        """The whole of it."""
        return _joined([self.head, keyframe.text, self.tail])

    def texts(self) -> list[str]:
        """For each frame, the prompt of the keyframe that it is in, or of the one before it."""
        prompts = [self.prompt_at(keyframe) for keyframe in self.keyframes]
        return [prompts[before] for before, _, _ in self._places()]

    def sources(self) -> list[tuple[int, int, float]]:
        """For each frame: two frames whose prompts are those of the keyframes around it, and the share of the second."""
        first = [keyframe.first for keyframe in self.keyframes]
        return [(first[before], first[behind], share) for before, behind, share in self._places()]

    def _places(self) -> list[tuple[int, int, float]]:
        return [self._place(frame) for frame in range(self.frames)]

    def _place(self, frame: int) -> tuple[int, int, float]:
        """The keyframes around a frame, by their numbers, and how far it is from the first of them to the second."""
        count = len(self.keyframes)
        before = max((number for number in range(count) if self.keyframes[number].first <= frame), default=count - 1)
        behind = (before + 1) % count
        start, end = self.keyframes[before], self.keyframes[behind]
        over_the_end = behind <= before
        if over_the_end and not self.closed:
            return (0, 0, 0.0) if frame < self.keyframes[0].first else (before, before, 0.0)
        way = (end.first - start.last) % self.frames or self.frames
        done = (frame - start.last) % self.frames
        inside = start.first <= frame <= start.last
        return (before, before, 0.0) if inside or count == 1 else (before, behind, done / way)


def read_travel(prompt: str, frames: int, *, closed: bool = False) -> Travel | None:
    """The keyframes of a prompt for a video of `frames` frames; None where it has none. Raises TravelError."""
    lines = [line.strip() for line in prompt.splitlines()]
    found = [_KEYFRAME.fullmatch(line) for line in lines]
    places = [index for index, match in enumerate(found) if match]
    if not places:
        return None
    read = []
    for place, following in zip(places, [*places[1:], places[-1] + 1]):
        match, line = found[place], lines[place]
        assert match is not None
        first = _frame(match["first"], frames, line)
        last = _frame(match["last"], frames, line) if match["last"] else first
        if last < first:
            raise TravelError(
                f"The keyframe “{line}” ends at frame {last}, before it starts at {first}. Turn them round.", line
            )
        read.append((Keyframe(first, last, _joined([match["text"].strip(), *lines[place + 1 : following]])), line))
    read.sort(key=lambda entry: entry[0].first)
    for (one, line), (other, next_line) in pairwise(read):
        if other.first <= one.last:
            raise TravelError(
                f"Two keyframes of the prompt are at frame {other.first}. Leave one out, or move it.", line, next_line
            )
    head, tail = _joined(lines[: places[0]]), _joined(lines[places[-1] + 1 :])
    return Travel(tuple(keyframe for keyframe, _ in read), frames, closed, head, tail)


def _joined(parts: list[str]) -> str:
    return ", ".join(part for part in parts if part)


def _frame(place: str, frames: int, line: str) -> int:
    """A place in words as a frame: 12, -1 for the last one, 50% for the middle."""
    if place.endswith("%"):
        share = float(place[:-1]) / 100
        frame = round(share * (frames - 1)) if 0 <= share <= 1 else frames
    else:
        frame = int(place) + (frames if place.startswith("-") else 0)
    if not 0 <= frame < frames:
        raise TravelError(
            f"The keyframe “{line}” is outside of the video, whose {frames} frames are numbered from 0 to {frames - 1}. "
            "Move it, or ask for more frames.",
            line,
        )
    return frame


def between(conditions: Tensor, sources: list[tuple[int, int, float]], how: Interpolation = "slerp") -> Tensor:
    """What the frames of a travel are conditioned on, `(frames, …)`, from what their own keyframes' prompts gave, likewise.

    `sources`: of `Travel`. "slerp" follows the arc between the whole conditions (Shoemake 1985), "lerp" the line.
    """
    first, second = (torch.tensor([source[side] for source in sources]) for side in (0, 1))
    shares = torch.tensor([source[2] for source in sources])
    one, other = conditions[first.to(conditions.device)].float(), conditions[second.to(conditions.device)].float()
    along = shares.to(one).view(-1, *[1] * (one.ndim - 1))
    mixed = torch.lerp(one, other, along)
    if how == "slerp":
        flat, end = one.flatten(1), other.flatten(1)
        cosine = (flat * end).sum(1) / (flat.norm(dim=1) * end.norm(dim=1)).clamp(min=1e-12)
        angle = cosine.clamp(-1, 1).acos().view_as(along)
        arc = (torch.sin((1 - along) * angle) * one + torch.sin(along * angle) * other) / torch.sin(angle).clamp(min=1e-12)
        mixed = torch.where((cosine.abs() > NEARLY_ALIKE).view_as(along), mixed, arc)
    at_keyframe = (shares == 0).to(mixed.device).view_as(along)
    return torch.where(at_keyframe, one, mixed).to(conditions.dtype)
