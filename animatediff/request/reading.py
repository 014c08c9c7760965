"""Reads a request: the values that the panel or a program sends, checked against the table of parameters (imports no WebUI)."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from io import BytesIO
from typing import Any

from PIL import Image, ImageOps

from motion_module.motion_strength import MotionStrengthError, parse_rules

from ..errors import RequestError
from ..video.formats import format_problems
from .parameter_aliases import renamed
from .params import API_FORMATS, FIELDS, OWN_FPS, PANEL_FIELDS, Params, option_of

MOST_GIF_FPS = 50
"""Browsers treat a delay of less than two hundredths of a second as an error, and play the GIF slowly."""
IGNORED_KEYS = ("is_i2i_batch", "video_default", "prompt_scheduler", "reverse", "use_main_seed")
"""Keys that sd-webui-animatediff has, or had, for its own use. They are accepted and have no effect."""


def read_arguments(arguments: Iterable[Any], changes: Mapping[str, Any]) -> tuple[Params, list[str]]:
    """Reads what the WebUI passes to a script: the panel's values in order, or the API's dictionary as the first argument.

    `changes` replace what is there. Returns the parameters and warnings. Raises RequestError for values that cannot be met.
    """
    values = list(arguments)
    first = values[0] if values else None
    given = first if isinstance(first, Mapping) else {field.name: value for field, value in zip(PANEL_FIELDS, values)}
    return read_mapping({**given, **changes})


def read_mapping(given: Mapping[str, Any]) -> tuple[Params, list[str]]:
    """Checks a dictionary of parameters. None means the default. Without `enable`, AnimateDiff is off.

    Returns the parameters and warnings. Raises RequestError that names every value that is wrong.
    """
    given = renamed(given)
    known = {field.name: field for field in FIELDS}
    warnings = [
        f"AnimateDiff does not know the parameter {key!r}; it was ignored."
        for key in given
        if key not in known and key not in IGNORED_KEYS
    ]
    if given.get("enable") is None or not _read_value(known["enable"], given["enable"]):
        return Params(), warnings
    values: dict[str, Any] = {}
    faults: list[str] = []
    for name, value in given.items():
        if name not in known or value is None:
            continue
        try:
            values[name] = _read_value(known[name], value)
        except RequestError as fault:
            faults.append(str(fault))
    if faults:
        raise RequestError(" ".join(faults))
    params = Params(**values)
    _refuse_unavailable(params)
    try:
        parse_rules(params.motion_rules)
    except MotionStrengthError as error:
        raise RequestError(f"Motion rules (motion_rules): {error}") from None
    if params.motion_start >= params.motion_end:
        raise RequestError(
            f"Motion starts at {params.motion_start:g} of the steps (motion_start) and ends at {params.motion_end:g} "
            "(motion_end). The end must come after the start."
        )
    if params.video_source and params.video_path:
        raise RequestError("There are two source videos, one uploaded or in video_source, one in video_path. Give one of them.")
    return params if params.source else with_fps(params), warnings


def with_fps(params: Params, of_source: float = 0) -> Params:
    """Returns the request with its FPS filled in: from the source video if it has one, else the default.

    Raises RequestError where a GIF cannot play that fast.
    """
    params = dataclasses.replace(params, fps=params.fps or of_source or OWN_FPS)
    if "GIF" in params.format and params.fps > MOST_GIF_FPS:
        raise RequestError(
            f"FPS (fps) is {params.fps:g}, but players show a GIF at {MOST_GIF_FPS} frames a second at most. Set it to "
            f"{MOST_GIF_FPS} or less, or choose another format."
        )
    if "GIF" in params.format and params.shown_fps > MOST_GIF_FPS:
        raise RequestError(
            f"Interpolation factor (interp_x) {params.interp_x} gives {params.shown_fps:g} frames per second, but players show "
            f"a GIF at {MOST_GIF_FPS} at most. Set it to {MOST_GIF_FPS // params.fps:g} or less, or choose another format."
        )
    return params


def _read_value(field: dataclasses.Field[Any], value: Any) -> Any:
    option = option_of(field)
    if field.name == "format":
        return _read_formats(value)
    readers: dict[str, Callable[[str, Any], Any]] = {
        "bool": _read_bool,
        "int": _read_whole_number,
        "float": _read_number,
        "str": _read_text,
        "Image.Image | None": _read_picture,
    }
    name = _spoken_name(field)
    result = readers[str(field.type)](name, value)
    if option.minimum is not None and result < option.minimum:
        raise RequestError(f"{name} is {value}, but must be at least {option.minimum:g}.")
    if option.maximum is not None and result > option.maximum:
        raise RequestError(f"{name} is {value}, but must be at most {option.maximum:g}.")
    if option.choices and result not in option.choices:
        raise RequestError(f"{name} is {value!r}, but must be one of {', '.join(option.choices)}.")
    return result


def _spoken_name(field: dataclasses.Field[Any]) -> str:
    """Returns the label in the panel, if there is one, with the key for programs after it."""
    label = option_of(field).label
    return f"{label} ({field.name})" if label else field.name


def _read_bool(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise RequestError(f"{name} is {value!r}, but must be true or false.")


def _read_number(name: str, value: Any) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(value)
    except (TypeError, ValueError):
        raise RequestError(f"{name} is {value!r}, but must be a number.") from None
    if number != number or abs(number) == float("inf"):
        raise RequestError(f"{name} is {value}, but must be a finite number.")
    return number


def _read_whole_number(name: str, value: Any) -> int:
    number = _read_number(name, value)
    if number != int(number):
        raise RequestError(f"{name} is {value}, but must be a whole number.")
    return int(number)


def _read_text(name: str, value: Any) -> str:
    """Accepts a file uploaded on the page too: an object whose `name` is the path of its file."""
    value = getattr(value, "name", value)
    if isinstance(value, str):
        return value
    raise RequestError(f"{name} is {value!r}, but must be text.")


def _read_picture(name: str, value: Any) -> Image.Image | None:
    """Reads an image from the panel, or base64 text, which may be a data URL. Empty text means no image."""
    if value == "" or isinstance(value, Image.Image):
        return value or None
    try:
        picture = Image.open(BytesIO(base64.b64decode(str(value).rpartition(";base64,")[2], validate=True)))
        picture.load()
    except (ValueError, OSError, Image.DecompressionBombError):
        raise RequestError(f"{name} is not a picture in base64 that can be read.") from None
    return ImageOps.exif_transpose(picture)


def _read_formats(value: Any) -> tuple[str, ...]:
    names: Any = [value] if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise RequestError(f"format is {value!r}, but must be a list of {', '.join(API_FORMATS)}.")
    known: dict[str, str] = {name.upper(): name for name in API_FORMATS}
    chosen = dict.fromkeys(known.get(str(name).upper(), str(name)) for name in names)
    problems = format_problems()
    choice = f"Choose from {', '.join(name for name in API_FORMATS if name not in problems)}."
    for name in chosen:
        if name not in API_FORMATS:
            raise RequestError(f"The format {name!r} is unknown. {choice}")
        if name in problems:
            raise RequestError(f"The format {name} cannot be written here: {problems[name]}. {choice}")
    if not chosen:
        raise RequestError(f"No save format is chosen. {choice}")
    return tuple(chosen)


def _refuse_unavailable(params: Params) -> None:
    for field in FIELDS:
        unavailable, value = option_of(field).unavailable, getattr(params, field.name)
        if unavailable and value != field.default:
            raise RequestError(
                f"{unavailable} is not available yet, but {field.name} is {value!r}. "
                f"Leave {field.name} out, or at {field.default!r}."
            )
