"""The numbers of single frames, as a request's schedules give them."""

from __future__ import annotations

from motion_module.frame_schedule import read_schedule
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
    field = _BY_NAME[name]
    try:
        schedule = read_schedule(getattr(params, name), frames, closed=params.prompts_loop)
    except TravelError as error:
        raise RequestError(f"{spoken_name(field)}: {error}") from None
    if schedule is None:
        return None
    for keyframe in schedule.travel.keyframes:
        require_within_bounds(field, f"{spoken_name(field)} at frame {keyframe.first}", float(keyframe.text))
    return schedule.values if len(set(schedule.values)) > 1 else schedule.values[0]
