"""Boxes of single frames become tracks: where each subject is in every frame (imports nothing of the WebUI).

A box that a detector finds is a noisy measurement of a place, the optical flow one of a movement. Between them a track is found
by least squares, so that it neither jitters with the boxes nor drifts away with the flow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.linalg import solveh_banded
from scipy.optimize import linear_sum_assignment

from motion_module.pictures import Frame

from .boxes import Box, around
from .movement import STILL, Move, movement

Floats = NDArray[np.float64]
MOST_MISSED = 8
"""The frames for which a subject may stay unseen and is still the same one."""
FEWEST_SEEN = 2
"""A subject that was seen in fewer frames of a clip is taken for an error of the detector."""
FADE = 4
"""The frames in which the detail of a subject that enters or leaves becomes visible."""
LOOKS_SIDE = 8
UNLIKE = 1.0
"""The cost of an assignment that is not made."""
FARTHEST = 0.5
"""The distance between centres, in sides of the box, at which boxes that do not overlap can still be of the same subject."""
BOX_ERROR, FLOW_ERROR = 0.08, 0.2
"""The errors that least squares expects: of a box, as a fraction of its sides, and of the flow, in pixels."""
GROWTH_ERROR = 0.004
PASSES = 8
"""How often least squares gives less weight to what lies far off, such as a box around something else."""
EASE = 5.0
"""How much a change of speed costs, against a distance from the path: a shake of every 6 frames keeps a sixth of its size."""
FAR_OFF = 3.0
"""The number of expected errors from which on a measurement has less than half of its weight."""


@dataclass(frozen=True)
class Track:
    """One subject: its box in each frame from `first` on. `seen`: in how many frames it was detected.

    `presence`: how much of its detail is visible in each frame, from 0 to 1.
    """

    first: int
    boxes: list[Box]
    seen: int
    presence: list[float]

    @property
    def end(self) -> int:
        """The frame after its last one."""
        return self.first + len(self.boxes)

    @property
    def size(self) -> float:
        """The median area of its boxes."""
        return float(np.median([box.area for box in self.boxes]))

    def throughout(self, frames: int) -> Track:
        """Returns the track over a whole clip: outside of its own frames it stays where it was, and nothing is visible."""
        before, after = self.first, frames - self.end
        boxes = [self.boxes[0]] * before + self.boxes + [self.boxes[-1]] * after
        return Track(0, boxes, self.seen, [0.0] * before + self.presence + [0.0] * after)


@dataclass
class _Growing:
    """A track while frames arrive. `found`: the box of each frame from `first` on, None where there is none."""

    first: int
    box: Box
    looks: Floats
    found: list[Box | None]
    moves: list[Move] = field(default_factory=list)

    @property
    def last_move(self) -> Move:
        """Where nothing of a subject can be followed, such as at the edge that it leaves by, it is taken to move on."""
        return self.moves[-1] if self.moves else STILL

    @property
    def missed(self) -> int:
        """For how many frames it has not been seen."""
        return next((count for count, box in enumerate(reversed(self.found)) if box is not None), len(self.found))


class Tracker:
    """Follows subjects through frames that arrive one by one."""

    def __init__(self, *, follows: bool = False) -> None:
        """`follows`: whether a box that was given once is followed as long as it can be, rather than for MOST_MISSED frames."""
        self._follows = follows
        self._tracks: list[_Growing] = []
        self._active: list[_Growing] = []
        self._before: Frame | None = None
        self._frames = 0

    def add(self, frame: Frame, boxes: Sequence[Box]) -> None:
        """Adds a frame `(height, width, 3)` with the boxes that were found on it. Raises MissingDependency without OpenCV."""
        if self._active and self._before is not None:
            for track in self._active:
                move = movement(self._before, frame, track.box) or track.last_move
                track.box = move.of(track.box)
                track.moves.append(move)
        self._assign(frame, list(boxes))
        self._active = [track for track in self._active if self._goes_on(track) and _is_in(track.box, frame)]
        self._before, self._frames = frame, self._frames + 1

    def tracks(self) -> list[Track]:
        """Returns what was followed, the largest first."""
        fewest = 1 if self._follows else min(FEWEST_SEEN, self._frames)
        kept = [track for track in self._tracks if sum(box is not None for box in track.found) >= fewest]
        return sorted(map(self._finished, kept), key=lambda track: -track.size)

    def _goes_on(self, track: _Growing) -> bool:
        return self._follows or track.missed <= MOST_MISSED

    def _assign(self, frame: Frame, boxes: list[Box]) -> None:
        """Gives each track the box that is most like it, if there is one. Other boxes begin tracks."""
        looks = [looks_of(frame, box) for box in boxes]
        costs = np.array([[_cost(track, *seen) for seen in zip(boxes, looks)] for track in self._active])
        pairs = zip(*linear_sum_assignment(costs)) if costs.size else ()
        box_of = {int(row): int(column) for row, column in pairs if costs[row, column] < UNLIKE}
        for row, track in enumerate(self._active):
            if (number := box_of.get(row)) is None:
                track.found.append(None)
                continue
            track.found.append(boxes[number])
            track.looks = 0.8 * track.looks + 0.2 * looks[number]
            track.box = _between(track.box, boxes[number])
        for number in sorted(set(range(len(boxes))) - set(box_of.values())):
            track = _Growing(self._frames, boxes[number], looks[number], [boxes[number]])
            self._tracks.append(track)
            self._active.append(track)

    def _finished(self, track: _Growing) -> Track:
        count = len(track.found) - (0 if self._follows else track.missed)
        boxes = smoothed(track.found[:count], track.moves[: count - 1])
        seen = sum(box is not None for box in track.found)
        enters, leaves = track.first > 0, track.first + count < self._frames
        return Track(track.first, boxes, seen, presence(count, enters=enters, leaves=leaves))


def presence(count: int, *, enters: bool, leaves: bool) -> list[float]:
    """Returns how much of a subject's detail is visible in each of its `count` frames, from 0 to 1."""
    frames = np.arange(1, count + 1)
    after, until = (frames if enters else count + FADE), (frames[::-1] if leaves else count + FADE)
    visible: Floats = np.broadcast_to(np.minimum(np.minimum(after, until) / (FADE + 1), 1.0), (count,))
    return visible.tolist()


def smoothed(found: Sequence[Box | None], moves: Sequence[Move]) -> list[Box]:
    """Returns the box of each frame. `found`: those of the detector. `moves`: from each frame to the next."""
    seen = np.array([box is not None for box in found])
    boxes = np.array([box if box is not None else (np.nan,) * 4 for box in found], dtype=np.float64)
    steps = np.array(moves, dtype=np.float64).reshape(-1, 3)
    sides = np.nanmedian(boxes[:, 2:], axis=0)
    x = _settled(boxes[:, 0] + boxes[:, 2] / 2, seen, steps[:, 0], BOX_ERROR * sides[0], FLOW_ERROR)
    y = _settled(boxes[:, 1] + boxes[:, 3] / 2, seen, steps[:, 1], BOX_ERROR * sides[1], FLOW_ERROR)
    width = np.exp(_settled(np.log(boxes[:, 2]), seen, steps[:, 2], BOX_ERROR, GROWTH_ERROR))
    height = np.exp(_settled(np.log(boxes[:, 3]), seen, steps[:, 2], BOX_ERROR, GROWTH_ERROR))
    paths = zip(*map(eased, (x, y, width, height)))
    return [around((float(a), float(b)), float(c), float(d)) for a, b, c, d in paths]


def eased(path: Floats) -> Floats:
    """Returns a path without shake: near to the given one, with little change of speed (Whittaker's smoother)."""
    count = len(path)
    if count < 3:
        return path
    bands = np.zeros((3, count))  # of the matrix whose rows are second differences, multiplied with its transpose
    bands[0, 2:] = 1
    bands[1, 1:-1] -= 2
    bands[1, 2:] -= 2
    for start, weight in ((0, 1), (1, 4), (2, 1)):
        bands[2, start : count - 2 + start] += weight
    bands *= EASE
    bands[2] += 1
    smooth: Floats = solveh_banded(bands, path)
    return smooth


def _settled(measured: Floats, seen: NDArray[np.bool_], steps: Floats, error: float, step_error: float) -> Floats:
    """Returns the values that fit measurements and steps between them best, in the sense of weighted least squares.

    Measurements and steps that lie far off get less weight in each pass (Cauchy's weights).
    """
    count = len(measured)
    if count == 1:
        return measured
    values = np.where(seen, measured, 0.0)
    of_values, of_steps = seen / error**2, np.full(count - 1, 1 / step_error**2)
    found = _solved(values, of_values, steps, of_steps)
    for _ in range(PASSES):
        off, steps_off = (values - found) / error, (np.diff(found) - steps) / step_error
        found = _solved(values, of_values / (1 + (off / FAR_OFF) ** 2), steps, of_steps / (1 + (steps_off / FAR_OFF) ** 2))
    return found


def _solved(values: Floats, of_values: Floats, steps: Floats, of_steps: Floats) -> Floats:
    """Solves the normal equations, whose matrix is tridiagonal. The weights are those of values and of steps between them."""
    before, after = np.append(of_steps, 0.0), np.insert(of_steps, 0, 0.0)
    bands = np.stack([np.insert(-of_steps, 0, 0.0), of_values + before + after])
    right = of_values * values - np.append(of_steps * steps, 0.0) + np.insert(of_steps * steps, 0, 0.0)
    solution: Floats = solveh_banded(bands, right)
    return solution


def looks_of(frame: Frame, box: Box) -> Floats:
    """Returns what a subject looks like: the colours of its box, reduced to a few pixels, from 0 to 1."""
    height, width = frame.shape[:2]
    left, top = int(np.clip(box.x, 0, width - 1)), int(np.clip(box.y, 0, height - 1))
    right, bottom = int(np.clip(box.x + box.width, left + 1, width)), int(np.clip(box.y + box.height, top + 1, height))
    small = Image.fromarray(frame[top:bottom, left:right]).resize((LOOKS_SIDE, LOOKS_SIDE), Image.Resampling.BOX)
    colours: Floats = np.asarray(small, dtype=np.float64) / 255
    return colours


def _cost(track: _Growing, box: Box, looks: Floats) -> float:
    """Returns how unlike a box is to a track: from 0, and UNLIKE or more where it cannot be the same subject."""
    overlap = track.box.overlap(box)
    (x, y), (other_x, other_y) = track.box.centre, box.centre
    apart = float(np.hypot((x - other_x) / track.box.width, (y - other_y) / track.box.height))
    if overlap == 0 and apart > FARTHEST:
        return 2 * UNLIKE
    return 0.5 * (1 - overlap) + float(np.abs(track.looks - looks).mean())


def _between(followed: Box, found: Box) -> Box:
    """Returns the box that is followed on: the flow's, half corrected by the detector's."""
    (x, y), (other_x, other_y) = followed.centre, found.centre
    centre = (x + other_x) / 2, (y + other_y) / 2
    return around(centre, (followed.width + found.width) / 2, (followed.height + found.height) / 2)


def _is_in(box: Box, frame: Frame) -> bool:
    """Whether the middle of a box is inside the frame."""
    x, y = box.centre
    return 0 <= x < frame.shape[1] and 0 <= y < frame.shape[0]
