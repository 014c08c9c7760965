"""Prompt travel in the WebUI.

The WebUI encodes a prompt for every row, and a row is a frame: so each is given the prompt of its keyframe. What lies between
two keyframes is mixed in every step from the rows that are at them; so prompt editing, `AND` and emphasis go on acting.
"""

from __future__ import annotations

from typing import Any

import torch

from motion_module.prompts import Interpolation, Travel, between, read_travel

PASSES = (("prompts", "negative_prompts"), ("hr_prompts", "hr_negative_prompts"))
"""The attributes of `p` with the prompts of each row: those of the video, and those of its hires pass."""
Travels = dict[str, Travel]
"""By attribute."""


def follow(p: Any, frames: int, *, closed: bool) -> Travels:
    """Gives each row the prompt of its keyframe, where the one prompt of a video has keyframes. Raises TravelError.

    This comes after the WebUI has taken the LoRAs out of the prompt, wherever in it they stood.
    """
    travels = {}
    for name in (name for names in PASSES for name in names):
        texts = getattr(p, name, None) or []
        if len(set(texts)) == 1 and (travel := read_travel(texts[0], frames, closed=closed)):
            setattr(p, name, travel.texts())
            travels[name] = travel
    return travels


def mix(travels: Travels, params: Any, parts: int, how: Interpolation, *, hires: bool) -> None:
    """`on_cfg_denoiser`: what every frame is conditioned on in this step. `parts`: of each prompt, joined by AND.

    `params` has `text_cond`, `(frames · parts, tokens, width)`, and `text_uncond`, `(frames, tokens, width)`.
    """
    prompts, negatives = PASSES[hires]
    if prompts in travels:
        rows = params.text_cond  # all parts of the first frame, then of the next
        of_frames = rows.view(-1, parts, *rows.shape[1:])
        mixed = [between(of_frames[:, part], travels[prompts].sources(), how) for part in range(parts)]
        params.text_cond = torch.stack(mixed, dim=1).view_as(rows)
    if negatives in travels:
        params.text_uncond = between(params.text_uncond, travels[negatives].sources(), how)


def one_prompt_for_each_video(p: Any, frames: int) -> None:
    """Where a script drew another prompt for each row, such as one with wildcards, the first one counts for its video.

    Whoever gives a list of prompts wants one for each frame.
    """
    for name in ("prompt", "negative_prompt"):
        if isinstance(getattr(p, name), list):
            continue
        for rows in (getattr(p, f"all_{name}s", None), getattr(p, f"all_hr_{name}s", None)):
            if rows and len(rows) % frames == 0:
                rows[:] = [rows[index - index % frames] for index in range(len(rows))]


def of_one_length(conditions: Any) -> Any:
    """Negative prompts as the WebUI keeps them, a schedule for each row, as long as the longest: the last token is repeated.

    Of prompts it does so itself; of negative ones it takes for granted that they are of one length.
    """
    lengths = {len(entry.cond) for schedule in conditions for entry in schedule}
    if len(lengths) == 1:
        return conditions
    return [[_stretched(entry, max(lengths)) for entry in schedule] for schedule in conditions]


def _stretched(entry: Any, length: int) -> Any:
    cond = torch.cat([entry.cond, entry.cond[-1:].repeat(length - len(entry.cond), 1)])
    return type(entry)(entry.end_at_step, cond)
