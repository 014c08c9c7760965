"""The panel below the WebUI's own controls, made from the table of parameters."""

from __future__ import annotations

from typing import Any

import gradio as gr
from modules.infotext_utils import PasteField
from modules.ui_components import InputAccordion

from motion_module.weight_files import CheckpointError

from ..controlnet import script as controlnet_script
from ..errors import RequestError
from ..request import infotext
from ..request.params import CAMERA, MAIN, PANEL_FIELDS, VIDEO, option_of
from . import (
    camera_page,
    disabled_controls,
    expected_time,
    module_advice,
    module_notice,
    presets,
    resume_button,
    source_page,
    timeline_page,
)
from .chosen_module import trained_frames
from .controls import Controls, ElemId, control, group, set_tooltip
from .events import in_sentences
from .webui_controls import Page

FIELDS = {field.name: field for field in PANEL_FIELDS}


def build(page: Page) -> Controls:
    """Builds the panel of one page. Returns its controls by parameter, in the table's order."""

    def elem_id(name: str) -> str:
        return f"{page.tab}-ad-{name}"

    enable = option_of(FIELDS["enable"])
    controls: Controls = {}
    with InputAccordion(False, label=enable.label, elem_id=elem_id(enable.elem_id)) as accordion:
        controls["enable"] = accordion
        with gr.Row():
            controls["model"] = control(FIELDS["model"], elem_id)
        resume_button.add_to_panel(page.tab, elem_id)
        module_notice.add_to_panel(controls["model"], elem_id)
        advised = gr.HTML(elem_id=elem_id("advice"))
        use_settings = gr.Button("Use the recommended settings", elem_id=elem_id("use-settings"), size="sm")
        set_tooltip(
            use_settings,
            "Sets the sampler, schedule type, steps, CFG scale and motion scale that the module's authors recommend, and the "
            "size or denoising strength if the module needs a certain one.",
        )
        with gr.Row(elem_classes="ad-row"):
            controls |= {name: control(FIELDS[name], elem_id) for name in ("video_length", "fps", "closed_loop")}
        with gr.Row():
            duration, expected = gr.HTML(elem_id=elem_id("duration")), gr.HTML(elem_id=elem_id("expected"))
        controls["format"] = control(FIELDS["format"], elem_id)
        controls |= _groups(page, controls, elem_id)
        presets.add_to_panel(page, controls, elem_id)
        module_advice.add_to_panel(page, controls, advised, use_settings)
        disabled_controls.add_to_panel(controls, elem_id, is_img2img=page.tab == "img2img")
        _follow_length(controls, duration)
        expected_time.add_to_panel(page, [controls[name] for name in expected_time.LENGTH], expected)
        timeline_page.follow_typing(page, controls)
    return {name: controls[name] for name in FIELDS}


def paste_fields(controls: Controls) -> list[PasteField]:
    """Returns how a pasted infotext reaches the controls."""
    return [PasteField(controls[name], read) for name, read in infotext.READERS.items()]


def _groups(page: Page, main: Controls, elem_id: ElemId) -> Controls:
    """Adds the folded groups in the order of the table. Returns their controls. `main`: those that are always visible."""
    controls: Controls = {}
    for folded in dict.fromkeys(option_of(field).group for field in PANEL_FIELDS):
        if folded is None or folded is MAIN:
            continue
        has_controlnet = controlnet_script.is_installed()
        visible = page.tab == "img2img" or not (folded.img2img_only or (folded is VIDEO and not has_controlnet))
        with gr.Accordion(folded.title, open=False, visible=visible, elem_id=elem_id(folded.elem_id)):
            members = [field for field in PANEL_FIELDS if option_of(field).group is folded]
            controls |= group(members, elem_id)
            for field in members:
                if option_of(field).img2img_only and page.tab != "img2img":
                    controls[field.name].visible = False
            if folded is VIDEO:
                source_page.add_to_group(page, main | controls, elem_id)
            if folded is CAMERA:
                camera_page.add_to_group(page, main | controls, elem_id)
        if folded is VIDEO:
            controls["source_for_controlnet"].visible = has_controlnet and page.tab == "img2img"  # in txt2img it does no more
            controls["mask_path"].visible = page.tab == "img2img"
    return controls


def _follow_length(controls: Controls, shown: gr.HTML) -> None:
    """Keeps `shown` up to date with the length of the video."""
    inputs = [controls[name] for name in ("model", "video_length", "batch_size", "fps", "video_source", "video_path")]
    shown.value = _duration(*(control.value for control in inputs))
    for each in inputs:
        each.change(in_sentences(_duration), inputs, [shown], show_progress=False, queue=False)
    # The sound of a source video needs the video's own speed.
    controls["video_source"].upload(lambda: 0, [], [controls["fps"]], show_progress=False, queue=False)


def _duration(model: str | None, frames: float | None, context: float | None, fps: float | None, *sources: Any) -> str:
    """Returns the length of the video as HTML; nothing where it is unknown or where Generate will report why."""
    if any(sources) and not frames:
        return ""
    try:
        count = frames or context or trained_frames(model)
        return f"<span>Length</span> {count / (fps or 0):.2f} s ({count:.0f} <span>frames</span>)"
    except (RequestError, CheckpointError, ZeroDivisionError):
        return ""
