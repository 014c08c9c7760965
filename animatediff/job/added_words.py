"""Words that styles, scripts and extensions add to a prompt with keyframes.

They stand on the lines of keyframes, so they would be for some frames, or make a keyframe a line like any other. Here they get
lines of their own, which are for all frames: in `init` those that came before it, so that an infotext gives the same video
again, and then those that were added to the rows of one video.
"""

from __future__ import annotations

from typing import Any

from motion_module.added_words import apart

from .prompt_travel import PASSES

_NAMES = [name for names in PASSES for name in names]


def as_written(p: Any) -> dict[str, str]:
    """`before_process`: returns the prompts before anyone adds to them, by the names in `PASSES`; not lists of prompts."""
    prompts = [p.prompt, p.negative_prompt]
    prompts += [getattr(p, f"hr_{name}", None) or getattr(p, name) for name in ("prompt", "negative_prompt")]
    return {name: prompt for name, prompt in zip(_NAMES, prompts) if isinstance(prompt, str)}


def set_apart(p: Any, written: dict[str, str], known_styles: Any) -> None:
    """`init`: puts what was added to the prompts on lines of their own. `known_styles`: the WebUI's."""
    for name, prompt in written.items():
        around = of_styles(known_styles, getattr(p, "styles", None) or [], positive="negative" not in name)
        rows = getattr(p, f"all_{name}", None) or []
        lined = {row: apart(row, prompt, around) for row in set(rows)}
        rows[:] = [lined[row] for row in rows]


def of_styles(known_styles: Any, names: list[str], *, positive: bool) -> list[tuple[str, str]]:
    """Returns what each style puts before and after a prompt, in the order in which the WebUI applies them."""
    if not names:
        return []
    apply = known_styles.apply_styles_to_prompt if positive else known_styles.apply_negative_styles_to_prompt
    place = "\0"
    around = [apply(place, [name]).partition(place) for name in names]
    return [(before, after) for before, _, after in around]


def set_apart_in_rows(p: Any) -> None:
    """Before the WebUI parses the prompts of one video: does the same for what was added to these."""
    for name in PASSES[0]:
        rows, begin = getattr(p, name), p.iteration * p.batch_size
        pairs = list(zip(rows, getattr(p, f"all_{name}")[begin:]))
        lined = {pair: apart(*pair) for pair in set(pairs)}
        rows[: len(pairs)] = [lined[pair] for pair in pairs]
