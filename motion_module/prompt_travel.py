"""Prompt travel: a prompt that changes along the frames, and the interpolation of conditions between its keyframes.

    a cat in a garden
    0: sleeping
    12-16: awake
    100%: running
    sharp, colourful

Lines before the first keyframe and after the last one are for all frames. The syntax is that of sd-webui-animatediff, with some
additions: percentages, frames counted from the end, ranges, any order, and what `keyframe_lines` reads.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from .errors import UserError
from .keyframe_lines import Line, read_lines, shortened

Interpolation = Literal["slerp", "lerp"]
NEARLY_ALIKE = 0.9995
"""The cosine of two conditions above which they are interpolated linearly."""
_DIGITS = 9
"""The most digits that are read as a frame's number. Python refuses some thousands of them."""


class TravelError(UserError):
    """Keyframes are wrong. The text is for the user. `lines`: the lines that are wrong."""

    def __init__(self, text: str, *lines: str) -> None:
        super().__init__(text)
        self.lines = lines


@dataclass(frozen=True)
class Keyframe:
    """The part of a prompt, `text`, that is for the frames from `first` to `last`."""

    first: int
    last: int
    text: str


@dataclass(frozen=True)
class Travel:
    """The keyframes of one prompt, in order.

    `closed`: whether the last keyframe blends into the first. `head`, `tail`: the parts of the prompt for all frames, before
    and after that of a keyframe.
    """

    keyframes: tuple[Keyframe, ...]
    frames: int
    closed: bool = False
    head: str = ""
    tail: str = ""

    def prompt_at(self, keyframe: Keyframe) -> str:
        """Returns the complete prompt of a keyframe."""
        return _joined([self.head, keyframe.text, self.tail])

    def texts(self) -> list[str]:
        """Returns for each frame the prompt of the keyframe that it is in, or of the one before it."""
        prompts = [self.prompt_at(keyframe) for keyframe in self.keyframes]
        return [prompts[before] for before, _, _ in self._keyframes_around()]

    def sources(self) -> list[tuple[int, int, float]]:
        """Returns for each frame the first frames of the keyframes before and after it, and the weight of the second one."""
        first = [keyframe.first for keyframe in self.keyframes]
        return [(first[before], first[after], weight) for before, after, weight in self._keyframes_around()]

    def _keyframes_around(self) -> list[tuple[int, int, float]]:
        """Returns for each frame the indices of the keyframes before and after it, and the weight of the second one."""
        first = [keyframe.first for keyframe in self.keyframes]
        return [self._around(frame, (bisect_right(first, frame) or len(first)) - 1) for frame in range(self.frames)]

    def _around(self, frame: int, before: int) -> tuple[int, int, float]:
        count = len(self.keyframes)
        after = (before + 1) % count
        start, end = self.keyframes[before], self.keyframes[after]
        wraps = after <= before
        if wraps and not self.closed:
            return (0, 0, 0.0) if frame < self.keyframes[0].first else (before, before, 0.0)
        length = (end.first - start.last) % self.frames or self.frames
        done = (frame - start.last) % self.frames
        inside = start.first <= frame <= start.last
        return (before, before, 0.0) if inside or count == 1 else (before, after, done / length)


def read_travel(prompt: str, frames: int, *, closed: bool = False) -> Travel | None:
    """Reads the keyframes of a prompt for a video of `frames` frames; returns None if it has none. Raises TravelError."""
    lines = read_lines(prompt, frames)
    indices = [index for index, line in enumerate(lines) if line.positions]
    if not indices:
        return None
    texts = (
        _joined([line.text for line in lines[index:following]])
        for index, following in zip(indices, [*indices[1:], indices[-1] + 1])
    )
    keyframes = in_order(zip((lines[index] for index in indices), texts), frames)
    head, tail = (_joined([line.text for line in part]) for part in (lines[: indices[0]], lines[indices[-1] + 1 :]))
    return Travel(keyframes, frames, closed, head, tail)


def in_order(lines: Iterable[tuple[Line, str]], frames: int) -> tuple[Keyframe, ...]:
    """Returns the keyframes that lines of positions and their texts are in a video of `frames` frames. Raises TravelError."""
    read = []
    for line, text in lines:
        written = shortened(line.written)
        first, last = (frame_at(position, frames, written) for position in (line.positions[0], line.positions[-1]))
        if last < first:
            raise TravelError(
                f"The keyframe “{written}” ends at frame {last}, before it starts at frame {first}. Swap the two numbers.",
                written,
            )
        read.append((Keyframe(first, last, text), written))
    read.sort(key=lambda entry: entry[0].first)
    for (one, written), (other, next_written) in pairwise(read):
        if other.first <= one.last:
            raise TravelError(f"Two keyframes are at frame {other.first}. Remove or move one of them.", written, next_written)
    return tuple(keyframe for keyframe, _ in read)


def _joined(parts: list[str]) -> str:
    """Joins parts of a prompt by commas, of which some may already stand at their ends."""
    return ", ".join(trimmed for part in parts if (trimmed := part.strip(", ")))


def frame_at(position: str, frames: int, line: str) -> int:
    """Returns the frame at a position: 12 for itself, -1 for the last one, 50% for the middle one. Raises TravelError."""
    sign, number = position[0], position.strip("-−%％ \t")
    if position.endswith(("%", "％")):
        fraction = float(number) / 100 if sign not in "-−" else -1
        frame = round(fraction * (frames - 1)) if 0 <= fraction <= 1 else frames
    elif len(number) > _DIGITS:
        frame = frames
    else:
        frame = frames - int(number) if sign in "-−" else int(number)
    if not 0 <= frame < frames:
        raise TravelError(
            f"The keyframe “{line}” is outside the video, whose frames are numbered 0 to {frames - 1}. Move it, or "
            "raise Number of frames (video_length).",
            line,
        )
    return frame


def between(conditions: Tensor, sources: list[tuple[int, int, float]], how: Interpolation = "slerp") -> Tensor:
    """Returns the interpolated conditions of all frames, `(frames, …)`.

    `conditions`: `(frames, …)`, from the prompt of each frame's keyframe (`Travel.texts`). `sources`: of `Travel`. "slerp" is
    spherical interpolation of the whole conditions (Shoemake 1985), "lerp" is linear.
    """
    first, second = (torch.tensor([source[side] for source in sources]) for side in (0, 1))
    weights = torch.tensor([source[2] for source in sources])
    one, other = conditions[first.to(conditions.device)].float(), conditions[second.to(conditions.device)].float()
    along = weights.to(one).view(-1, *[1] * (one.ndim - 1))
    mixed = torch.lerp(one, other, along)
    if how == "slerp":
        flat, end = one.flatten(1), other.flatten(1)
        cosine = (flat * end).sum(1) / (flat.norm(dim=1) * end.norm(dim=1)).clamp(min=1e-12)
        angle = cosine.clamp(-1, 1).acos().view_as(along)
        arc = (torch.sin((1 - along) * angle) * one + torch.sin(along * angle) * other) / torch.sin(angle).clamp(min=1e-12)
        mixed = torch.where((cosine.abs() > NEARLY_ALIKE).view_as(along), mixed, arc)
    at_keyframe = (weights == 0).to(mixed.device).view_as(along)
    return torch.where(at_keyframe, one, mixed).to(conditions.dtype)
