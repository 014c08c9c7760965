"""Dynamic Prompts, which fills the rows of a batch with prompts: how many videos these are, and the seeds of each.

To it a frame is a picture. It gives each combination one row, whatever the number of frames, so one video would have them all.
"""

from __future__ import annotations

from itertools import cycle, islice
from typing import Any

from ..errors import AnimateDiffError
from .unsuitable_extensions import argument

TITLE = "dynamic prompts"
"""Its version follows."""
ENABLED, COMBINATORIAL, JINJA, NO_IMAGES = 0, 1, 13, 14
"""The numbers of its controls."""
PROMPTS = ("all_prompts", "all_negative_prompts", "all_hr_prompts", "all_hr_negative_prompts")


def make_videos(p: Any, frames: int) -> None:
    """`init`: gives each prompt a video of its own where Dynamic Prompts is on, and each frame of a video a seed of its own.

    Where a script gives a list of prompts for the frames, its hook fails and leaves them.
    """
    script = next((script for script in p.scripts.alwayson_scripts if script.title().lower().startswith(TITLE)), None)
    if script is None or isinstance(p.prompt, list) or not argument(script, p, ENABLED):
        return
    if argument(script, p, NO_IMAGES):
        raise AnimateDiffError(
            "Dynamic Prompts is set not to generate images, so there is nothing to animate. Switch off its “Don't generate "
            "images”, or switch AnimateDiff off."
        )
    combinatorial, jinja = (bool(argument(script, p, number)) for number in (COMBINATORIAL, JINJA))
    if len(p.all_prompts) < frames and (jinja or not combinatorial):
        # the message of its error stands in the place of all prompts
        why = p.all_prompts[0]
        raise AnimateDiffError(
            f"Dynamic Prompts cannot read the prompt: {why}. Correct its syntax, or switch Dynamic Prompts off."
        )
    rows = frames
    if (combinatorial or jinja) and not _left_alone(p, frames):
        rows = 1
        # it fills a template of Jinja once for each row, so it has given the prompts of all videos `frames` times
        p.n_iter = len(p.all_prompts) if combinatorial else len(p.all_prompts) // frames
        for name in PROMPTS:
            if texts := getattr(p, name, None):
                setattr(p, name, [text for text in islice(cycle(texts), p.n_iter) for _ in range(frames)])
    p.all_seeds = _of_frames(p.all_seeds, p.n_iter, rows, frames, step=0 if p.subseed_strength else 1)
    p.all_subseeds = _of_frames(p.all_subseeds, p.n_iter, rows, frames, step=1)


def _left_alone(p: Any, frames: int) -> bool:
    """Whether it has given no prompts: the WebUI goes on where its hook failed."""
    return len(p.all_prompts) == frames * p.n_iter and len(set(zip(p.all_prompts, p.all_negative_prompts))) == 1


def _of_frames(given: list[int], videos: int, rows: int, frames: int, step: int) -> list[int]:
    """Returns the seeds of all frames, from one for every `rows` of a video; videos are as far apart as the WebUI puts them."""
    firsts = [given[0] + (seed - given[0]) * frames // rows for seed in given[: videos * rows : rows]]
    return [first + frame * step for first in firsts for frame in range(frames)]
