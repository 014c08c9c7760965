"""The lines of a prompt: which are keyframes, and which only look like one.

A keyframe is a line such as “8: smiling”. Lines that other tools write are read too: `"8": "smiling",`, `8=smiling`,
`- 8: smiling`, a full-width colon. Digits after the colon are a ratio or a time of day, such as 16:9, 12:30 and 8: 30 pm.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_INVISIBLE = "\u200b\u2060\ufeff"
"""Characters without width, which copying from web pages leaves at the ends of lines."""
_NO_TIME = r"(?!\d+(?!\w)|\s*\d{1,2}\s*(?:[ap]\.?m|h)\b|\s*\d{1,2}\s*(?:,|$))"
_ANY_COLON = r"(?:[:：]|=(?![=>]))"
_COLON = rf"{_ANY_COLON}{_NO_TIME}"
_POSITION = r"[-−]?\d+(?:(?:\.\d+)?\s*[%％])?"
_FRAMES = (
    rf"(?:,\s*)?(?:{{\s*)?(?:[-*•]\s+)?(?P<quote>[\"'“”])?(?P<first>{_POSITION})\s*(?:[-–—]\s*(?P<last>{_POSITION})\s*)?"
    r"(?(quote)[\"'“”]\s*)"
)
_KEYFRAME = re.compile(rf"{_FRAMES}{_COLON}(?P<text>.*)", re.IGNORECASE)
_KEYFRAME_OF_NUMBERS = re.compile(rf"{_FRAMES}{_ANY_COLON}(?P<text>.*)")
_IN_QUOTES = re.compile(r"\s*(?:\"((?:[^\"\\]|\\.)*)\"|'((?:[^'\\]|\\.)*)'|“([^“”]*)”)\s*,?\s*\}?\s*,?")
_BRACE = re.compile(r"[{}],?")
_BEFORE_KEY_IN_QUOTES = re.compile(rf"(?<=[,{{])\s*(?=\"{_POSITION}\"\s*:)")
_YEAR = re.compile(r"[12]\d{3}\s*[:：=]")
_LIKE_KEYFRAME = re.compile(
    r"[^\w\s\[]{0,3}\s{0,3}(?:(?:key[\s-]?)?frames?\W{0,3})?"
    r"\d[\d.,%\s–-]{0,20}(?:(?:to|s|sec|f)\b[\s\d.%]{0,10})?[^\w\s:：]?\s{0,3}[:：](?!\d)"
    r"|0[:：](?!\d\d(?![\w%]))\d",
    re.IGNORECASE,
)
"""Matches the beginnings of lines such as “(0: smile:1.2)”, “frame 8: smile”, “0.5: smile” and “0:4 girls”."""
_DIGIT_AFTER_COLON = re.compile(r"(?!1:[12]\b|2:[13]\b|3:[24]\b|4:[35]\b|5:4\b|16:9\b|21:9\b)\d+[:：]\d(?!\d)")
"""Matches what is no usual ratio of sides, such as “8:2 girls”; it is a keyframe's line among others."""
_LIST_ITEM = re.compile(r"\d{1,5}\s*(?:[.)\]|;>~]|->|=>|→|[-–—]\s)\s*[^\W\d]")
_FIRST_AFTER_WORDS = re.compile(
    rf"(?P<words>.*\S)\s+(?P<keyframe>0(?:\s*[-–—]\s*{_POSITION}|\s*%)?\s*{_COLON}.*)", re.IGNORECASE
)
_INSIDE = re.compile(rf"(?:(?<![\w.:%-])|(?<=\\n))\d+(?:\s*%)?(?:\s*[\"'”])?\s*{_COLON}", re.IGNORECASE)
"""Matches what would be a keyframe if a line began there, also after a line break that was escaped twice."""
_SHOWN = 80
"""The number of characters after which a line is cut in a text for the user."""


@dataclass(frozen=True)
class Line:
    """One line of a prompt. `positions`: the first and the last frame of a keyframe, as written; empty for other lines.

    `text`: its words. `mark`: what a keyframe has before them, such as “8:”.
    """

    written: str
    text: str
    mark: str = ""
    positions: tuple[str, ...] = ()


def read_lines(prompt: str, frames: int) -> list[Line]:
    """Returns the lines of a prompt for a video of `frames` frames, without the braces around keyframes of other tools.

    If its only keyframe has the number of a year after the last frame, it has none: “1990: retro style”. A keyframe 0 is also
    read after words before other keyframes, where some scripts put theirs: “a cat 0: asleep”.
    """
    lines = [read_line(line) for line in split_lines(prompt)]
    keyframes = [index for index, line in enumerate(lines) if line.positions]
    if not keyframes:
        return lines
    if len(keyframes) == 1 and _is_year(lines[keyframes[0]].written, frames):
        return [Line(line.written, line.written) for line in lines]
    before = keyframes[0]
    if all(lines[index].positions[0].rstrip(" %％") != "0" for index in keyframes):
        lines = [part for line in lines[:before] for part in _with_first_keyframe(line)] + lines[before:]
    return [line for line in lines if not _BRACE.fullmatch(line.written)]


def _with_first_keyframe(line: Line) -> list[Line]:
    """Splits a line before the keyframe 0 that it ends with: a script has put words before the first line of a prompt."""
    match = _FIRST_AFTER_WORDS.fullmatch(line.written)
    return [read_line(match["words"]), read_line(match["keyframe"])] if match else [line]


def split_lines(prompt: str) -> list[str]:
    """Returns the lines of a prompt; a JSON object on one line has a line for each of its keys."""
    return _BEFORE_KEY_IN_QUOTES.sub("\n", prompt).splitlines()


def read_line(line: str, *, of_numbers: bool = False) -> Line:
    """Returns what one line is by itself. `of_numbers`: whether keyframes have numbers, which are no times of day then."""
    written = line.strip().strip(_INVISIBLE).strip()
    if not (match := (_KEYFRAME_OF_NUMBERS if of_numbers else _KEYFRAME).fullmatch(written)):
        return Line(written, written)
    text = match["text"].strip()
    if quoted := _IN_QUOTES.fullmatch(text):
        text = re.sub(r"\\([\"'])", r"\1", next(group for group in quoted.groups() if group is not None))
    positions = tuple(position for position in (match["first"], match["last"]) if position)
    return Line(written, text, written[: match.start("text")].rstrip(), positions)


def _is_year(line: str, frames: int) -> bool:
    return bool(_YEAR.match(line)) and int(line[:4]) >= frames


def near_misses(prompt: str, frames: int) -> list[str]:
    """Returns sentences for the user about what looks like a keyframe and is read as words of the prompt."""
    lines = read_lines(prompt, frames)
    others = [line.written for line in lines if not line.positions]
    travels = len(others) < len(lines)
    years = [line for line in others if _is_year(line, frames)]
    alike = [line for line in others if _is_alike(line, travels) and not _is_year(line, frames)]
    items = [line for line in others if _LIST_ITEM.match(line)]
    if not travels and len(items) > 1:
        alike += items
    told = {*years, *alike}
    inside = [
        (line.written, mark)
        for line in lines
        if line.written not in told
        for mark in _INSIDE.findall(line.text, 0 if line.positions else 1)
    ]
    found = []
    if years:
        found.append(
            f"{_the_line(years)} is read as words of the prompt, since the video's frames are numbered 0 to {frames - 1}. "
            "If it is a keyframe, move it, or raise Number of frames (video_length)."
        )
    if alike:
        found.append(
            f"{_the_line(alike)} looks like a keyframe, but is read as words of the prompt. A keyframe is a line such as "
            "“8: smiling”: the number of a frame, a colon, a space, and words that begin with no digit. If it is one, "
            "write it so."
        )
    if travels or len(inside) > 1 or any(mark.startswith("0") for _, mark in inside):
        found += [
            f"{_the_line([line for line, _ in inside])} has “{shortened(mark)}” in its middle, which is read as words of the "
            "prompt. If it is a keyframe, write it on a line of its own. If it was on one, switch off the script that joins "
            "lines."
            for _, mark in inside[:1]
        ]
    return found


def _is_alike(line: str, travels: bool) -> bool:
    """Whether a line looks like a keyframe. `travels`: whether the prompt has keyframes."""
    return bool(_LIKE_KEYFRAME.match(line) or (travels and _DIGIT_AFTER_COLON.match(line)))


def _the_line(lines: list[str]) -> str:
    others = len(set(lines)) - 1
    return f"The line “{shortened(lines[0])}”" + f" (and {others} more)" * bool(others)


def shortened(line: str) -> str:
    """Returns a line as it is shown in a text for the user: short, and in characters that any answer can hold."""
    line = line.encode("utf-8", "replace").decode()  # without halves of characters
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"
