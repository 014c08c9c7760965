"""Plants faults in the extension itself, to test that a job survives them, or that a comparison detects them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from modules import images

from webui_probe.patching import Patches


class LateFault:
    """Makes something outside the sampling fail once."""

    def arm(self, at: str) -> None:
        """Arms a fault. `at`: "start" fails to make `p` a job, "encode" to encode the GIF, "gif" to write it, "png" to write
        the second frame.
        """
        gif = sys.modules["animatediff.video.gif"]
        fail_at = {
            "start": (sys.modules["animatediff.request.infotext"], "write", 1),
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
    """Makes one part of the method wrong until it is repaired."""

    def __init__(self) -> None:
        self._patches = Patches()

    def set(self, how: str | None) -> None:
        """Breaks the method in one way; None repairs it."""
        self._patches.undo()
        if how is not None:
            owner, name, wrapper = ways_to_break()[how]
            self._patches.wrap(owner, name, wrapper)


def ways_to_break() -> dict[str, tuple[Any, str, Callable[[Any], Any]]]:
    """Returns what to replace, and by what. It looks up the extension's modules late, since they load after the probe's."""
    network, frames = sys.modules["motion_module.network"], sys.modules["motion_module.row_layout"]
    return {
        "no positions": (network.TemporalAttention, "forward", without_positions),
        "frames permuted": (frames.RowLayout, "to_clips", in_another_order),
        "schedule of the checkpoint": (
            sys.modules["animatediff.job.animated_model"],
            "swapped_noise_schedule",
            lambda _: no_change,
        ),
        "norms per frame": (sys.modules["motion_module.attach"], "_norm_over_frames", lambda _: no_change),
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
    """Reverses the frames on the way in, but not on the way out."""
    return lambda layout, x: to_clips(layout, x).flip(1)


def no_change(*_args: Any) -> AbstractContextManager[None]:
    """Replaces a context manager that changes something by one that changes nothing."""
    return nullcontext()
