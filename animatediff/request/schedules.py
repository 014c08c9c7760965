"""The numbers of single frames, as a request's schedules give them."""

from __future__ import annotations

from motion_module.frame_schedule import FrameSchedule, read_schedule
from motion_module.motion_strength import PerFrame
from motion_module.prompt_travel import TravelError

from ..errors import RequestError
from .params import FIELDS, Params
from .values import require_within_bounds, spoken_name

_BY_NAME = {field.name: field for field in FIELDS}


def numbers_of(params: Params, name: str, frames: int) -> PerFrame | None:
    """Returns the numbers of a schedule for a video of `frames` frames, or the one number that all have; None without it.

    Raises RequestError for what cannot be read, for frames that the video does not have and for numbers out of bounds.
    """
    try:
        schedule = schedule_of(params, name, frames)
    except TravelError as error:
        raise RequestError(f"{spoken_name(_BY_NAME[name])}: {error}") from None
    if schedule is None:
        return None
    return schedule.values if len(set(schedule.values)) > 1 else schedule.values[0]


def schedule_of(params: Params, name: str, frames: int) -> FrameSchedule | None:
    """Returns a schedule for a video of `frames` frames; None without it. Raises TravelError and RequestError."""
    schedule = read_schedule(getattr(params, name), frames, closed=params.prompts_loop)
    field = _BY_NAME[name]
    for keyframe in schedule.travel.keyframes if schedule else ():
        require_within_bounds(field, f"{spoken_name(field)} at frame {keyframe.first}", float(keyframe.text))
    return schedule
