"""The numbers of single frames, as a request's schedules give them."""

from __future__ import annotations

import re

from motion_module.frame_schedule import FrameSchedule, read_schedule
from motion_module.motion_strength import PerFrame
from motion_module.prompt_travel import TravelError

from ..errors import RequestError
from .params import FIELDS, Params
from .values import require_within_bounds, spoken_name

OF_UNITS = "controlnet_frames"
_BY_NAME = {field.name: field for field in FIELDS}
_UNIT = re.compile(r"^[ \t]*unit[ \t]+(\d{1,3})[ \t]*:?", re.IGNORECASE | re.MULTILINE)


def numbers_of(params: Params, name: str, frames: int) -> PerFrame | None:
    """Returns the numbers of a schedule for a video of `frames` frames, or the one number that all have; None without it.

    Raises RequestError for what cannot be read, for frames that the video does not have and for numbers out of bounds.
    """
    schedule = _named(params, name, frames).get(None)
    if schedule is None:
        return None
    return schedule.values if len(set(schedule.values)) > 1 else schedule.values[0]


def weights_of_units(params: Params, frames: int) -> dict[int | None, tuple[float, ...]]:
    """Returns what multiplies the weights of ControlNet's units in each frame, by their numbers; None is for all others.

    Raises RequestError.
    """
    return {unit: schedule.values for unit, schedule in _named(params, OF_UNITS, frames).items()}


def _named(params: Params, name: str, frames: int) -> dict[int | None, FrameSchedule]:
    """Like `schedules_of`, but what cannot be read is a RequestError with the name of the parameter."""
    try:
        return schedules_of(params, name, frames)
    except TravelError as error:
        raise RequestError(f"{spoken_name(_BY_NAME[name])}: {error}") from None


def schedules_of(params: Params, name: str, frames: int) -> dict[int | None, FrameSchedule]:
    """Returns the schedule that a parameter gives, by None; those of ControlNet's units by their numbers too.

    Raises TravelError and RequestError.
    """
    first, *others = _UNIT.split(getattr(params, name)) if name == OF_UNITS else [getattr(params, name)]
    units = [int(unit) for unit in others[::2]]
    for unit in units:
        if units.count(unit) > 1:
            raise RequestError(
                f"{spoken_name(_BY_NAME[name])}: “unit {unit}” is there twice. Write its keyframes below one of them."
            )
    texts: dict[int | None, str] = {None: first, **dict(zip(units, others[1::2]))}
    read = {unit: read_schedule(text, frames, closed=params.prompts_loop) for unit, text in texts.items()}
    schedules = {unit: schedule for unit, schedule in read.items() if schedule is not None}
    field = _BY_NAME[name]
    for schedule in schedules.values():
        for keyframe in schedule.travel.keyframes:
            require_within_bounds(field, f"{spoken_name(field)} at frame {keyframe.first}", float(keyframe.text))
    return schedules
