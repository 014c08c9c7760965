"""Draws the keyframes of a prompt as a strip of HTML.

Labels are elements of their own, because the WebUI translates whole texts. This module imports nothing of the WebUI.
"""

from __future__ import annotations

import html
from itertools import pairwise

from motion_module.prompt_travel import Keyframe, Travel, TravelError

FIRST_HUE, TURN = 210, 137.5
"""Degrees: blue, and the golden angle between the hues of neighbouring keyframes, so that all colours differ."""


def strip(travel: Travel) -> str:
    """Returns the strip, whose width is the length of the video, and the words that all frames share."""
    loop = "<span class='ad-timeline-loop' title='The last keyframe blends into the first'>↻</span>"
    segments = [*_segments(travel), *[loop] * _loops(travel)]
    parts = [f"<div class='ad-timeline'>{''.join(segments)}</div>"]
    if travel.head or travel.tail:
        shared = html.escape(f"{travel.head} … {travel.tail}".strip())
        parts.append(f"<div class='ad-timeline-shared'><span>In all frames:</span> {shared}</div>")
    return "".join(parts)


def fault(error: TravelError) -> str:
    """Returns the lines of the prompt that an error is about, and its text."""
    lines = "".join(f"<mark>{html.escape(line)}</mark>" for line in error.lines)
    return f"<div class='ad-timeline-fault'>{lines}<p>{html.escape(str(error))}</p></div>"


def notes(sentences: list[str]) -> str:
    """Returns sentences about the prompt, below its strip."""
    return "".join(f"<p class='ad-timeline-note'>{html.escape(sentence)}</p>" for sentence in sentences)


def _loops(travel: Travel) -> bool:
    return travel.closed and len(travel.keyframes) > 1


def _segments(travel: Travel) -> list[str]:
    """Returns one segment from each keyframe up to the next, and one before the first keyframe."""
    starts = [keyframe.first for keyframe in travel.keyframes]
    segments = [
        _segment(travel, number, start, end, _label(travel.keyframes[number]))
        for number, (start, end) in enumerate(pairwise([*starts, travel.frames]))
    ]
    if starts[0] == 0:
        return segments
    if _loops(travel):  # the segment after the last keyframe continues here
        return [_segment(travel, len(starts) - 1, travel.frames, travel.frames + starts[0], ""), *segments]
    return [_segment(travel, 0, 0, starts[0], ""), *segments]


def _segment(travel: Travel, number: int, start: int, end: int, label: str) -> str:
    """Returns the segment after keyframe `number`, from frame `start` to before `end`. Both may lie beyond the last frame.

    It has the keyframe's colour as long as the keyframe holds, and then blends into the colour of the next one. Both points are
    percentages of its width.
    """
    keyframe, is_last = travel.keyframes[number], number + 1 == len(travel.keyframes)
    following = 0 if is_last else number + 1
    to = number if is_last and not travel.closed else following
    ends = travel.keyframes[following].first + travel.frames * is_last
    own_until, other_from = ((frame - start) / (end - start) for frame in (keyframe.last + 1, ends))
    own, other = (f"{(FIRST_HUE + index * TURN) % 360:g}" for index in (number, to))
    style = (
        f"flex-grow: {end - start}; --own: {own}; --next: {other}; --own-until: {own_until:.1%}; --next-from: {other_from:.1%}"
    )
    return f"<span style='{style}' title='{html.escape(travel.prompt_at(keyframe))}'>{html.escape(label)}</span>"


def _label(keyframe: Keyframe) -> str:
    frames = f"{keyframe.first}" if keyframe.first == keyframe.last else f"{keyframe.first}–{keyframe.last}"
    return f"{frames}: {keyframe.text}"
