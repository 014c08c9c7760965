"""What making the video will take, said in the panel before Generate is pressed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from motion_module.files import CheckpointError

from . import estimate, history, library
from .params import RequestError

GIGABYTE = 1e9


class Forecast:
    """Joins controls of the WebUI, which come in an order that users may change, with what is said in our panel."""

    def __init__(self, tab: str) -> None:
        own = {"txt2img": "txt2img_hr-checkbox", "img2img": "img2img_denoising_strength"}
        self._wanted = [*(f"{tab}_{name}" for name in ("width", "height", "steps", "batch_count")), own[tab]]
        self._found: dict[str, Any] = {}
        self._panel: tuple[Sequence[Any], gr.HTML] | None = None
        self._is_img2img = tab == "img2img"

    def see(self, component: Any, elem_id: str | None) -> None:
        """A control of the WebUI has been made."""
        if elem_id in self._wanted and elem_id not in self._found:
            self._found[elem_id] = component
            self._connect_when_complete()

    def put_in(self, panel: Sequence[Any], shown: gr.HTML) -> None:
        """Our panel has been made. `panel`: motion module and number of frames."""
        if self._panel is None:  # it is made again, for the API alone
            self._panel = panel, shown
            self._connect_when_complete()

    def _connect_when_complete(self) -> None:
        if self._panel is None or len(self._found) < len(self._wanted):
            return
        panel, shown = self._panel
        inputs = [*panel, *(self._found[elem_id] for elem_id in self._wanted)]
        for control in inputs:
            control.change(self._text, inputs, [shown], show_progress=False, queue=False)

    def _text(self, model: str, frames: float, width: float, height: float, steps: float, videos: float, own: Any) -> str:
        """`own`: the strength of img2img, or whether txt2img is followed by hires fix."""
        try:
            count = int(frames or library.automatic_frames(library.find(model or "")))
            steps = history.steps_taken(int(steps), own if self._is_img2img else None)
            size = estimate.Size(count, int(width), int(height), steps, int(videos))
        except (RequestError, CheckpointError, TypeError, ValueError):
            return ""  # Generate will say what is wrong
        return text(size, before_hires=own is True)


def text(size: estimate.Size, before_hires: bool) -> str:
    """HTML; empty where nothing is known yet. Labels stand alone, so that they can be translated."""
    runs = history.runs()
    if size.pixels <= 0 or (seconds := estimate.seconds(runs, size)) is None:
        return ""
    parts = [f"<span>Expected time</span> {estimate.spoken(seconds)}"]
    if before_hires:
        parts.append("<span>and the hires pass</span>")
    memory, there_is = estimate.memory(runs, size), history.device_memory()
    if memory is not None and there_is is not None:
        parts.append(f"<span>Expected memory</span> {memory / GIGABYTE:.1f} GB")
        if memory > there_is:
            parts.append("<b>More than this GPU has. Take fewer frames or a smaller picture.</b>")
    return " · ".join(parts)
