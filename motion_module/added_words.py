"""Words that styles, scripts and extensions have added to a prompt with keyframes: they are for all frames."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .keyframe_lines import Line, read_line, split_lines


def apart(text: str, written: str, styles: Sequence[tuple[str, str]] = ()) -> str:
    """Returns `text`, made by others from the prompt `written`, with the words that they added on lines of their own.

    So these words are for all frames. They may stand before, between and after the keyframes; line ends that were taken away
    are back. `styles`: what each style has put before and after the prompt, in order. Without keyframes, or if one of them is
    not found again, `text` is returned as it is.
    """
    if not styles:
        return _apart(text, written)
    (before, after), end = styles[-1], len(text) - len(styles[-1][1])
    if not (text.startswith(before) and text.endswith(after) and len(before) <= end):
        return _apart(text, written)
    lines = [before, apart(text[len(before) : end], written, styles[:-1]), after]
    lined = "\n".join(line for line in lines if line)
    return lined if any(read_line(line).positions for line in lined.splitlines()) else text


def _apart(text: str, written: str) -> str:
    lines = split_lines(written)
    keyframes = [index for index, line in enumerate(lines) if read_line(line).positions]
    if text == written or not keyframes:
        return text
    made, added, end = "", [], 0
    for before, index in zip([-1, *keyframes], keyframes):
        if (place := _find(text, read_line(lines[index]), end)) is None:
            return text
        start, stop = place
        gap = text[end:start]
        if before >= 0:
            gap, others = _without_others(gap, [line.strip() for line in lines[before + 1 : index]])
            added += others
            gap = _on_new_line(gap) if gap.strip() or "\n" in gap else "\n"
        made, end = made + gap + "\n" * (not _ends_line(gap)) + text[start:stop], stop
    return "\n".join([made + _on_new_line(text[end:]), *added])


def _find(text: str, keyframe: Line, begin: int) -> tuple[int, int] | None:
    """Returns where a keyframe stands in `text` from `begin` on; up to the end of its line if others changed its words."""
    for words in (keyframe.written, keyframe.mark):
        start = text.find(words, begin)
        while start >= 0:
            end = start + len(words)
            if not re.match(r"[\w.:%-]", text[start - 1 : start]) and not re.fullmatch(r"\w\w", text[end - 1 : end + 1]):
                line_end = text.find("\n", end)
                return start, end if words == keyframe.written else line_end if line_end >= 0 else len(text)
            start = text.find(words, start + 1)
    return None


def _without_others(gap: str, own: list[str]) -> tuple[str, list[str]]:
    """Returns what is between two keyframes without the lines that others added, and these."""
    found = [line for line in map(str.strip, gap.splitlines()) if line]
    others = [line for line in found if line not in own]
    if not others or any(line and line not in found for line in own):
        return gap, []
    return "\n".join(["", *(line for line in found if line in own), ""]), others


def _on_new_line(gap: str) -> str:
    return f"\n{gap}" if gap.split("\n", 1)[0].strip() else gap


def _ends_line(gap: str) -> bool:
    return not gap.rsplit("\n", 1)[-1].strip()
