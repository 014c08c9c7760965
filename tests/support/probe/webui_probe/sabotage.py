"""Faults put into the extension itself, to see that they are survived, or that a comparison would see them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from modules import images

from webui_probe.patching import Patches


class LateFault:
    """Lets something fail that comes after the last frame, once."""

    def arm(self, at: str) -> None:
        """`encode`: making the GIF; `gif`: writing it; `png`: writing the second frame."""
        gif = sys.modules["animatediff.video.gif"]
        fail_at = {
            "encode": (gif, "shared_palette", 1),
            "gif": (Path, "write_bytes", 1),
            "png": (images, "save_image_with_geninfo", 2),
        }
        owner, name, call = fail_at[at]
        original = getattr(owner, name)
        calls = 0

        def failing(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls < call:
                return original(*args, **kwargs)
            setattr(owner, name, original)
            raise OSError("probe: no space left")

        setattr(owner, name, failing)


class BrokenMethod:
    """Makes one part of the method wrong, until it is mended."""

    def __init__(self) -> None:
        self._patches = Patches()

    def set(self, how: str | None) -> None:
        """Breaks the method in one way, or with None mends it."""
        self._patches.undo()
        if how is not None:
            owner, name, wrapper = ways_to_break()[how]
            self._patches.wrap(owner, name, wrapper)


def ways_to_break() -> dict[str, tuple[Any, str, Callable[[Any], Any]]]:
    """What to replace, by what. The extension's modules are looked up here, since they load after the probe's."""
    network, frames = sys.modules["motion_module.network"], sys.modules["motion_module.row_layout"]
    return {
        "no positions": (network.TemporalAttention, "forward", without_positions),
        "frames permuted": (frames.RowLayout, "to_clips", in_another_order),
        "schedule of the checkpoint": (sys.modules["animatediff.job.animated_model"], "lent_schedule", lambda _: no_schedule),
        "norms per frame": (sys.modules["motion_module.attach"], "_norm_over_frames", lambda _: leave_norm),
    }


def without_positions(forward: Any) -> Any:
    def broken(attention: Any, *args: Any) -> torch.Tensor:
        positions = attention.positional_encoding
        attention.positional_encoding = torch.zeros_like(positions)
        try:
            return forward(attention, *args)
        finally:
            attention.positional_encoding = positions

    return broken


def in_another_order(to_clips: Any) -> Any:
    """Frames in reverse on the way in, and not on the way out."""
    return lambda layout, x: to_clips(layout, x).flip(1)


def no_schedule(*_args: Any) -> Any:
    return nullcontext()


def leave_norm(*_args: Any) -> Callable[[], None]:
    return lambda: None
