"""The files in the folder of a training. The WebUI's page reads them too, where packages for training may be missing."""

from __future__ import annotations

from pathlib import Path

STATE, STATUS, LOSSES, CLIPS, DATA = "state.safetensors", "status.json", "losses.jsonl", "validation", "data.txt"
PID, LOCK = "pid", "lock"
"""The names of the file with the id of the training process, and of the one that it locks."""
STOP = "stop"
"""A file of this name makes the training save and end. Its content is the reason: "pause" or "stop"."""
CONFIG, OUTPUT = "config.yaml", "output.txt"
"""What the page writes: the options of the training, and what its process prints."""
OF_NO_USE = (STATUS, PID, LOCK, STOP, CONFIG, OUTPUT)


def is_of_no_use(folder: Path) -> bool:
    """Returns whether a folder has only what a training leaves that was refused before it did anything."""
    return all(not any(entry.iterdir()) if entry.is_dir() else entry.name in OF_NO_USE for entry in folder.iterdir())
