"""Draws a source video as a strip of thumbnails, with the frames marked that a request uses.

Labels are elements of their own, because the WebUI translates whole texts. This module imports nothing of the WebUI.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

MOST = 10
"""Thumbnails, besides the first and the last frame that are used."""


@dataclass(frozen=True)
class Used:
    """The frames that a request uses of a source.

    `count`: all frames of the source; 0 if unknown. `start`: how many are skipped. `stride`: one of how many is used. `wanted`:
    how many are used, if there are as many; 0 for all.
    """

    count: int
    start: int
    stride: int
    wanted: int

    @property
    def frames(self) -> range:
        """Their numbers, in order."""
        frames = range(self.start, self.count, self.stride)
        return frames[: self.wanted] if self.wanted else frames

    def shown(self) -> list[int]:
        """Returns frames of the whole source: all of a short one, else evenly spaced ones, used ones where possible."""
        if self.count <= MOST:
            return list(range(self.count)) or [0]
        even = [round(place * (self.count - 1) / (MOST - 1)) for place in range(MOST)]
        if not self.frames:
            return even
        return sorted({*map(self._nearest, even), self.frames[0], self.frames[-1]})

    def _nearest(self, frame: int) -> int:
        """Returns the used frame that is nearest to a frame between the first and the last of them; others as they are."""
        place = round((frame - self.frames[0]) / self.frames.step)
        return self.frames[place] if self.frames[0] <= frame <= self.frames[-1] else frame


def strip(used: Used, pictures: Mapping[int, Image.Image], fps: float, *, is_exact: bool) -> str:
    """Returns the thumbnails with their frame numbers and times, and how many frames are used. `fps`: 0 if unknown."""
    thumbnails = [_thumbnail(used, frame, picture, fps, is_exact) for frame, picture in sorted(pictures.items())]
    return f"<div class='ad-source'>{''.join(thumbnails)}</div>{line(_facts(used, fps, is_exact))}"


def line(parts: Sequence[str]) -> str:
    """Returns parts, which are HTML, as a line of text; empty without any."""
    return f"<p class='ad-source-note'>{' · '.join(parts)}</p>" if parts else ""


def fault(text: str) -> str:
    """Returns what is wrong with the source."""
    return f"<p class='ad-source-fault'>{html.escape(text)}</p>"


def _facts(used: Used, fps: float, is_exact: bool) -> list[str]:
    if not used.count:
        return ["<span>The file does not tell how many frames it has.</span>"]
    whole = "<span>Frames of the source:</span>" if is_exact else "<span>Frames of the source, about:</span>"
    facts = [f"<span>Frames used:</span> {len(used.frames)}", f"{whole} {used.count}"]
    if used.frames and fps:
        facts.insert(1, f"{_time(used.frames[0] / fps)}–{_time(used.frames[-1] / fps)}")
    if len(used.frames) < used.wanted:
        facts.append("<span>Fewer than Number of frames.</span>")
    return facts


def _thumbnail(used: Used, frame: int, picture: Image.Image, fps: float, is_exact: bool) -> str:
    is_used = frame in used.frames
    marks = "<b>first</b>" if is_used and frame == used.frames[0] else ""
    marks += "<b>last</b>" if is_used and frame == used.frames[-1] else ""
    number = f"{frame}" if is_exact or frame + 1 < used.count else f"≈{frame}"
    time = f"<small>{_time(frame / fps)}</small>" if fps else ""
    return (
        f"<figure class='{'ad-source-used' if is_used else ''}'><img alt='' src='{_data(picture)}'>{marks}"
        f"<figcaption>{number} {time}</figcaption></figure>"
    )


def _data(picture: Image.Image) -> str:
    """Returns a picture as a data URL."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _time(seconds: float) -> str:
    """Returns a time as minutes, seconds and hundredths, with hours if there are any."""
    minutes, rest = divmod(round(seconds, 2), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02}:{rest:05.2f}" if hours else f"{minutes}:{rest:05.2f}"
