"""Dims the controls of the panel that have no effect with the present settings. They can still be used."""

from __future__ import annotations

import dataclasses
from typing import Any

import gradio as gr
from PIL import Image

from motion_module.weight_files import CheckpointError

from ..errors import RequestError
from ..request import module_files
from ..request.params import MOST_FRAMES, PANEL_FIELDS, Params, option_of
from .chosen_module import described
from .controls import Controls, ElemId
from .events import in_sentences

DECIDING = (
    "model", "family", "video_length", "closed_loop", "format", "batch_size", "context_mode", "image_mode", "video_source",
    "video_path", "source_for_controlnet", "model_2", "interp", "noise_type", "freeinit_enable", "freeinit_iters",
    "detail", "camera", "sparse_ctrl",
)  # fmt: skip
"""The parameters that decide whether others have an effect."""
ANY_PICTURE = Image.new("L", (1, 1))
"""Counts as the last frame: each change would send the real one to the server again."""


def add_to_panel(controls: Controls, elem_id: ElemId, is_img2img: bool) -> None:
    """Keeps a style sheet in the page up to date that dims controls."""

    def style(*values: Any) -> str:
        params = completed(dict(zip(DECIDING, values)), is_img2img)
        dimmed = [f"#{elem_id(option_of(field).elem_id)}" for field in PANEL_FIELDS if not has_effect(field, params)]
        return f"<style>{', '.join(dimmed)} {{ opacity: 0.4; }}</style>" if dimmed else ""

    deciding = [controls[name] for name in DECIDING]
    sheet = gr.HTML(style(*(control.value for control in deciding)), visible=False, elem_id=elem_id("dimming"))
    for control in deciding:
        control.change(in_sentences(style), deciding, [sheet], show_progress=False, queue=False)


def completed(values: dict[str, Any], is_img2img: bool) -> Params:
    """Returns the panel's values with the context length, number of frames and family that the motion module gives.

    A number of frames that only a source video or the images of img2img can tell counts as large.
    """
    params = Params(**values)
    try:
        description, family = described(params.model, params.family)
        trained, key = module_files.trained_frames(description, family), family.key
    except (RequestError, CheckpointError):
        trained, key = 0, params.family
    context = params.batch_size or trained
    frames = params.video_length or (MOST_FRAMES if is_img2img or params.source else context)
    return dataclasses.replace(params, batch_size=context, video_length=frames, family=key, last_frame=ANY_PICTURE)


def has_effect(field: dataclasses.Field[Any], params: Params) -> bool:
    """Returns whether a parameter has an effect in a completed request, which starts from one image if it is img2img's."""
    needs = option_of(field).needs
    return needs is None or needs.met_by(params, 1)
