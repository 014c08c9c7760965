"""The command `python -m motion_module train CONFIG.yaml`."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from ..attach import UnsuitableUNet
from ..errors import MissingDependency
from ..weight_files import CheckpointError
from .config import ConfigError, read_config
from .data import DataError
from .folder import LOCK, PID, STOP, is_of_no_use
from .log import write_status
from .loop import Diverged, StopRequested, Training
from .state import NotSaved

FAULTS = (
    ConfigError,
    DataError,
    MissingDependency,
    CheckpointError,
    UnsuitableUNet,
    Diverged,
    NotSaved,
    OSError,
    SafetensorError,
)
"""The errors that end a training with a text for the user."""
OUT_OF_MEMORY = (
    "The GPU has too little memory for this training. Set gradient_checkpointing: true, batch: 1 with a larger accumulate, "
    "precision: fp16, or a smaller size."
)


class Busy(RuntimeError):
    """Another process trains in the same folder. The text is for the user."""


def train(file: Path) -> int:
    """Trains as described in a YAML file, and returns the exit status of the program."""
    try:
        config = read_config(file)
    except ConfigError as error:
        return _ended(str(error))
    try:
        with _alone(config.folder):
            Training(config).run()
    except StopRequested:
        print(f"The training was stopped by {config.folder / STOP} before its first step. Start it again to continue.")
        return 0
    except torch.cuda.OutOfMemoryError:
        return _ended(OUT_OF_MEMORY, config.folder)
    except FAULTS as error:
        return _ended(str(error), config.folder)
    except Busy as error:
        return _ended(str(error))
    except KeyboardInterrupt:
        return _ended(
            "Interrupted. The last saved state is kept. Start the training again to continue.", config.folder, status=130
        )
    return 0


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Locks the folder of a training while open, and writes the process id into it. Raises Busy if it is locked.

    Afterwards deletes the folder if it is new and has nothing of use. What was there before is kept.
    """
    if not _is_first():  # the first process of a launcher locks the folder for all
        yield
        return
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise Busy(f"A training is already running in {folder}. Stop it first, or choose another output.") from error
    try:
        (folder / PID).write_text(str(os.getpid()), encoding="utf-8")
        yield
    finally:
        lock.release()
        if is_new and folder.is_dir() and is_of_no_use(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _ended(text: str, folder: Path | None = None, status: int = 1) -> int:
    if folder is not None and folder.is_dir():
        write_status(folder, "Ended with an error", error=text)
    print(text, file=sys.stderr)
    return status


def _is_first() -> bool:
    """Returns whether this is the first process of a launcher, or the only one."""
    return os.environ.get("RANK", "0") == "0"
