"""Where a camera is in each frame: from text files of poses, or from words, and the rays that CameraCtrl is given.

Coordinates are those of RealEstate10K: x points right, y down, z forward. Positions are relative to the first frame, whose
camera is at the origin and looks along z. The unit of length is that of the files that CameraCtrl was trained on: in its
authors' examples, a camera moves about 1.5 units and turns by about 30 degrees in 16 frames.

Rays are Plücker coordinates (arXiv 2404.02101, section 3.2; hehao13/CameraCtrl `inference.py`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import UserError
from .keyframe_lines import read_line, shortened
from .prompt_travel import TravelError, frame_at

NUMBERS = 19
"""In each line of a file: a time, four intrinsics, the size of the picture or zeros, and a matrix of three rows and four
columns.
"""
USUAL_SIZE = 1280.0, 720.0
"""Of the videos of RealEstate10K, whose files have zeros in place of it."""
USUAL_FOCUS = 0.474812461, 0.844111024, 0.5, 0.5
"""The intrinsics of the authors' first example: a field of view of 93 degrees."""
FOCUS_BETWEEN = 0.05, 20.0
SIZE_BETWEEN = 1.0, 100_000.0
FARTHEST = 1000.0
"""Units. The example files stay within three."""
MOST_SPEED = 20.0
FRAMES_OF_A_MOVE = 16
"""At speed 1, a move takes as many frames as CameraCtrl was trained on."""
LENGTH, ANGLE, ZOOM, PIVOT = 1.5, math.radians(30), 1.5, 3.0
"""Of a move at speed 1: units, radians, by how much the picture is enlarged. And an orbit's radius, in units."""


class CameraPosesError(UserError):
    """A file of poses or the words for a camera are wrong. The text is for the user."""


@dataclass(frozen=True)
class Trajectory:
    """The camera of each frame.

    `matrices`: `(frames, 4, 4)` in float64, from the camera's coordinates to those of the first frame. `focus`: `(frames, 4)`:
    focal lengths and centre along x and y, as fractions of the picture's width and height. `size`: of that picture.
    """

    matrices: Tensor
    focus: Tensor
    size: tuple[float, float] = USUAL_SIZE

    @property
    def frames(self) -> int:
        return len(self.matrices)

    def first(self, frames: int) -> Trajectory:
        """Returns the trajectory of the first frames only."""
        return replace(self, matrices=self.matrices[:frames], focus=self.focus[:frames])

    def in_pixels(self, height: int, width: int) -> Tensor:
        """Returns focal lengths and centres in pixels of a video, `(frames, 4)`.

        The video shows the largest part of the file's picture that has its own proportions, so pixels stay square.
        """
        proportions = self.size[0] / self.size[1]
        across, down = (height * proportions, height) if proportions > width / height else (width, width / proportions)
        return self.focus * torch.tensor([across, down, width, height], dtype=self.focus.dtype)

    def rays(self, height: int, width: int, frames: Tensor) -> Tensor:
        """Returns for each pixel of some frames the moment and the direction of its ray: `(frames, 6, height, width)`."""
        focal_x, focal_y, centre_x, centre_y = self.in_pixels(height, width)[frames].view(-1, 4, 1, 1).unbind(1)
        y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        along_x, along_y = (x - centre_x) / focal_x, (y - centre_y) / focal_y
        ahead = F.normalize(torch.stack([along_x, along_y, torch.ones_like(along_x)], dim=-1), dim=-1)
        matrices = self.matrices[frames]
        directions = torch.einsum("fij,fhwj->fhwi", matrices[:, :3, :3], ahead)
        origins = matrices[:, None, None, :3, 3].expand_as(directions)
        moments = torch.linalg.cross(origins, directions)
        return torch.cat([moments, directions], dim=-1).permute(0, 3, 1, 2).float()


def read_poses(text: str) -> Trajectory:
    """Reads a file in the form of RealEstate10K, whose first line is the address of a video. Raises CameraPosesError."""
    rows = [line.split() for line in text.removeprefix("\ufeff").splitlines()]
    numbered = [(number, row) for number, row in enumerate(rows, start=1) if row]
    if numbered and len(numbered[0][1]) != NUMBERS:
        numbered = numbered[1:]
    if not numbered:
        raise CameraPosesError(
            f"The file has no poses. Each line after the first must have {NUMBERS} numbers, as in files of RealEstate10K."
        )
    poses = torch.tensor([_numbers(row, number) for number, row in numbered], dtype=torch.float64)
    for (number, _), pose in zip(numbered, poses):
        _require_possible(pose, number)
        _require_size(pose, number, poses[0])
    width, height = poses[0, 5:7].tolist()
    to_camera = torch.eye(4, dtype=torch.float64).repeat(len(poses), 1, 1)
    to_camera[:, :3] = poses[:, 7:].view(-1, 3, 4)
    return Trajectory(to_camera[0] @ torch.linalg.inv(to_camera), poses[:, 1:5], (width, height) if width else USUAL_SIZE)


def _numbers(row: list[str], number: int) -> list[float]:
    if len(row) != NUMBERS:
        raise CameraPosesError(f"Line {number} has {len(row)} numbers, not {NUMBERS}. Correct it.")
    try:
        numbers = [float(word) for word in row]
    except ValueError:
        raise CameraPosesError(f"Line {number} has a word that is no number. Correct it.") from None
    if not all(map(math.isfinite, numbers)):
        raise CameraPosesError(f"Line {number} has a number that is infinite, or not a number. Correct it.")
    return numbers


def _require_possible(pose: Tensor, number: int) -> None:
    """Raises CameraPosesError for a camera that cannot be: its rays would be meaningless."""
    least, most = FOCUS_BETWEEN
    if not all(least <= focal <= most for focal in pose[1:3].tolist()):
        raise CameraPosesError(
            f"The focal lengths in line {number} are {pose[1]:g} and {pose[2]:g}, but must be from {least:g} to {most:g}. "
            "They are fractions of the picture's width and height: divide pixels by these."
        )
    if not all(0 <= centre <= 1 for centre in pose[3:5].tolist()):
        raise CameraPosesError(
            f"The centre of the picture in line {number} is {pose[3]:g}, {pose[4]:g}, but must be from 0 to 1. Write it as "
            "fractions of the picture's width and height."
        )
    matrix = pose[7:].view(3, 4)
    turned = matrix[:, :3]
    error = (turned @ turned.T - torch.eye(3, dtype=turned.dtype)).abs().max()
    if not error <= 0.01 or not torch.linalg.det(turned) > 0:  # either is NaN if numbers are large
        raise CameraPosesError(
            f"The matrix in line {number} is no rotation. Its three rows of four numbers must be a rotation and a shift, from "
            "the world to the camera."
        )
    if (farthest := float(matrix[:, 3].abs().max())) > FARTHEST:
        raise CameraPosesError(
            f"The shift in line {number} is {farthest:g}, but must be within {FARTHEST:g}. Divide all shifts by one number."
        )


def _require_size(pose: Tensor, number: int, first: Tensor) -> None:
    """Raises CameraPosesError for the size of a picture that cannot be, or that is not the size in the first pose."""
    least, most = SIZE_BETWEEN
    size = pose[5:7].tolist()
    if any(size) and not all(least <= side <= most for side in size):
        raise CameraPosesError(
            f"The size of the picture in line {number} is {size[0]:g}, {size[1]:g}, but must be from {least:g} to {most:,.0f} "
            "pixels. Correct it, or write two zeros."
        )
    if not torch.equal(pose[5:7], first[5:7]):
        raise CameraPosesError(
            f"The size of the picture in line {number} is {size[0]:g}, {size[1]:g}, but another one in the first line. Write "
            "the same in all lines, or zeros."
        )


# --- from words ---


@dataclass(frozen=True)
class Move:
    """One move of the camera. `amount`: signed, 1 at speed 1 for 16 frames. `ease`: from the fraction of time to that of the
    way.
    """

    kind: str
    amount: float
    ease: Callable[[float], float]


@dataclass(frozen=True)
class Part:
    """Moves that the camera makes at the same time, from frame `first` to frame `last`."""

    first: int
    last: int
    moves: tuple[Move, ...]


MOVES = {
    "pan": {"left": -1, "right": 1},
    "tilt": {"up": 1, "down": -1},
    "roll": {"left": -1, "right": 1, "counterclockwise": -1, "anticlockwise": -1, "clockwise": 1},
    "dolly": {"in": 1, "out": -1, "forward": 1, "back": -1, "backward": -1},
    "truck": {"left": -1, "right": 1},
    "pedestal": {"up": 1, "down": -1},
    "zoom": {"in": 1, "out": -1},
    "orbit": {"left": -1, "right": 1},
}
STILL = ("still", "hold", "static")
EASES: dict[str, Callable[[float], float]] = {
    "": lambda time: time,
    "ease": lambda time: time * time * (3 - 2 * time),
    "ease in": lambda time: time * time,
    "ease out": lambda time: time * (2 - time),
}
_MOVE = re.compile(
    r"(?P<kind>[a-z]+)\s+(?P<way>[a-z]+)(?:\s+(?P<speed>\d+(?:\.\d+)?|\.\d+))?(?:\s+(?P<ease>ease(?:[\s-]+(?:in|out))?))?"
)
"""Matches small letters."""


def trajectory_of(words: str, frames: int) -> Trajectory:
    """Returns the camera that moves as words say, such as “0-7: pan left” and “8: dolly in 0.5, tilt up ease” on lines.

    Without a frame, moves are for the whole clip. A part ends where the next one begins, or at the end of its range, after
    which the camera holds still until then. Raises CameraPosesError.
    """
    matrix, zoom = torch.eye(4, dtype=torch.float64), 0.0
    matrices, zooms = [matrix], [zoom]
    parts = read_moves(words, frames)
    for frame in range(1, frames):
        for part in parts:
            if part.first < frame <= part.last:
                length = part.last - part.first
                for move in part.moves:
                    before, after = (move.ease((end - part.first) / length) for end in (frame - 1, frame))
                    step = move.amount * length / FRAMES_OF_A_MOVE * (after - before)
                    matrix, zoom = _moved(matrix, move.kind, step), zoom + step * (move.kind == "zoom")
        matrices.append(matrix)
        zooms.append(zoom)
    enlarged = ZOOM ** torch.tensor(zooms, dtype=torch.float64)
    focus = torch.tensor(USUAL_FOCUS, dtype=torch.float64).repeat(frames, 1)
    focus[:, :2] *= enlarged[:, None]
    least, most = FOCUS_BETWEEN
    if not bool((focus[:, :2] >= least).all() and (focus[:, :2] <= most).all()):
        raise CameraPosesError("The camera zooms too far. Lower the speed of its zoom.")
    if float(torch.stack(matrices)[:, :3, 3].abs().max()) > FARTHEST:
        raise CameraPosesError(f"The camera goes farther than {FARTHEST:g} units. Lower its speed.")
    return Trajectory(torch.stack(matrices), focus)


def read_moves(words: str, frames: int) -> list[Part]:
    """Returns what the lines of a text say, in the order of time. Raises CameraPosesError."""
    lines = [line for line in map(read_line, words.splitlines()) if line.written]
    if any(line.positions for line in lines) and not all(line.positions for line in lines):
        loose = next(line for line in lines if not line.positions)
        raise CameraPosesError(
            f"“{shortened(loose.written)}” has no frame, but other lines have one. Write a frame before it, as in "
            "“0: pan left”."
        )
    read: list[tuple[int, int | None, tuple[Move, ...]]] = []
    for line in lines:
        try:
            ends = [frame_at(position, frames, shortened(line.written)) for position in line.positions]
        except TravelError as error:
            raise CameraPosesError(str(error)) from None
        if len(ends) == 2 and ends[1] <= ends[0]:
            raise CameraPosesError(f"“{shortened(line.written)}” ends before it begins. Swap the two numbers.")
        read.append((ends[0] if ends else 0, ends[1] if len(ends) == 2 else None, tuple(_moves_in(line.text))))
    timed = bool(lines) and bool(lines[0].positions)
    for together in [moves for *_, moves in read] if timed else [[move for *_, moves in read for move in moves]]:
        _require_different(together)
    read.sort(key=lambda entry: entry[0])
    parts: list[Part] = []
    for index, (first, last, moves) in enumerate(read):
        is_followed = timed and index + 1 < len(read)
        following = read[index + 1][0] if is_followed else frames - 1
        if is_followed and (following == first or following < (last or 0)):
            raise CameraPosesError(
                f"Two lines move the camera at frame {following}. Write their moves on one line, with a comma between them."
            )
        if last is None or (is_followed and last + 1 == following):  # without a pause between adjoining lines
            last = following
        parts.append(Part(first, last, moves))
    return parts


def _moves_in(text: str) -> Iterable[Move]:
    for phrase in filter(None, (part.strip() for part in text.split(","))):
        small = phrase.lower()
        if small in STILL:
            continue
        match = _MOVE.fullmatch(small)
        ways = MOVES.get(match["kind"], {}) if match else {}
        if not match or match["way"] not in ways:
            known = ", ".join(f"{kind} {'/'.join(list(ways)[:2])}" for kind, ways in MOVES.items())
            raise CameraPosesError(
                f"“{shortened(phrase)}” is no move of the camera. Write one of {known}, with a speed if you like, as in "
                "“pan left 0.5 ease”."
            )
        speed = float(match["speed"] or 1)
        if speed > MOST_SPEED:
            raise CameraPosesError(
                f"The speed in “{shortened(phrase)}” is above {MOST_SPEED:g}. Lower it: 1 turns by 30 degrees in 16 frames."
            )
        ease = re.sub(r"[\s-]+", " ", match["ease"] or "")
        yield Move(match["kind"], speed * ways[match["way"]], EASES[ease])


def _require_different(moves: Iterable[Move]) -> None:
    """Raises CameraPosesError for two moves of one kind at the same time: how long a clip takes would have no bound."""
    seen: set[str] = set()
    for move in moves:
        if move.kind in seen:
            raise CameraPosesError(
                f"The camera has two moves of the kind {move.kind} at the same time. Write it once, with another speed, or "
                f"give each a frame, as in “0: {move.kind} {next(iter(MOVES[move.kind]))}”."
            )
        seen.add(move.kind)


def _moved(matrix: Tensor, kind: str, step: float) -> Tensor:
    """Returns a camera after a small move. `step`: the part of a move at speed 1."""
    if kind == "pan":  # about the vertical of the first frame, as on a tripod
        return _about(matrix, _turn("y", step * ANGLE), matrix[:3, 3])
    if kind == "orbit":  # to the right means that the camera turns left, towards what it goes around
        return _about(matrix, _turn("y", -step * ANGLE), (matrix @ _point(0, 0, PIVOT))[:3])
    if kind in ("tilt", "roll"):
        return matrix @ _turn("x" if kind == "tilt" else "z", step * ANGLE)
    if kind in _SHIFTS:
        shift = torch.eye(4, dtype=torch.float64)
        shift[:3, 3] = step * LENGTH * torch.tensor(_SHIFTS[kind], dtype=torch.float64)
        return matrix @ shift
    return matrix


_SHIFTS = {"dolly": (0, 0, 1), "truck": (1, 0, 0), "pedestal": (0, -1, 0)}


def _turn(axis: str, angle: float) -> Tensor:
    """Returns a rotation: about y from z to x, about x from z to -y, about z from x to y."""
    one, other = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[one, one] = matrix[other, other] = math.cos(angle)
    matrix[one, other], matrix[other, one] = -math.sin(angle), math.sin(angle)
    return matrix


def _point(*coordinates: float) -> Tensor:
    return torch.tensor([*coordinates, 1], dtype=torch.float64)


def _about(matrix: Tensor, turn: Tensor, centre: Tensor) -> Tensor:
    """Returns a camera that is turned about a point, in the coordinates of the first frame."""
    to, back = torch.eye(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    to[:3, 3], back[:3, 3] = -centre, centre
    return back @ turn @ to @ matrix
