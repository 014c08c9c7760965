"""Details the finished frames of a video: finds subjects, has each made again as a clip, and pastes it back.

Imports nothing of the WebUI: what generates, and what tells the user, is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

from ..request.choices import DETECTED, DRAWN_BOX
from ..request.params import Params
from .boxes import Box, read_box
from .crops import Crops, crops_of
from .detectors import Detector
from .tracks import Track, Tracker

Make = Callable[[Crops, list[Image.Image], str], "list[Image.Image] | None"]
"""Makes the pictures of a subject again, as one clip. Returns None if interrupted. The text says which subject it is."""
ONE_OF = dict(zip(DETECTED, ("face", "upper body", "eye")))
MOST_SHOWN = 8
OUTLINE = (255, 210, 0)
INTERRUPTED = "AnimateDiff: Detailing was interrupted, so the frames are as they were generated. Generate again to detail them."


class Interrupted(Exception):
    """The user has pressed Interrupt or Skip."""


@dataclass
class Detailed:
    """What came of it. `notes`: what was found, for the user. `warnings`: what was not done, and why."""

    frames: list[Image.Image]
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Around:
    """What happens outside: `tell` shows a text, `show` pictures of what was found, in their order.

    `detector` returns what finds subjects, where these are not in a drawn box. `is_interrupted` says whether the user wants to
    end.
    """

    detector: Callable[[], Detector]
    tell: Callable[[str], None]
    show: Callable[[list[Image.Image]], None]
    is_interrupted: Callable[[], bool]


def detailed(frames: list[Image.Image], params: Params, side: int, make: Make, around: Around, *, whole: bool) -> Detailed:
    """Returns the frames of one video with their subjects made again.

    `side`: of the square whose area a subject is made at, in pixels. `whole`: whether each subject's clip has all frames of the
    video, for prompts whose keyframes count them. An interrupt leaves the frames as they were. Raises MissingDependency without
    OpenCV, and whatever `make` raises.
    """
    result = Detailed(frames)
    try:
        tracks = _found(frames, params, around, result)
        if tracks:
            around.show(outlined(frames, tracks))
        for number, track in enumerate(tracks, start=1):
            of = track.throughout(len(frames)) if whole else track
            crops = crops_of(of, frames[0].size, params.detail_padding, side)
            one = ONE_OF.get(params.detail, "subject")
            text = f"{one} {number} of {len(tracks)}"
            around.tell(f"AnimateDiff: detailing {text}")
            result.frames = _with_detail(result.frames, crops, make, text)
    except Interrupted:
        return Detailed(frames, warnings=[INTERRUPTED])
    return result


def outlined(frames: list[Image.Image], tracks: list[Track]) -> list[Image.Image]:
    """Returns a few frames with the outlines of the tracks."""
    shown = []
    for number in range(0, len(frames), -(-len(frames) // MOST_SHOWN)):
        picture = frames[number].convert("RGB").copy()
        pen = ImageDraw.Draw(picture)
        for track in tracks:
            if track.first <= number < track.end:
                x, y, width, height = track.boxes[number - track.first]
                pen.rectangle((x, y, x + width, y + height), outline=OUTLINE, width=max(1, picture.height // 200))
        shown.append(picture)
    return shown


def _with_detail(frames: list[Image.Image], crops: Crops, make: Make, text: str) -> list[Image.Image]:
    """Returns the frames with one subject made again. It is cut out of frames that have the subjects before it already."""
    made = make(crops, [crops.cut(frames[frame], index) for index, frame in enumerate(crops.frames)], text)
    if made is None:
        raise Interrupted
    end = crops.first + len(crops)
    return [*frames[: crops.first], *crops.pasted(frames[crops.first : end], made), *frames[end:]]


def _found(frames: list[Image.Image], params: Params, around: Around, result: Detailed) -> list[Track]:
    """Returns the tracks of the subjects that are detailed, and writes into the result what was found."""
    if params.detail == DRAWN_BOX:
        return _in_box(frames, read_box(params.detail_box).within(*frames[0].size), around, result)
    find = around.detector()
    tracks, seen = _followed(frames, lambda _: find, around, follows=False)
    kept = tracks[: params.detail_most]
    what = f"Subjects ({params.detector_file})" if params.detector_file else params.detail.capitalize()
    count = f"{seen} of {len(frames)} frames"
    if not kept:
        how_rarely = (
            f"were found in {count} only, which may be an error" if seen else f"were found in none of {len(frames)} frames"
        )
        result.warnings.append(
            f"AnimateDiff: {what} {how_rarely}, so the video is as it was generated. Lower Confidence "
            f"(detail_confidence), or set Detail (detail) to “{DRAWN_BOX}” and give a box."
        )
        return []
    most = f", of which the largest {len(kept)} were detailed" if len(tracks) > len(kept) else ""
    result.notes.append(f"AnimateDiff: {what} were found in {count}, {len(tracks)} track{'s' * (len(tracks) > 1)}{most}.")
    return kept


def _in_box(frames: list[Image.Image], box: Box, around: Around, result: Detailed) -> list[Track]:
    """Returns the track of the subject in a box on the first frame, and writes into the result how far it was followed."""
    if box.width <= 0 or box.height <= 0:
        result.warnings.append(
            "AnimateDiff: Box on the first frame (detail_box) lies outside of the picture, so the video is as it was "
            f"generated. Move it into the frames, which are {frames[0].width}×{frames[0].height}."
        )
        return []
    tracks, _ = _followed(frames, lambda number: lambda _: [] if number else [box], around, follows=True)
    followed = sum(len(track.boxes) for track in tracks)
    result.notes.append(f"AnimateDiff: The subject in the box was followed through {followed} of {len(frames)} frames.")
    return tracks


def _followed(
    frames: list[Image.Image], detector_of: Callable[[int], Detector], around: Around, *, follows: bool
) -> tuple[list[Track], int]:
    """Returns the tracks of the subjects, and in how many frames one was found. `detector_of`: gets the frame's number."""
    tracker, seen = Tracker(follows=follows), 0
    for number, frame in enumerate(frames):
        if around.is_interrupted():
            raise Interrupted
        around.tell(f"AnimateDiff: looking for what to detail, frame {number + 1} of {len(frames)}")
        pixels = np.asarray(frame.convert("RGB"))
        boxes: list[Box] = detector_of(number)(pixels)
        seen += bool(boxes)
        tracker.add(pixels, boxes)
    return tracker.tracks(), seen
