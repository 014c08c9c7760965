"""Below a source video on the page: its strip of thumbnails, and the ControlNet units that take its frames.

`javascript/animatediff_source.js` asks for them when changes pause.
"""

from __future__ import annotations

import html
from functools import partial
from typing import Any

import gradio as gr

from motion_module.errors import UserError

from ..controlnet.page_units import PageUnit, units_of_page
from ..controlnet.pictures import origin_of
from ..request import source_video
from ..request.params import Params
from ..request.reading import read_mapping
from . import source_strip
from .controls import Controls, ElemId
from .events import in_sentences
from .gradio_versions import javascript
from .source_strip import Used
from .webui_controls import Page

SOURCE = ("video_source", "video_path", "source_start", "source_stride", "video_length", "source_for_controlnet")
SIZE = (160, 116)
"""The largest width and height of a thumbnail, in pixels: twice what `style.css` shows, for screens with fine pixels."""
SECONDS = 10
"""How long the thumbnails may take."""
LAST_OF_SCRIPTS = "script_list"
"""The WebUI's id of what it makes after the controls of all scripts."""


def add_to_group(page: Page, controls: Controls, elem_id: ElemId) -> None:
    """Adds both to the group of the source video, and keeps them up to date with the panel and with ControlNet's units."""
    strip, units = gr.HTML(elem_id=elem_id("source-strip")), gr.HTML(elem_id=elem_id("source-units"))
    inputs = [controls[name] for name in SOURCE]
    read = gr.Button("", visible=False, elem_id=elem_id("source-read"))
    read.click(in_sentences(_strip), inputs, [strip], show_progress=False, queue=False)
    for control in inputs:
        control.change(None, [], [], **javascript(_soon(page, "source")))

    def connect(_made: list[Any]) -> None:
        is_img2img = page.tab == "img2img"
        found = units_of_page(is_img2img=is_img2img)
        if not found:
            return
        read = gr.Button("", visible=False, elem_id=elem_id("units-read"))
        states = [component for unit in found for component in unit.states]
        of_tab = partial(_units, is_img2img)
        read.click(in_sentences(of_tab), [*inputs, *states], [units], show_progress=False, queue=False)
        for unit in found:
            unit.when_changed(_soon(page, "units"))

    page.when_made("units", [LAST_OF_SCRIPTS], connect)


def _soon(page: Page, what: str) -> str:
    return f"() => window.animateDiffSource?.readSoon('{page.tab}', '{what}')"


def _strip(*values: Any) -> str:
    """Returns the strip as HTML, or why there is none; empty without a source."""
    try:
        if not (params := _params(values)).source:
            return ""
        glance = source_video.glance(params, lambda count: _used(params, count).shown(), SIZE, SECONDS)
        return source_strip.strip(_used(params, glance.count), glance.pictures, glance.fps, is_exact=glance.is_exact)
    except UserError as error:
        return source_strip.fault(str(error))


def _used(params: Params, count: int) -> Used:
    return Used(count, params.source_start, params.source_stride, params.video_length)


def _params(values: tuple[Any, ...]) -> Params:
    return read_mapping({"enable": True, **dict(zip(SOURCE, values))})[0]


def _units(is_img2img: bool, *values: Any) -> str:
    """Returns which units take the frames of the source, as HTML; empty without a source, or where Generate reports why."""
    try:
        params = _params(values[: len(SOURCE)])
    except UserError:
        return ""
    if not params.source:
        return ""
    origins: dict[str | None, list[str]] = {}
    for number, unit in enumerate(PageUnit.read(values[len(SOURCE) :])):
        if unit.enabled:
            name = next((str(name) for name in (unit.module, unit.model) if name and name.lower() != "none"), "–")
            origin = origin_of(unit, params, [None] if is_img2img else None)  # img2img starts from one image
            origins.setdefault(origin, []).append(f"{number} ({html.escape(name)})")
    taking = [*origins.pop("img2img", []), *origins.pop("source video", [])]
    parts = [f"<span>ControlNet units that take its frames:</span> {', '.join(taking)}"] if taking else []
    if not taking and not (is_img2img and params.frames_from_source):
        parts.append("<span>No ControlNet unit takes its frames. Enable one without a picture of its own.</span>")
    parts += [f"{_OTHERS[origin]} {', '.join(names)}" for origin, names in origins.items()]
    return source_strip.line(parts)


_OTHERS = {
    "own": "<span>Units with a picture of their own:</span>",
    "folder": "<span>Units with a folder of their own:</span>",
    None: "<span>Units without a folder:</span>",
}
