"""Tells which kind of Stable Diffusion a checkpoint file is that a job will load later."""

from __future__ import annotations

from pathlib import Path

from motion_module.checkpoint_keys import kind_of_checkpoint
from motion_module.weight_files import CheckpointError, open_weights


def kind_of_file(path: str) -> str | None:
    """Returns the kind of a checkpoint file without reading its weights; None if its keys do not tell."""
    try:
        return kind_of_checkpoint(open_weights(Path(path)).entries)
    except CheckpointError:
        return None
