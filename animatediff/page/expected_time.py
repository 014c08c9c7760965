"""What making the video will take, said in the panel before Generate is pressed."""

from __future__ import annotations

from typing import Any

import gradio as gr

from motion_module.weight_files import CheckpointError

from ..errors import RequestError
from ..job import advice, estimate, run_history
from ..request.plan import windows_for
from ..request.reading import read_mapping
from .webui_controls import Page

GIGABYTE = 1e9
LENGTH = (
    "model", "video_length", "batch_size", "overlap", "stride", "closed_loop", "context_mode", "video_source", "video_path",
)  # fmt: skip
"""The parameters that say what goes through the UNet."""


def add_to_panel(page: Page, length: list[gr.components.Component], shown: gr.HTML) -> None:
    """Keeps `shown` up to date with the WebUI's own controls and with `length`: the panel's controls named in `LENGTH`."""
    is_img2img = page.tab == "img2img"
    own_name = "denoising_strength" if is_img2img else "hr-checkbox"

    def expected(*values: Any) -> str:
        """`own`: the strength of img2img, or whether txt2img is followed by hires fix."""
        *panel, width, height, steps, videos, own = values
        try:
            params, _ = read_mapping({"enable": True, **dict(zip(LENGTH, panel))})
            if params.source and not params.video_length:
                return ""  # nobody has counted its frames yet
            windows, base = windows_for(params, advice.trained_frames(params.model)), advice.base_of(params.model)
            taken = run_history.steps_taken(int(steps), own if is_img2img else None)
            size = run_history.size_of(windows, params, width=int(width), height=int(height), steps=taken, videos=int(videos))
        except (RequestError, CheckpointError, TypeError, ValueError):
            return ""  # Generate will say what is wrong
        return text(size, base, before_hires=own is True)

    def connect(controls: list[Any]) -> None:
        inputs = [*length, *controls]
        for control in inputs:
            control.change(expected, inputs, [shown], show_progress=False, queue=False)

    page.when_there("forecast", ["width", "height", "steps", "batch_count", own_name], connect)


def text(size: estimate.Size, base: str, before_hires: bool) -> str:
    """HTML; empty where nothing is known yet. Labels stand alone, so that they can be translated."""
    runs = run_history.runs(base)
    if size.pixels <= 0 or (seconds := estimate.seconds(runs, size)) is None:
        return ""
    parts = [f"<span>Expected time</span> {estimate.spoken(seconds)}"]
    if before_hires:
        parts.append("<span>and the hires pass</span>")
    memory, there_is = estimate.memory(runs, size), run_history.device_memory()
    if memory is not None and there_is is not None:
        parts.append(f"<span>Expected memory</span> {memory / GIGABYTE:.1f} GB")
        if memory > there_is:
            parts.append("<b>More than this GPU has. Take fewer frames or a smaller picture.</b>")
    return " · ".join(parts)
