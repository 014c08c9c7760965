"""What the panel knows about the motion module that is chosen in it."""

from __future__ import annotations

from motion_module.checkpoint import Description
from motion_module.families import Family

from ..request import module_files
from ..request.choices import AS_FOUND
from ..request.plan import chosen_family


def described(model: str | None, family: str = AS_FOUND) -> tuple[Description, Family]:
    """Returns what a motion module file is, and the family that it is used as.

    Raises RequestError where no module is chosen or it cannot be of that family, CheckpointError where it cannot be read.
    """
    description = module_files.what_it_is(module_files.find(model or ""))
    return description, chosen_family(family, description)


def trained_frames(model: str | None) -> int:
    """Returns how many frames a motion module was trained on. Raises RequestError or CheckpointError."""
    return module_files.trained_frames(*described(model))


def base_of(model: str | None) -> str:
    """Returns the kind of checkpoint that a motion module is made for. Raises RequestError or CheckpointError."""
    return described(model)[1].base
