"""The plot of the camera's way in the group Camera, or what is wrong with it.

`javascript/animatediff_camera.js` asks for it when typing pauses. Words and files are read by the same code as for a video.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from motion_module.camera_poses import Trajectory
from motion_module.errors import UserError

from ..request import camera
from ..request.plan import windows_for
from ..request.reading import read_mapping
from . import camera_plot
from .chosen_module import trained_frames
from .controls import Controls, ElemId
from .events import in_sentences
from .gradio_versions import javascript
from .webui_controls import Page

PANEL = ("model", "video_length", "batch_size", "overlap", "camera", "camera_motion", "camera_poses")
"""The parameters that decide where the camera is in which frame."""


def add_to_group(page: Page, controls: Controls, elem_id: ElemId) -> None:
    """Adds the plot, and keeps it up to date with the panel."""
    shown = gr.HTML(elem_id=elem_id("camera-plot"))
    inputs = [controls[name] for name in PANEL]
    read = gr.Button("", visible=False, elem_id=elem_id("camera-read"))
    read.click(in_sentences(_plot), inputs, [shown], show_progress=False, queue=False)
    for control in inputs:
        control.change(None, [], [], **javascript(f"() => window.animateDiffCamera?.readSoon('{page.tab}')"))


def _plot(*values: Any) -> str:
    """Returns the plot as HTML, or why there is none; empty if the camera is not asked to move."""
    given = dict(zip(PANEL, values))
    if not (given["camera"] or given["camera_motion"] or given["camera_poses"]):
        return ""
    try:
        return camera_plot.plot(_trajectory(given))
    except UserError as error:
        return camera_plot.fault(str(error))


def _trajectory(given: dict[str, Any]) -> Trajectory:
    params, _ = read_mapping({"enable": True, **given})
    file = camera.find(params)
    frames = windows_for(params, trained_frames(params.model)).frames
    if params.camera_poses:
        poses = file.poses if file and file.poses else camera.poses(params.camera_poses)
        return camera.first_poses(poses, frames)
    return camera.trajectory(params.camera_motion, frames)
