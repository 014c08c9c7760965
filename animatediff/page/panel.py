"""The panel below the WebUI's own controls, made from the table of parameters."""

from __future__ import annotations

import dataclasses
import html
import itertools
from collections.abc import Callable
from typing import Any

import gradio as gr
from modules import shared
from modules.infotext_utils import PasteField
from modules.ui_common import create_refresh_button
from modules.ui_components import InputAccordion

from motion_module.video_reader import VIDEO_SUFFIXES
from motion_module.weight_files import CheckpointError

from ..errors import RequestError
from ..job import advice
from ..request import infotext, module_files
from ..request.params import DEFAULT_MODULE, FORMATS, ONLY_IMG2IMG, PANEL_FIELDS, option_of
from ..video.formats import format_problems
from . import expected_time, presets, resume_button, timeline_page
from .webui_controls import Page

Controls = dict[str, gr.components.Component]
SIDE_BY_SIDE = ("bool", "int", "float")
"""Types of the controls that stand side by side."""


def build(page: Page) -> Controls:
    """Builds the panel of one page. Returns its controls by parameter, in the table's order."""

    def elem_id(name: str) -> str:
        return f"{page.tab}-ad-{name}"

    fields = {field.name: field for field in PANEL_FIELDS}
    enable = option_of(fields["enable"])
    controls: Controls = {}
    with InputAccordion(False, label=enable.label, elem_id=elem_id(enable.elem_id)) as accordion:
        controls["enable"] = accordion
        with gr.Row():
            controls["model"] = _module_dropdown(fields["model"], elem_id)
        resume_button.add_to_panel(page.tab, elem_id)
        notice = gr.HTML(_notice(), elem_id=elem_id("notice"))
        _offer_old_folder(controls["model"], notice, elem_id)
        advised = gr.HTML(elem_id=elem_id("advice"))
        use_settings = gr.Button("Use the settings of its authors", elem_id=elem_id("use-settings"), size="sm")
        with gr.Row(elem_classes="ad-row"):
            controls["video_length"] = _number(fields["video_length"], elem_id)
            controls["fps"] = _number(fields["fps"], elem_id)
            with gr.Column():
                shown = [controls[name].value for name in ("model", "video_length")]
                duration = gr.HTML(_duration(*shown, 0, controls["fps"].value), elem_id=elem_id("duration"))
                expected = gr.HTML(elem_id=elem_id("expected"))
        controls["format"] = _formats(fields["format"], elem_id)
        for group in dict.fromkeys(option_of(field).group for field in PANEL_FIELDS):
            if group != "main":
                visible = group not in ONLY_IMG2IMG or page.tab == "img2img"
                with gr.Accordion(group, open=False, visible=visible, elem_id=elem_id(group.lower().replace(" ", "-"))):
                    controls |= _group([field for field in PANEL_FIELDS if option_of(field).group == group], elem_id)
        advice.connect(page, controls, advised, use_settings)
        presets.add_to_panel(controls, elem_id)
        # A video that is uploaded brings its own speed, without which its sound could not come along.
        controls["video_source"].upload(lambda: 0, [], [controls["fps"]], show_progress=False, queue=False)
        lasts = [controls[name] for name in ("model", "video_length", "batch_size", "fps", "video_source", "video_path")]
        for control in lasts:
            control.change(_duration, lasts, [duration], show_progress=False, queue=False)
        expected_time.add_to_panel(page, [controls[name] for name in expected_time.LENGTH], expected)
        timeline_page.follow_typing(page, [controls[name] for name in timeline_page.PANEL])
    return {name: controls[name] for name in fields}


def paste_fields(controls: Controls) -> list[PasteField]:
    """How a pasted infotext reaches the controls."""
    return [PasteField(controls[name], read) for name, read in infotext.READERS.items()]


def _module_dropdown(field: dataclasses.Field[Any], elem_id: Callable[[str], str]) -> gr.Dropdown:
    option = option_of(field)
    names = module_files.names()
    dropdown = gr.Dropdown(
        label=option.label,
        choices=names,
        value=_first_choice(names),
        elem_id=elem_id(option.elem_id),
    )
    create_refresh_button(dropdown, lambda: None, lambda: {"choices": module_files.names()}, elem_id("refresh"))
    return dropdown


def _second_module_dropdown(field: dataclasses.Field[Any], elem_id: Callable[[str], str]) -> gr.Dropdown:
    option = option_of(field)

    def choices() -> list[str]:
        return ["", *module_files.names()]

    with gr.Row():
        dropdown = gr.Dropdown(
            label=option.label, choices=choices(), value="", info=option.help, elem_id=elem_id(option.elem_id)
        )
        create_refresh_button(dropdown, lambda: None, lambda: {"choices": choices()}, elem_id("refresh-2"))
    return dropdown


def _first_choice(names: list[str]) -> str:
    """Text in any case: the WebUI pastes into a control what has the type of its first value."""
    return DEFAULT_MODULE if DEFAULT_MODULE in names else next(iter(names), "")


def _notice() -> str:
    """What to do where there is no motion module yet; else nothing."""
    if module_files.names():
        return ""
    return (
        "<p><span>There is no motion module in this folder yet:</span> "
        f"<code>{html.escape(str(module_files.folder()))}</code><br>"
        "<span>Get one for your checkpoints, put it there and press the refresh button; for example these:</span> "
        f"{module_files.EXAMPLES}</p>"
    )


def _offer_old_folder(dropdown: gr.Dropdown, notice: gr.HTML, elem_id: Callable[[str], str]) -> None:
    """A button that takes the motion modules of the established extension from where they are."""
    if (folder := module_files.old_folder()) is None:
        return

    def use_it() -> tuple[Any, Any, Any]:
        shared.opts.set("animatediff_model_path", str(folder))
        shared.opts.save(shared.config_filename)
        names = module_files.names()
        return (
            gr.update(choices=names, value=_first_choice(names)),
            gr.update(value=_notice()),
            gr.update(visible=False),
        )

    button = gr.Button("Use the motion modules of sd-webui-animatediff", elem_id=elem_id("use-old-folder"))
    button.click(use_it, [], [dropdown, notice, button])


def _group(fields: list[dataclasses.Field[Any]], elem_id: Callable[[str], str]) -> Controls:
    """The controls of one folded group, numbers side by side."""
    controls: Controls = {}
    for is_small, some in itertools.groupby(fields, lambda field: str(field.type) in SIDE_BY_SIDE):
        some = list(some)
        for pair in (some[first : first + 2] for first in range(0, len(some), 2)):
            with gr.Row(elem_classes="ad-row") if is_small else gr.Column():
                controls |= {field.name: _control(field, elem_id) for field in pair}
    return controls


def _control(field: dataclasses.Field[Any], elem_id: Callable[[str], str]) -> gr.components.Component:
    """The control of a parameter in one of the folded groups."""
    option = option_of(field)
    if field.name == "model_2":
        return _second_module_dropdown(field, elem_id)
    if field.name == "last_frame":
        return gr.Image(label=option.label, type="pil", elem_id=elem_id(option.elem_id))
    if field.name == "video_source":
        return gr.File(label=option.label, file_types=list(VIDEO_SUFFIXES), elem_id=elem_id(option.elem_id))
    if str(field.type) == "bool":
        return gr.Checkbox(field.default, label=option.label, info=option.help, elem_id=elem_id(option.elem_id))
    if str(field.type) in SIDE_BY_SIDE:
        return _number(field, elem_id)
    facts = {"label": option.label, "value": _at_first(field), "info": option.help, "elem_id": elem_id(option.elem_id)}
    return gr.Dropdown(choices=list(option.choices), **facts) if option.choices else gr.Textbox(lines=option.lines, **facts)


def _at_first(field: dataclasses.Field[Any]) -> Any:
    option = option_of(field)
    return field.default if option.at_first is None else option.at_first


def _number(field: dataclasses.Field[Any], elem_id: Callable[[str], str]) -> gr.Number:
    """Without gradio's own limits: what is out of range is said in our words when Generate is pressed."""
    option = option_of(field)
    return gr.Number(
        label=option.label,
        value=_at_first(field),
        precision=0 if str(field.type) == "int" else None,
        info=option.help,
        elem_id=elem_id(option.elem_id),
    )


def _formats(field: dataclasses.Field[Any], elem_id: Callable[[str], str]) -> gr.CheckboxGroup:
    option = option_of(field)
    chosen = shared.opts.data.get("animatediff_default_save_formats", list(field.default))
    problems = format_problems()
    choices = [name for name in FORMATS if name not in problems]
    return gr.CheckboxGroup(
        label=option.label,
        choices=choices,
        value=[name for name in chosen if name in choices],
        info=" ".join(f"No {name}: {problem}." for name, problem in problems.items()) or None,
        elem_id=elem_id(option.elem_id),
    )


def _duration(model: str | None, frames: float | None, window: float | None, fps: float | None, *sources: Any) -> str:
    """How long the video will be; nothing where that cannot be said, since Generate will say why."""
    if any(sources) and not frames:
        return ""
    try:
        count = frames or window or advice.trained_frames(model)
        return f"<span>Length</span> {count / (fps or 0):.2f} s ({count:.0f} <span>frames</span>)"
    except (RequestError, CheckpointError, ZeroDivisionError):
        return ""
