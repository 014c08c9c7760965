"""The timeline under each prompt: how its keyframes are understood, or why they are not, while they are typed.

They are read by the code that a video's prompts are read by, whenever `javascript/animatediff_timeline.js` sees typing pause.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import gradio as gr
from modules import extra_networks, script_callbacks, shared

from motion_module.prompt_travel import TravelError, read_travel
from motion_module.weight_files import CheckpointError

from ..errors import RequestError
from ..job import advice
from ..request.plan import windows_for
from ..request.reading import read_mapping
from . import timeline
from .webui_controls import Page

PROMPTS, OF_HIRES = ("prompt", "neg_prompt"), ("hires_prompt", "hires_neg_prompt")
"""The WebUI's names for the boxes that have a timeline, a prompt and its negative one: of both tabs, and of txt2img alone."""
_ROWS = {f"{tab}_{name}_row": f"{tab}_{name}" for tab in ("txt2img", "img2img") for name in PROMPTS}
PLACES = _ROWS | {name: name for name in OF_HIRES}
"""What a timeline stands behind, and the box that it is of. Rows of the hires pass have no names."""
PANEL = ("enable", "model", "video_length", "batch_size", "overlap", "closed_loop", "video_source", "video_path")
"""The parameters that say how many frames there are, and whether they loop."""


def add_to_page(_component: Any, **facts: Any) -> None:
    """`on_after_component`: makes the places for timelines."""
    if (prompt := PLACES.get(facts.get("elem_id") or "")) is not None:
        gr.HTML(visible=False, elem_id=f"{prompt}-ad-timeline")


def follow_typing(page: Page, panel: list[gr.components.Component]) -> None:
    """Keeps the timelines of a page up to date with its prompts and with `panel`: the controls named in `PANEL`."""
    prompts = PROMPTS + (OF_HIRES if page.tab == "txt2img" else ())

    def connect(controls: list[Any]) -> None:
        inputs, shown = [*panel, *controls[: -len(prompts)]], controls[-len(prompts) :]
        read = gr.Button("", visible=False, elem_id=f"{page.tab}-ad-timeline-read")
        read.click(_timelines, inputs, shown, show_progress=False, queue=False)
        for control in inputs:
            control.change(None, [], [], _js=f"() => animateDiffTimeline.readSoon('{page.tab}')")

    page.when_there("timeline", ["steps", "styles", *prompts, *(f"{name}-ad-timeline" for name in prompts)], connect)


def _timelines(*values: Any) -> list[Any]:
    """Of prompts and negative prompts in turn."""
    panel, (steps, styles, *prompts) = values[: len(PANEL)], values[len(PANEL) :]
    signs = cycle((True, False))
    texts = [_text(panel, _as_generated(prompt, sign, steps, styles)) for prompt, sign in zip(prompts, signs)]
    return [gr.update(value=text, visible=bool(text)) for text in texts]


def _as_generated(prompt: str, is_positive: bool, steps: int, styles: list[str]) -> str:
    """A prompt with the chosen styles, and without comments and LoRAs: as it is when keyframes are looked for in it."""
    known = shared.prompt_styles
    styled = (known.apply_styles_to_prompt if is_positive else known.apply_negative_styles_to_prompt)(prompt, styles)
    counted = script_callbacks.BeforeTokenCounterParams(styled, steps, styles, is_positive=is_positive)
    script_callbacks.before_token_counter_callback(counted)  # the comments are removed by a listener to this
    return extra_networks.parse_prompt(counted.prompt)[0]


def _text(panel: Sequence[Any], prompt: str) -> str:
    """HTML; empty where there is nothing to say, or where Generate will say what is wrong with the rest of the panel."""
    try:
        params, _ = read_mapping(dict(zip(PANEL, panel)))
        if not params.enable or (params.source and not params.video_length):
            return ""  # nobody has counted its frames yet
        frames = windows_for(params, advice.trained_frames(params.model)).frames
        travel = read_travel(prompt, frames, closed=params.prompts_loop)
    except TravelError as error:
        return timeline.of_fault(error)
    except (RequestError, CheckpointError):
        return ""
    return timeline.of_travel(travel) if travel else ""
