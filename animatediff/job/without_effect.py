"""Warnings about values that were chosen but have no effect at the other settings of the request."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from motion_module.context_windows import ContextWindows

from ..request.params import FIELDS, Params, default_of, first_value, option_of
from ..request.plan import Plan
from ..request.values import spoken_name

Field = dataclasses.Field[Any]
BY_NAME = {field.name: field for field in FIELDS}
PASTED = ("interp_x", "image_mode")
"""A pasted infotext sets these to the API's defaults, with which the panel does not start, and nobody has chosen them."""


def warnings(plan: Plan, read: Params, *, is_panel: bool) -> list[str]:
    """Returns warnings for the answer. `read`: the request as it was given. `is_panel`: whether the panel gave it.

    Programs send every key at its default, and the panel sends all of its controls: only other values were chosen.
    """
    hides_img2img = is_panel and plan.images is None
    chosen = [field for field in FIELDS if _is_chosen(field, read, is_panel) and not (hides_img2img and _is_of_img2img(field))]
    idle = [field for field in chosen if not _has_effect(field, plan)]
    found = [_open_loop(plan.params) if field.name == "closed_loop" else _idle(field, read) for field in idle]
    for name, beyond in BEYOND.items():
        if BY_NAME[name] in chosen and (text := beyond(plan)):
            found.append(text)
    return [f"AnimateDiff: {text}" for text in (*found, *_taken_otherwise(plan, read))]


def on_keyframes(params: Params, travels: Mapping[Any, Any]) -> list[str]:
    """Returns warnings for what acts on keyframes, if there are none."""
    if travels:
        return []
    found = []
    if params.prompt_interpolation != default_of(field := BY_NAME["prompt_interpolation"]):
        found.append(f"{spoken_name(field)} is {params.prompt_interpolation}, which has an effect only between keyframes.")
    if params.closed_loop == "R+P" and not params.has_windows:
        found.append(_open_loop(params))
    return [f"AnimateDiff: {text}" for text in found]


def _is_chosen(field: Field, read: Params, is_panel: bool) -> bool:
    value = getattr(read, field.name)
    if value == default_of(field) and (not is_panel or field.name in PASTED):
        return False
    return not (is_panel and value == first_value(field))


def _is_of_img2img(field: Field) -> bool:
    return option_of(field).of_img2img


def _has_effect(field: Field, plan: Plan) -> bool:
    windows, family = plan.windows, plan.family.key
    completed = dataclasses.replace(plan.params, video_length=windows.frames, batch_size=windows.length, family=family)
    needs = option_of(field).needs
    return needs is None or needs.met_by(completed, len(plan.images or ()))


def _idle(field: Field, read: Params) -> str:
    needs = option_of(field).needs
    assert needs is not None
    return f"{spoken_name(field)} is {_spoken(getattr(read, field.name))}, which has an effect only if {needs.text}."


def _open_loop(params: Params) -> str:
    return (
        f"Closed loop (closed_loop) is {params.closed_loop}, but the whole clip fits into the context length, where only A "
        "closes a loop. Choose A, or raise Number of frames (video_length)."
    )


def _spoken(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return "given"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _stride_beyond(plan: Plan) -> str:
    windows: ContextWindows = plan.windows
    fitting = len(windows.distances())
    if not windows.needed or fitting >= windows.stride:
        return ""
    return (
        f"Stride (stride) is {windows.stride}, but more than {fitting} has no effect: {windows.length} frames that are "
        f"further apart do not fit into a clip of {windows.frames}."
    )


def _positions_beyond(plan: Plan) -> str:
    attended, fewest = plan.windows.attended_frames, min(module.length for module in plan.descriptions)
    if attended > fewest:
        return ""
    return (
        f"Positional encoding (positional_encoding) is {plan.params.positional_encoding}, which has an effect only if a window "
        f"has more than {fewest} frames, but it has {attended}."
    )


def _plays_beyond(plan: Plan) -> str:
    if any(name in plan.params.format for name in ("GIF", "WEBP", "APNG")) or not _has_effect(BY_NAME["loop_number"], plan):
        return ""
    plays = plan.params.loop_number
    return f"Times to play (loop_number) is {plays}, which only the page's player follows: MP4 and WEBM files do not store it."


def _without_units(plan: Plan) -> str:
    if plan.inputs.controls:
        return ""
    return (
        "ControlNet weight per frame (controlnet_frames) has an effect only with an enabled unit of ControlNet. Switch one on."
    )


BEYOND: dict[str, Callable[[Plan], str]] = {
    "stride": _stride_beyond,
    "positional_encoding": _positions_beyond,
    "loop_number": _plays_beyond,
    "controlnet_frames": _without_units,
}
"""What the table cannot say, since it depends on more than the request."""


def _taken_otherwise(plan: Plan, read: Params) -> list[str]:
    """Says where something else was taken than the request's own words."""
    params = plan.params
    found = [
        f"{spoken_name(BY_NAME[name])} is {getattr(read, name)}, which was taken as {getattr(params, name)}."
        for name in ("model", "model_2", "camera")
        if getattr(read, name) != getattr(params, name)
    ]
    if (shortest := plan.inputs.shortest_folder) and len(shortest.pictures) < _frames_asked_for(plan, read):
        found.append(
            f"The folder of ControlNet unit {shortest.number} has {len(shortest.pictures)} pictures, so the video has as many "
            f"frames, not {_frames_asked_for(plan, read)}. Add pictures for more."
        )
    if params.interp != "Off" and params.factor != params.interp_x:
        found.append(
            f"Interpolation factor (interp_x) is {params.interp_x}, but was lowered to {params.factor}, since the save format "
            f"can play at most {params.most_fps:g} frames per second."
        )
    return found


def _frames_asked_for(plan: Plan, read: Params) -> int:
    """Returns how many frames a video would have without ControlNet's folders; 0 if they alone decide it."""
    source = plan.inputs.source
    return read.video_length or (len(source.frames) if source else len(plan.inputs.init_images or ()))
