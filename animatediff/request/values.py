"""Reads one value of a request, as programs write it: lenient where its meaning is sure, strict where it is not.

Imports nothing of the WebUI.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image

from ..errors import RequestError, shown
from ..video.formats import format_problems
from .base64_pictures import decoded
from .choices import API_FORMATS
from .frame_pictures import SparseAsked, read_frames, read_pictures
from .parameter_aliases import NOT_HERE, OFF, OFF_WORDS, UNKNOWN_IS_OFF
from .params import FIELDS, option_of

TRUE_FALSE: dict[Any, bool] = {True: True, False: False} | {
    word: meaning for words, meaning in (("true yes on 1", True), ("false no off 0", False)) for word in words.split()
}
"""True and false, by what they are written as. 1 and 0 equal True and False."""


def read_value(field: dataclasses.Field[Any], value: Any) -> tuple[Any, str]:
    """Returns a value of the parameter's type and within its bounds, and a warning if it is not the one given; else "".

    Raises RequestError.
    """
    name = spoken_name(field)
    if field.name == "format":
        return _read_formats(value), ""
    if option_of(field).choices:
        return _read_choice(field, name, value)
    if str(field.type) == "str":
        return _read_text(name, value, option_of(field).longest), ""
    readers: dict[str, Callable[[str, Any], Any]] = {
        "bool": _read_bool,
        "int": _read_whole_number,
        "float": _read_number,
        "Image.Image | None": _read_picture,
        "tuple[FramePicture, ...]": read_pictures,
        "tuple[SparseAsked, ...]": _read_more_sparse,
    }
    result = readers[str(field.type)](name, value)
    if str(field.type) in ("int", "float"):
        require_within_bounds(field, name, result)
    return result, ""


def require_sparse(asked: SparseAsked) -> None:
    """Raises RequestError where what is asked of a SparseCtrl model contradicts itself."""
    read_frames(_SPARSE_FRAMES, asked.frames)
    if asked.start >= asked.end:
        raise RequestError(
            f"SparseCtrl start (sparse_start) is {asked.start:g}, but SparseCtrl end (sparse_end) is {asked.end:g}. Set the "
            "end to more than the start."
        )


def _read_more_sparse(name: str, value: Any) -> tuple[SparseAsked, ...]:
    """Reads a list of objects with the keys of the first SparseCtrl model."""
    entries = value if isinstance(value, (list, tuple)) else [value]
    found = []
    for number, entry in enumerate(entries, start=1):
        if isinstance(entry, SparseAsked):
            found.append(entry)
            continue
        known = {field.name: field for field in FIELDS if field.name in _SPARSE_KEYS}
        if not isinstance(entry, Mapping) or set(entry) - {*known} or not entry.get("sparse_ctrl"):
            raise RequestError(
                f"{name}, entry {number}, is {shown(entry)}, but must be an object with sparse_ctrl and, if wanted, "
                f"{', '.join(key for key in known if key != 'sparse_ctrl')}."
            )
        values = {_SPARSE_KEYS[key]: read_value(known[key], given)[0] for key, given in entry.items() if given is not None}
        asked = SparseAsked(**values)
        require_sparse(asked)
        found.append(asked)
    return tuple(found)


_SPARSE_KEYS = {
    "sparse_ctrl": "model",
    **{f"sparse_{name}": name for name in ("pictures", "frames", "init_image", "strength", "start", "end")},
}
"""The parameters of one SparseCtrl model, and what `SparseAsked` calls them."""
_SPARSE_FRAMES = "Frames of the pictures (sparse_frames)"


def spoken_name(field: dataclasses.Field[Any]) -> str:
    """Returns the label in the panel, if there is one, with the key for programs after it."""
    label = option_of(field).label
    return f"{label} ({field.name})" if label else field.name


def require_within_bounds(field: dataclasses.Field[Any], name: str, number: float) -> None:
    """Raises RequestError for a number that the table does not allow for a parameter. `name`: as the error calls it."""
    option = option_of(field)
    if number == 0 and option.zero_is_auto:
        return
    if option.minimum is not None and number < option.minimum:
        or_zero = ", or 0" if option.zero_is_auto else ""
        raise RequestError(f"{name} is {_plain(number)}, but must be at least {_plain(option.minimum)}{or_zero}.")
    if option.maximum is not None and number > option.maximum:
        raise RequestError(f"{name} is {_plain(number)}, but must be at most {_plain(option.maximum)}.")


def _plain(number: float) -> str:
    """Returns a number without the exponent that `:g` gives to millions, unless it has more digits than anyone reads."""
    return str(int(number)) if abs(number) < 1e15 and number == int(number) else f"{number:g}"


def _read_bool(name: str, value: Any) -> bool:
    word = value.strip().casefold() if isinstance(value, str) else value
    if isinstance(word, (bool, int, float, str)) and word in TRUE_FALSE:
        return TRUE_FALSE[word]
    raise RequestError(f"{name} is {shown(value)}, but must be true or false.")


def _read_number(name: str, value: Any) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(value)
    except (TypeError, ValueError):
        raise RequestError(f"{name} is {shown(value)}, but must be a number.") from None
    except OverflowError:
        number = float("inf")
    if number != number or abs(number) == float("inf"):
        raise RequestError(f"{name} is {shown(value)}, but must be a finite number.")
    return number


def _read_whole_number(name: str, value: Any) -> int:
    number = _read_number(name, value)
    if number != int(number):
        raise RequestError(f"{name} is {shown(value)}, but must be a whole number.")
    return int(number)


def _read_text(name: str, value: Any, longest: int) -> str:
    if not isinstance(value, str):
        raise RequestError(f"{name} is {shown(value)}, but must be text.")
    try:
        length = len(value.encode())
    except UnicodeEncodeError:
        raise RequestError(
            f"{name} is {shown(value)}, which has half a character in it (a lone surrogate). Send whole characters, as UTF-8."
        ) from None
    if length > longest:
        raise RequestError(f"{name} is {shown(value)}, which has {length} bytes, but must have at most {longest}. Shorten it.")
    return value


def _read_choice(field: dataclasses.Field[Any], name: str, value: Any) -> tuple[str, str]:
    """Takes a choice in another case or between blanks, and the words that programs have for off."""
    choices, suffix = option_of(field).choices, option_of(field).more_choices
    if isinstance(value, str):
        _read_text(name, value, option_of(field).longest)  # the answer repeats it, also where it was taken as something else
        if value in choices or (suffix and value.endswith(suffix)):
            return value, ""
    is_no = isinstance(value, (bool, int)) and not value
    word = value.strip().casefold() if isinstance(value, str) else "false" if is_no else None
    meant = next((choice for choice in choices if choice.casefold() == word), None)
    is_unknown = isinstance(value, str) and field.name in UNKNOWN_IS_OFF and word not in _of_others(field)
    if meant is None and field.name in OFF and (word in OFF_WORDS or is_unknown):
        meant = OFF[field.name]
    if meant is None:
        more = f", or the name of a {suffix} file" if suffix else ""
        raise RequestError(f"{name} is {shown(value)}, but must be one of {', '.join(choices)}{more}.")
    others = ", ".join(choice for choice in choices if choice != meant)
    return meant, f"{name} is {shown(value)}, which was taken as {meant}. The other choices are {others}."


def _of_others(field: dataclasses.Field[Any]) -> list[str]:
    return [choice.casefold() for choice in NOT_HERE.get(field.name, ())]


def _read_picture(name: str, value: Any) -> Image.Image | None:
    """Reads an image from the panel, or base64 text, which may be a data URL. Empty text means no image."""
    if value == "" or isinstance(value, Image.Image):
        return value or None
    if not isinstance(value, str):
        raise RequestError(f"{name} is {shown(value)}, but must be a picture in base64.")
    return decoded(name, value)


def _read_formats(value: Any) -> tuple[str, ...]:
    names: Any = [value] if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise RequestError(
            f"Save format (format) is {shown(value)}, but must be a list of one or more of {', '.join(API_FORMATS)}."
        )
    known: dict[str, str] = {name.upper(): name for name in API_FORMATS}
    chosen: dict[str, None] = dict.fromkeys(known.get(str(name).strip().upper(), str(name)) for name in names)
    problems = format_problems()
    choice = f"Choose from {', '.join(name for name in API_FORMATS if name not in problems)}."
    for name in chosen:
        if name not in API_FORMATS:
            raise RequestError(f"Save format (format) has {shown(name)}, which is unknown. {choice}")
        if name in problems:
            raise RequestError(f"Save format (format) has {name}, which cannot be written here: {problems[name]}. {choice}")
    if not chosen:
        raise RequestError(f"Save format (format) is empty. {choice}")
    return tuple(chosen)
