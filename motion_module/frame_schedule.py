"""A number for each frame, written as keyframes.

    0: 1.0
    8-12: 0.4
    100%: 1

A line is a keyframe of `prompt_travel` with a number in place of words, and may also end with a comma. Between keyframes,
numbers are interpolated linearly. Before the first one and after the last one they are held, or joined in a closed loop.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .keyframe_lines import Line, read_line, shortened
from .prompt_travel import Travel, TravelError, in_order

_SEPARATOR = re.compile(r"[\n,;，；]")
_AROUND_NUMBER = " \t(){}\"'“”"
"""What other tools write around a number: `0:(1.0)`, `{"0": 1.0, "8": 0.4}`."""
_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)")
_MOST_DIGITS = 20


@dataclass(frozen=True)
class FrameSchedule:
    """`values`: the number of each frame. `travel`: the keyframes, whose texts are numbers."""

    values: tuple[float, ...]
    travel: Travel


def read_schedule(text: str, frames: int, *, closed: bool = False) -> FrameSchedule | None:
    """Reads the schedule of a video of `frames` frames; returns None for an empty text. Raises TravelError.

    `closed`: whether the last keyframe blends into the first.
    """
    if not text.strip():
        return None
    lines = [read_line(part, of_numbers=True) for part in _SEPARATOR.split(text) if part.strip(_AROUND_NUMBER)]
    if not lines:
        written = shortened(text.strip())
        raise TravelError(f"“{written}” has no keyframe. {_EXAMPLES}", written)
    travel = Travel(in_order([(line, _number(line)) for line in lines], frames), frames, closed)
    numbers = {keyframe.first: float(keyframe.text) for keyframe in travel.keyframes}
    values = tuple(
        numbers[one] + (numbers[other] - numbers[one]) * weight if weight else numbers[one]
        for one, other, weight in travel.sources()
    )
    return FrameSchedule(values, travel)


_EXAMPLES = "Write frames, a colon and a number, such as “8: 0.5”, “8-12: 0.5” or “100%: 0.5”, each on a line or after a comma."


def _number(line: Line) -> str:
    """Returns the number of a keyframe as text. Raises TravelError."""
    number = line.text.strip(_AROUND_NUMBER).replace("−", "-")
    if not line.positions or len(number) > _MOST_DIGITS or not _NUMBER.fullmatch(number):
        raise TravelError(f"The line “{shortened(line.written)}” cannot be read. {_EXAMPLES}", shortened(line.written))
    return number
