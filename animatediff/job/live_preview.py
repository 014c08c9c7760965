"""The WebUI's live preview of a clip: a few of its frames as an animation, instead of a grid of all frames."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from modules import sd_samplers, sd_samplers_common, shared
from PIL import Image

from motion_module.patching import patched

from ..output.animated_image import Preview

MOST_FRAMES = 8
LONGEST = 1000
"""Milliseconds that a frame of the preview is shown at most: nobody waits longer, and a PNG cannot say more than 65,535."""


@contextmanager
def moving_preview(fps: float) -> Iterator[None]:
    """While open, the live preview is an animation.

    If the WebUI is set to show one image of the batch only, it shows one frame, as it would without us.
    """

    def preview(latents: Any, approximation: int | None = None) -> Image.Image:
        stride = max(2, -(-len(latents) // MOST_FRAMES))  # at most half of what the grid would decode
        frames = [sd_samplers_common.single_sample_to_image(frame, approximation) for frame in latents[::stride]]
        return Preview.of(frames, min(round(1000 * stride / fps), LONGEST))

    with patched(sd_samplers, "samples_to_image_grid", preview):
        try:
            yield
            if shared.opts.live_previews_enable and shared.opts.show_progress_every_n_steps == -1:
                shared.state.do_set_current_image()  # the setting for one preview at the end of each batch
        finally:
            shared.state.current_latent = None  # a later preview would decode the whole clip


def tell_step(guidance: Any, number: int = 0, rounds: int = 1, part: str = "") -> None:
    """Shows the step beside the progress bar. `part`: which part of a clip is detailed."""
    doing = f"detailing {part}, " if part else ""
    shared.state.textinfo = f"AnimateDiff: {doing}{step(guidance, number, rounds)}"


def step(guidance: Any, number: int = 0, rounds: int = 1) -> str:
    """Returns words for the current step, and for the round if there are several.

    It counts the calls of the sampler's `guidance`: the WebUI's own counter reports the first step twice.
    """
    steps, calls = shared.state.sampling_steps, 2 if guidance.sampler.config.options.get("second_order") else 1
    text = f"step {min(guidance.step // calls + 1, steps)} of {steps}"
    return text if rounds == 1 else f"{text}, round {number + 1} of {rounds}"
