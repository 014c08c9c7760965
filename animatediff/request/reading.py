"""Reads a request: the values that the panel or a program sends, checked against the table of parameters (imports no WebUI)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from motion_module.motion_strength import MotionStrengthError, parse_rules

from ..errors import RequestError, shown
from .parameter_aliases import renamed
from .params import FIELDS, LEAST_FPS, MOST_FPS, MOST_GIF_FPS, OWN_FPS, PANEL_FIELDS, Params
from .values import read_value, require_sparse, require_within_bounds

KNOWN = {field.name: field for field in FIELDS}
MOST_NAMED = 8
"""How many unknown keys a warning names."""
IGNORED_KEYS = ("is_i2i_batch", "video_default", "prompt_scheduler", "reverse", "use_main_seed")
"""Keys that sd-webui-animatediff has, or had, for its own use. They are accepted and have no effect."""


def read_arguments(arguments: Iterable[Any], changes: Mapping[str, Any]) -> tuple[Params, list[str]]:
    """Reads what the WebUI passes to a script: the panel's values in order, or the API's dictionary as the first argument.

    `changes` replace what is there. Returns the parameters and warnings. Raises RequestError for values that cannot be met.
    """
    values = list(arguments)
    if is_of_panel(values):
        return read_mapping({**{field.name: value for field, value in zip(PANEL_FIELDS, values)}, **changes})
    return read_mapping({**values[0], **changes})


def is_enabled(arguments: Sequence[Any]) -> bool:
    """Returns whether arguments ask for a video. Reads nothing else of them. Raises RequestError."""
    first = arguments[0] if arguments else False
    return read_mapping({"enable": first.get("enable") if isinstance(first, Mapping) else first})[0].enable


def is_of_panel(arguments: Sequence[Any]) -> bool:
    """Returns whether arguments are the panel's values, rather than the API's dictionary."""
    return not (arguments and isinstance(arguments[0], Mapping))


def read_mapping(given: Mapping[str, Any]) -> tuple[Params, list[str]]:
    """Checks a dictionary of parameters. None means the default. Without `enable`, AnimateDiff is off.

    Returns the parameters and warnings. Raises RequestError that names every value that is wrong.
    """
    given = renamed(given)
    warnings = _unknown([key for key in given if key not in KNOWN and key not in IGNORED_KEYS])
    if given.get("enable") is None or not read_value(KNOWN["enable"], given["enable"])[0]:
        return Params(), warnings
    _require_repeatable({key: value for key, value in given.items() if key not in KNOWN})
    values: dict[str, Any] = {}
    faults: list[str] = []
    for name, value in given.items():
        if name not in KNOWN or value is None:
            continue
        try:
            values[name], taken = read_value(KNOWN[name], value)
            warnings += [f"AnimateDiff: {taken}"] if taken else []
        except RequestError as fault:
            faults.append(str(fault))
    if faults:
        raise RequestError(" ".join(faults))
    params = Params(**values)
    _require_possible_rules(params)
    if params.motion_start >= params.motion_end:
        raise RequestError(
            f"Motion start (motion_start) is {params.motion_start:g}, but Motion end (motion_end) is {params.motion_end:g}. "
            "Set the end to more than the start."
        )
    for asked in params.sparse_asked[:1]:  # the others were checked one by one
        require_sparse(asked)
    if params.video_source and params.video_path:
        raise RequestError(
            "Both Source video (video_source) and Path on the server (video_path) give a source video. Give only one of them."
        )
    if params.motion_mask is not None and params.motion_mask_path:
        raise RequestError(
            "Both Motion mask (motion_mask) and Motion masks on the server (motion_mask_path) say where motion acts. Give only "
            "one of them."
        )
    return params if params.source else with_fps(params), warnings


def _unknown(keys: list[str]) -> list[str]:
    """Returns a warning about keys that are none of ours."""
    if not keys:
        return []
    named = ", ".join(map(shown, keys[:MOST_NAMED])) + (", …" if len(keys) > MOST_NAMED else "")
    if len(keys) == 1:
        return [f"AnimateDiff does not know the parameter {named}; it was ignored. Correct its name, or leave it out."]
    return [f"AnimateDiff does not know the parameters {named}; they were ignored. Correct their names, or leave them out."]


def _require_repeatable(ignored: Mapping[str, Any]) -> None:
    """Raises RequestError for what the WebUI's answer, which repeats the request, cannot have in it: it would be an error."""
    for key, value in ignored.items():
        try:
            orjson.dumps({key: value}, default=str)
        except TypeError:
            raise RequestError(
                f"{shown(key)} is {shown(value)}, which the WebUI cannot repeat in its answer: text must be UTF-8, whole "
                "numbers have 64 bits, and lists end after 250 levels. Leave it out; AnimateDiff does not know it."
            ) from None


def _require_possible_rules(params: Params) -> None:
    """Raises RequestError for motion rules that cannot be read, or whose numbers are out of bounds."""
    try:
        rules = parse_rules(params.motion_rules)
    except MotionStrengthError as error:
        raise RequestError(f"Motion rules (motion_rules): {error}") from None
    for rule in rules:
        for kind, number in (("scale", rule.scale), ("effect", rule.effect)):
            if number is not None:
                require_within_bounds(KNOWN[f"motion_{kind}"], f"The {kind} in the motion rule for {rule.block}", number)


def with_fps(params: Params, of_source: float = 0) -> Params:
    """Returns the request with its FPS filled in: from the source video if it has one, else the default.

    Raises RequestError where a format cannot play that fast, or that slowly.
    """
    params = dataclasses.replace(params, fps=params.fps or of_source or OWN_FPS)
    if not LEAST_FPS <= params.fps <= MOST_FPS:
        raise RequestError(
            f"The source video gives {params.fps:g} frames per second, but videos can have {LEAST_FPS:g} to {MOST_FPS:g}. Set "
            "FPS (fps) to a number between these."
        )
    if "GIF" in params.format and params.fps > MOST_GIF_FPS:
        raise RequestError(
            f"FPS (fps) is {params.fps:g}, but players show a GIF at {MOST_GIF_FPS} frames a second at most. Set it to "
            f"{MOST_GIF_FPS} or less, or choose another format."
        )
    if "GIF" in params.format and params.shown_fps > MOST_GIF_FPS:
        raise RequestError(
            f"Interpolation factor (interp_x) is {params.interp_x}, which gives {params.shown_fps:g} frames per second, but "
            f"players show a GIF at {MOST_GIF_FPS} at most. Set it to {MOST_GIF_FPS // params.fps:g} or less, or choose "
            "another format."
        )
    if params.shown_fps > MOST_FPS:
        raise RequestError(
            f"Interpolation factor (interp_x) is {params.interp_x}, which gives {params.shown_fps:g} frames per second, but "
            f"videos can have {MOST_FPS:g} at most. Set it to {MOST_FPS // params.fps:g} or less."
        )
    return params
