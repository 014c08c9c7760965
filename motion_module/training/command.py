"""`python -m motion_module train CONFIG.yaml`."""

from __future__ import annotations

import sys
from pathlib import Path

from ..attach import UnsuitableUNet
from ..files import CheckpointError
from ..videos import MissingPart
from .config import ConfigError, read_config
from .data import DataError
from .loop import Diverged, Training
from .state import NotSaved

FAULTS = (ConfigError, DataError, MissingPart, CheckpointError, UnsuitableUNet, Diverged, NotSaved)
"""What ends a training with a text for the user."""


def train(config: Path) -> int:
    """Trains as a file says; returns the exit status of the program."""
    try:
        Training(read_config(config)).run()
    except FAULTS as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Ended at once. What was saved last is kept.", file=sys.stderr)
        return 130
    return 0
