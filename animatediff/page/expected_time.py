"""The time and memory that the next video will take, as the panel shows them."""

from __future__ import annotations

from typing import Any

import gradio as gr

from motion_module.weight_files import CheckpointError

from ..errors import RequestError
from ..job import estimate, run_history
from ..request.plan import windows_for
from ..request.reading import read_mapping
from .chosen_module import base_of, trained_frames
from .events import in_sentences
from .webui_controls import Page

GIGABYTE = 1e9
LENGTH = (
    "model", "video_length", "batch_size", "overlap", "stride", "closed_loop", "context_mode", "video_source", "video_path",
    "speed", "speed_every",
)  # fmt: skip
"""The parameters that decide what goes through the UNet."""


def add_to_panel(page: Page, length: list[gr.components.Component], shown: gr.HTML) -> None:
    """Keeps `shown` up to date with the WebUI's own controls and with `length`: the panel's controls named in `LENGTH`."""
    is_img2img = page.tab == "img2img"
    own_name = "denoising_strength" if is_img2img else "hr-checkbox"

    def expected(*values: Any) -> str:
        """`own`: the denoising strength of img2img, or whether hires fix is on in txt2img."""
        *panel, width, height, steps, videos, own = values
        try:
            params, _ = read_mapping({"enable": True, **dict(zip(LENGTH, panel))})
            if params.source and not params.video_length:
                return ""  # the number of frames of the source is unknown
            windows, base = windows_for(params, trained_frames(params.model)), base_of(params.model)
            taken = run_history.steps_taken(int(steps), own if is_img2img else None)
            size = run_history.size_of(windows, params, width=int(width), height=int(height), steps=taken, videos=int(videos))
        except (RequestError, CheckpointError, TypeError, ValueError):
            return ""  # Generate will report what is wrong
        return text(size, base, before_hires=own is True)

    def connect(controls: list[Any]) -> None:
        inputs = [*length, *controls]
        for control in inputs:
            control.change(in_sentences(expected), inputs, [shown], show_progress=False, queue=False)

    page.when_made("forecast", ["width", "height", "steps", "batch_count", own_name], connect)


def text(size: estimate.Size, base: str, before_hires: bool) -> str:
    """Returns HTML; empty before the first video. Labels are elements of their own: the WebUI translates whole texts."""
    runs = run_history.runs(base)
    if size.pixels <= 0 or (seconds := estimate.seconds(runs, size)) is None:
        return ""
    parts = [f"<span>Expected time</span> {estimate.spoken(seconds)}"]
    if before_hires:
        parts.append("<span>plus the hires pass</span>")
    memory, there_is = estimate.memory(runs, size), run_history.device_memory()
    if memory is not None and there_is is not None:
        parts.append(f"<span>Expected memory</span> {memory / GIGABYTE:.1f} GB")
        if memory > there_is:
            parts.append("<b>This is more than the GPU has. Lower the number of frames or the size.</b>")
    return " · ".join(parts)
