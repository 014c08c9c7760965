"""Prompt travel in the WebUI.

The WebUI encodes one prompt for every row, and a row is a frame: so each frame gets the prompt of its keyframe. In every step,
frames between two keyframes get a mixture of the rows at these keyframes. So prompt editing, `AND` and emphasis keep working.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from motion_module.keyframe_lines import near_misses, read_lines
from motion_module.prompt_travel import Interpolation, Travel, between, read_travel

from ..controlnet import marks

PASSES = (("prompts", "negative_prompts"), ("hr_prompts", "hr_negative_prompts"))
"""The attributes of `p` with the prompts of each row, for the first pass and the hires pass."""
Travels = dict[str, Travel]
"""The travel of each of these attributes that has keyframes."""


def follow(p: Any, frames: int, *, closed: bool) -> tuple[Travels, list[str]]:
    """Gives each row the prompt of its keyframe, if the prompt of the video has keyframes. Raises TravelError.

    By then the WebUI has taken the LoRAs out of the prompt, wherever they stood in it. Also returns warnings about what looks
    like a keyframe and is not read as one.
    """
    travels: Travels = {}
    warnings: list[str] = []
    for name in (name for names in PASSES for name in names):
        texts = getattr(p, name, None) or []
        if len(set(texts)) != 1:
            warnings += _left_alone(texts, frames)
            continue
        warnings += near_misses(texts[0], frames)
        if travel := read_travel(texts[0], frames, closed=closed):
            setattr(p, name, travel.texts())
            travels[name] = travel
    return travels, [f"AnimateDiff: {text}" for text in warnings]


def _left_alone(texts: list[str], frames: int) -> list[str]:
    """Returns a warning if prompts that a script has given for each frame have keyframes."""
    if not any(line.positions for text in set(texts) for line in read_lines(text, frames)):
        return []
    return ["A script gives each frame a prompt of its own, so keyframes are read as words. Switch that script off."]


def mix(travels: Travels, params: Any, parts: int, how: Interpolation, *, hires: bool) -> None:
    """Mixes the conditions of frames between keyframes for one step. `parts`: the number of parts joined by AND in each prompt.

    `params` has `text_cond`, `(frames · parts, tokens, width)`, and `text_uncond`, `(frames, tokens, width)`; for SDXL,
    dictionaries of these and of vectors `(…, width)`. Forge has no `text_uncond` at a CFG scale of 1, which needs none.
    """
    prompts, negatives = PASSES[hires]
    if prompts in travels:
        params.text_cond = _mixed(params.text_cond, travels[prompts], parts, how)
    if negatives in travels and params.text_uncond is not None:
        params.text_uncond = _mixed(params.text_uncond, travels[negatives], 1, how)


def _mixed(conditions: Any, travel: Travel, parts: int, how: Interpolation) -> Any:
    if isinstance(conditions, dict):  # a class of the WebUI's
        return type(conditions)({name: _mixed(rows, travel, parts, how) for name, rows in conditions.items()})
    of_frames = conditions.unflatten(0, (-1, parts))  # all parts of the first frame, then of the next
    mixed = [_between(of_frames[:, part], travel, how) for part in range(parts)]
    return torch.stack(mixed, dim=1).view_as(conditions)


def _between(rows: Tensor, travel: Travel, how: Interpolation) -> Tensor:
    """Mixes one part. The sizes in SDXL's vector, after the text's values, stay: an arc would stretch them."""
    if rows.ndim > 2:
        marked = marks.count(rows)  # beside numbers so large, an arc between two prompts would be a straight line
        return torch.cat([rows[:, :marked], between(rows[:, marked:], travel.sources(), how)], dim=1)
    of_text = (rows != rows[:1]).any(dim=0)
    mixed = rows.clone()
    mixed[:, of_text] = between(rows[:, of_text], travel.sources(), how)
    return mixed


def one_prompt_for_each_video(p: Any, frames: int) -> None:
    """Gives all frames of a video the prompt of its first one, if a script such as wildcards drew another for each row.

    A script that sets a list of prompts wants one for each frame, so such a list stays.
    """
    for name in ("prompt", "negative_prompt"):
        if isinstance(getattr(p, name), list):
            continue
        for rows in (getattr(p, f"all_{name}s", None), getattr(p, f"all_hr_{name}s", None)):
            if rows and len(rows) % frames == 0:
                rows[:] = [rows[index - index % frames] for index in range(len(rows))]


def of_one_length(conditions: Any) -> Any:
    """Pads negative prompts to the length of the longest by repeating their last token; each row has a schedule of them.

    The WebUI does this for prompts, but assumes that negative prompts are equally long.
    """
    lengths = {len(_tokens(entry.cond)) for schedule in conditions for entry in schedule}
    if len(lengths) == 1:
        return conditions
    return [[_stretched(entry, max(lengths)) for entry in schedule] for schedule in conditions]


def _stretched(entry: Any, length: int) -> Any:
    tokens = _tokens(entry.cond)
    tokens = torch.cat([tokens, tokens[-1:].repeat(length - len(tokens), 1)])
    return type(entry)(entry.end_at_step, {**entry.cond, "crossattn": tokens} if isinstance(entry.cond, dict) else tokens)


def _tokens(condition: Any) -> Tensor:
    """Returns the token embeddings of one prompt, `(tokens, width)`."""
    return condition["crossattn"] if isinstance(condition, dict) else condition
