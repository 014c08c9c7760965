"""The timeline below each prompt and each schedule per frame: its keyframes, or what is wrong with them.

`javascript/animatediff_timeline.js` asks for it when typing pauses. The prompt is read by the same code as for a video.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import gradio as gr
from modules import extra_networks, script_callbacks, shared

from motion_module.added_words import apart
from motion_module.keyframe_lines import near_misses
from motion_module.prompt_travel import TravelError, read_travel
from motion_module.weight_files import CheckpointError

from ..errors import RequestError
from ..job.added_words import of_styles
from ..request.params import PANEL_FIELDS, Params, option_of
from ..request.plan import windows_for
from ..request.reading import read_mapping
from ..request.schedules import schedules_of
from . import timeline
from .chosen_module import trained_frames
from .controls import Controls, timeline_of
from .events import in_sentences
from .gradio_versions import javascript
from .webui_controls import Page

PROMPTS, OF_HIRES = ("prompt", "neg_prompt"), ("hires_prompt", "hires_neg_prompt")
"""The WebUI's ids of prompts and negative prompts: those of both tabs, and those of txt2img alone."""
_ROWS = {f"{tab}_{name}_row": f"{tab}_{name}" for tab in ("txt2img", "img2img") for name in PROMPTS}
PLACES = _ROWS | {name: name for name in OF_HIRES}
"""The element that a timeline follows, and the prompt that it is for. Rows of the hires pass have no ids."""
SCHEDULES = tuple(field.name for field in PANEL_FIELDS if option_of(field).is_schedule)
PANEL = ("enable", "model", "video_length", "batch_size", "overlap", "closed_loop", "video_source", "video_path")
"""The parameters that decide how many frames there are, and whether they loop."""


def add_to_page(_component: Any, **facts: Any) -> None:
    """`on_after_component`: adds empty elements for the timelines."""
    if (prompt := PLACES.get(facts.get("elem_id") or "")) is not None:
        gr.HTML(visible=False, elem_id=f"{prompt}-ad-timeline")


def follow_typing(page: Page, panel: Controls) -> None:
    """Keeps the timelines of a page up to date with its prompts and with the panel."""
    prompts = PROMPTS + (OF_HIRES if page.tab == "txt2img" else ())

    def connect(controls: list[Any]) -> None:
        webuis, texts, timelines = controls[:2], controls[2 : -len(prompts)], controls[-len(prompts) :]
        deciding = [*(panel[name] for name in (*PANEL, *SCHEDULES)), *webuis]
        shown = [*(panel[timeline_of(name)] for name in SCHEDULES), *timelines]
        read = gr.Button("", visible=False, elem_id=f"{page.tab}-ad-timeline-read")
        read.click(in_sentences(_timelines), [*deciding, *texts], shown, show_progress=False, queue=False)
        for control in deciding:  # the script looks at the prompts itself
            control.change(None, [], [], **javascript(f"() => animateDiffTimeline.readSoon('{page.tab}')"))

    page.when_made("timeline", ["steps", "styles", *prompts, *(f"{name}-ad-timeline" for name in prompts)], connect)


def _timelines(*values: Any) -> list[Any]:
    """Returns the timelines of the schedules, and then of prompts and negative prompts in turn."""
    count = len(PANEL) + len(SCHEDULES)
    panel, schedules, (steps, styles, *prompts) = values[: len(PANEL)], values[len(PANEL) : count], values[count:]
    signs = cycle((True, False))
    texts = [_of_schedule(panel, name, schedule) for name, schedule in zip(SCHEDULES, schedules)]
    texts += [_text(panel, _as_generated(prompt, sign, steps, styles)) for prompt, sign in zip(prompts, signs)]
    return [gr.update(value=text, visible=bool(text)) for text in texts]


def _of_schedule(panel: Sequence[Any], name: str, text: str) -> str:
    """Returns HTML; empty without a schedule, or where Generate will report what is wrong with the panel."""
    if not text or (known := _known(panel, {name: text})) is None:
        return ""
    try:
        schedules = schedules_of(known[0], name, known[1])
    except TravelError as error:
        return timeline.fault(error)
    except RequestError as error:
        return timeline.notes([str(error)])
    return "".join(timeline.strip(schedule.travel) for schedule in schedules.values())


def _as_generated(prompt: str, is_positive: bool, steps: int, styles: list[str]) -> str:
    """Returns the text in which keyframes are read: a prompt with the chosen styles, and without comments and LoRAs."""
    known = shared.prompt_styles
    styled = (known.apply_styles_to_prompt if is_positive else known.apply_negative_styles_to_prompt)(prompt, styles)
    counted = script_callbacks.BeforeTokenCounterParams(styled, steps, styles, is_positive=is_positive)
    script_callbacks.before_token_counter_callback(counted)  # a listener to this removes the comments
    lined = apart(counted.prompt, prompt, of_styles(known, styles, positive=is_positive))
    return extra_networks.parse_prompts([lined])[0][0]


def _text(panel: Sequence[Any], prompt: str) -> str:
    """Returns HTML; empty without anything like a keyframe, or where Generate will report what is wrong with the panel."""
    if (known := _known(panel, {})) is None:
        return ""
    params, frames = known
    try:
        travel = read_travel(prompt, frames, closed=params.prompts_loop)
    except TravelError as error:
        return timeline.fault(error)
    return (timeline.strip(travel) if travel else "") + timeline.notes(near_misses(prompt, frames))


def _known(panel: Sequence[Any], others: Mapping[str, str]) -> tuple[Params, int] | None:
    """Returns what the panel says, with other values of it, and the number of frames; None where that is unknown or wrong."""
    try:
        params, _ = read_mapping({**dict(zip(PANEL, panel)), **others})
        if not params.enable or (params.source and not params.video_length):
            return None  # the number of frames of the source is unknown
        return params, windows_for(params, trained_frames(params.model)).frames
    except (RequestError, CheckpointError):
        return None
