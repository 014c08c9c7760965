"""Makes controls of the panel from the table of parameters."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any

import gradio as gr
from modules import shared
from modules.ui_common import create_refresh_button

from motion_module.video_reader import VIDEO_SUFFIXES

from ..detailer import detector_files
from ..request import module_files, sparse_files
from ..request.choices import DEFAULT_MODULE, FORMATS
from ..request.params import Option, default_of, first_value, option_of
from ..video.formats import format_problems
from . import mask_drawing
from .upload_controls import Picture, PictureUploads, Upload

Field = dataclasses.Field[Any]
Controls = dict[str, gr.components.Component]
ElemId = Callable[[str], str]
"""Makes an element id of the page's tab from the short id in the table."""
UPLOAD_HEIGHT = 160
"""Pixels."""


def control(field: Field, elem_id: ElemId) -> gr.components.Component:
    """Returns the control of a parameter, with its help and the condition for its effect as a tooltip."""
    option = option_of(field)
    facts = {"label": option.label, "elem_id": elem_id(option.elem_id), **({"info": option.info} if option.info else {})}
    made = _control(field, option, facts, elem_id)
    set_tooltip(made, option.full_help)
    return made


def set_tooltip(component: gr.components.Component, text: str) -> None:
    """Gives a component with an element id a tooltip. The WebUI puts it into the page; the embedded host shows none."""
    component.webui_tooltip = text


def group(fields: Iterable[Field], elem_id: ElemId) -> Controls:
    """Returns the controls of a folded group, section by section."""
    controls: Controls = {}
    for section, members in itertools.groupby(fields, lambda field: option_of(field).section):
        with gr.Column(elem_classes="ad-section"):
            if section:
                gr.Markdown(section, elem_classes="ad-heading")
            controls |= _section(members, elem_id)
    return controls


def _section(fields: Iterable[Field], elem_id: ElemId) -> Controls:
    """Returns controls in rows of two, or one of three; large ones have a row of their own."""
    controls: Controls = {}
    for is_large, group in itertools.groupby(fields, _is_large):
        members = list(group)
        width = 1 if is_large else 3 if len(members) == 3 else 2
        for first in range(0, len(members), width):
            with gr.Row(elem_classes="ad-row"):
                controls |= {field.name: control(field, elem_id) for field in members[first : first + width]}
            if option_of(members[first]).is_schedule:
                strip = elem_id(f"{option_of(members[first]).elem_id}-timeline")
                controls[timeline_of(members[first].name)] = gr.HTML(visible=False, elem_id=strip)
    return controls


def timeline_of(name: str) -> str:
    """Returns the key of the timeline below a schedule per frame, among the controls of the panel."""
    return f"{name}: timeline"


def _is_large(field: Field) -> bool:
    return str(field.type) not in ("bool", "int", "float") and not option_of(field).choices


def _control(field: Field, option: Option, facts: dict[str, Any], elem_id: ElemId) -> gr.components.Component:
    kind = str(field.type)
    if field.name in _FILES:
        names, first, refresh = _FILES[field.name]
        return _with_refresh(facts, names, first(names()), elem_id(refresh))
    if field.name == "format":
        return _formats(field, facts)
    if field.name in _UPLOADS:
        return Upload(file_types=_UPLOADS[field.name], height=UPLOAD_HEIGHT, **facts)
    if kind in _PICTURES:
        return _pictures(field, facts, elem_id)
    facts["value"] = first_value(field)
    if option.choices:
        return gr.Dropdown(list(option.choices), **facts)
    if kind == "bool":
        return gr.Checkbox(**facts)
    if kind == "str":
        height = {"lines": option.lines, "max_lines": 1 if option.lines == 1 else 20}
        return gr.Textbox(**height, placeholder=option.placeholder or None, **facts)
    if option.slider:
        return gr.Slider(*option.slider[:2], step=option.slider.step, **facts)
    return gr.Number(precision=0 if kind == "int" else None, **facts)  # without limits: Generate reports what is out of range


def _pictures(field: Field, facts: dict[str, Any], elem_id: ElemId) -> gr.components.Component:
    """Returns the control of one picture, or of several."""
    if field.name == "sparse_pictures":
        return PictureUploads(file_count="multiple", file_types=["image"], height=UPLOAD_HEIGHT, **facts)
    picture = Picture(type="pil", height=UPLOAD_HEIGHT, **facts)
    if field.name == "motion_mask":
        mask_drawing.add_beside(picture, elem_id("motion-mask-drawing"))
    return picture


def _with_refresh(facts: dict[str, Any], names: Callable[[], list[str]], value: str, refresh: str) -> gr.Dropdown:
    """Returns a choice of files, and puts a button beside it that looks for new ones."""
    dropdown = gr.Dropdown(names(), value=value, **facts)
    create_refresh_button(dropdown, lambda: None, lambda: {"choices": names()}, refresh)
    return dropdown


def first_choice(names: list[str]) -> str:
    """Returns the motion module that is chosen first, empty if there is none.

    It is text in any case: the WebUI converts what is pasted into a control to the type of the control's first value.
    """
    return DEFAULT_MODULE if DEFAULT_MODULE in names else next(iter(names), "")


_FILES: dict[str, tuple[Callable[[], list[str]], Callable[[list[str]], str], str]] = {
    "model": (module_files.names, first_choice, "refresh"),
    "model_2": (lambda: ["", *module_files.names()], itemgetter(0), "refresh-2"),
    "camera": (lambda: ["", *module_files.names()], itemgetter(0), "refresh-camera"),
    "sparse_ctrl": (lambda: ["", *sparse_files.names()], itemgetter(0), "refresh-sparse"),
    "detail": (detector_files.choices, itemgetter(0), "refresh-detectors"),
}
"""Parameters that are files: what there is to choose, which of it is chosen first, and the element id of the refresh button."""
_PICTURES = ("Image.Image | None", "tuple[FramePicture, ...]")
"""The types of parameters that are pictures."""
_UPLOADS = {"video_source": [*VIDEO_SUFFIXES, ".webp", ".png"], "camera_poses": [".txt"]}
"""Parameters that are uploaded files, and their suffixes."""


def _formats(field: Field, facts: dict[str, Any]) -> gr.CheckboxGroup:
    chosen = shared.opts.data.get("animatediff_default_save_formats", list(default_of(field)))
    problems = format_problems()
    choices = [name for name in FORMATS if name not in problems]
    facts["info"] = " ".join(f"{name} is not available: {problem}." for name, problem in problems.items()) or None
    return gr.CheckboxGroup(choices, value=[name for name in chosen if name in choices], **facts)
