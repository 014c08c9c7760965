"""Interrupt and Skip: whether the user has pressed them, and how a job ends early."""

from __future__ import annotations

from modules import shared


def is_interrupted() -> bool:
    """Whether the user has pressed Interrupt or Skip, so that the current video ends."""
    return bool(shared.state.interrupted or shared.state.skipped)


def is_stopping() -> bool:
    """Whether nothing new should begin; a press that lets the current image be finished counts too."""
    return is_interrupted() or bool(shared.state.stopping_generation)


def stop_if_interrupted() -> None:
    """Ends sampling as the WebUI does between two steps. A step of a long clip has many UNet calls, for its windows."""
    from modules import sd_samplers_common  # here, since reading a request needs no samplers

    if is_interrupted():
        raise sd_samplers_common.InterruptedException
