"""Plants faults in the extension itself, to test that a job survives them, or that a comparison detects them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from modules import images, shared

from webui_probe.patching import Patches


class LateFault:
    """Makes something outside the sampling fail once."""

    def arm(self, at: str) -> None:
        """Arms a fault. `at`: "start" fails to make `p` a job, "encode" to encode the GIF, "gif" to write it, "png" to write
        the second frame, "decode" to decode latents, and so on: the first entry of each row.
        """
        ours = sys.modules.__getitem__
        job, model = ours("animatediff.job.job"), shared.sd_model
        # reForge gives each model a function of its own
        decodes = model if "decode_first_stage" in vars(model) else type(model)
        fail_at = {
            "start": (ours("animatediff.request.infotext"), "write", 1),
            "encode": (ours("animatediff.video.gif"), "shared_palette", 1),
            "gif": (Path, "write_bytes", 1),
            "png": (images, "save_image_with_geninfo", 2),
            "decode": (decodes, "decode_first_stage", 1),
            "init": (job.Job, "_choose_noise", 1),
            "parse": (job.prompt_travel, "follow", 1),
            "enter": (ours("animatediff.job.animated_model"), "attached", 1),
            "pass": (owner_of("options_for_parts"), "options_for_parts", 1),
            "step": (job.prompt_travel, "mix", 1),
            "layer": (ours("motion_module.network").TemporalTransformer, "residual", 1),
            "deliver": (ours("animatediff.output.results").Results, "_pictures", 1),
            "models": (ours("animatediff.request.module_files"), "names", 1),
        }
        owner, name, call = fail_at[at]
        original = getattr(owner, name)
        calls = 0
        as_if_ours = at not in ("encode", "gif", "png", "decode")

        def failing(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls < call:
                return original(*args, **kwargs)
            setattr(owner, name, original)
            raise (TypeError("probe: raw") if as_if_ours else OSError("probe: no space left"))

        if as_if_ours:  # the code that raises is then taken for that of the extension
            failing.__code__ = failing.__code__.replace(co_filename=job.__file__)
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
        "schedule of the checkpoint": (owner_of("noise_schedule"), "noise_schedule", lambda _: no_change),
        "norms per frame": (sys.modules["motion_module.attach"], "_norm_over_frames", lambda _: no_change),
        "poses reversed": (sys.modules["motion_module.camera_poses"].Trajectory, "rays", in_reverse),
        "pose encoder off": (sys.modules["motion_module.camera_ctrl"].CameraModule, "encode", of_nothing),
    }


def owner_of(method: str) -> Any:
    """Returns the class that has a method of what knows how this WebUI holds its checkpoint."""
    kinds = type(sys.modules["animatediff.host"].of(shared.sd_model)).mro()
    return next(kind for kind in kinds if method in vars(kind))


def without_positions(forward: Any) -> Any:
    def broken(attention: Any, *args: Any) -> torch.Tensor:
        positions = attention.positional_encoding
        attention.positional_encoding = torch.zeros_like(positions)
        try:
            return forward(attention, *args)
        finally:
            attention.positional_encoding = positions

    return broken


def in_reverse(rays: Any) -> Any:
    """Gives each frame the rays of the one as far from the other end."""
    return lambda trajectory, height, width, frames: rays(trajectory, height, width, trajectory.frames - 1 - frames)


def of_nothing(encode: Any) -> Any:
    """Makes all features zero."""
    return lambda module, *args: [torch.zeros_like(level) for level in encode(module, *args)]


def in_another_order(to_clips: Any) -> Any:
    """Reverses the frames on the way in, but not on the way out."""
    return lambda layout, x: to_clips(layout, x).flip(1)


def no_change(*_args: Any) -> AbstractContextManager[None]:
    """Replaces a context manager that changes something by one that changes nothing."""
    return nullcontext()
