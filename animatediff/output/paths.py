"""The folder of today's videos, and file names in it that no two jobs share."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from itertools import count
from pathlib import Path

from modules import images

from ..errors import RequestError, reason


def todays_folder(outpath: str) -> Path:
    """Returns the folder for videos made today, below `outpath`, the WebUI's folder for samples."""
    return Path(outpath) / "AnimateDiff" / date.today().isoformat()


def require_writable(outpath: str) -> None:
    """Raises RequestError if no file can be made in the folder of today's videos."""
    folder = todays_folder(outpath)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(
            f"The folder {folder} cannot be made: {reason(error)}. Choose another folder in the settings."
        ) from None
    if not os.access(folder, os.W_OK):
        raise RequestError(f"Nothing can be written to {folder}. Choose another folder in the settings.")


@contextmanager
def new_stem(folder: Path, *words: str) -> Iterator[Path]:
    """Yields a path without suffix, `number-words`. While it is open, no other job in any process gets the same number.

    A lock file reserves the number, since only one process can create it. Raises OSError if it cannot be created.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in count(images.get_next_sequence_number(str(folder), "")):
        lock_file = folder / f".{number:05}"
        try:
            lock_file.touch(exist_ok=False)
        except FileExistsError:
            continue
        try:
            if any(folder.glob(f"{number:05}-*")):  # another job took and released this number since we looked
                continue
            yield folder / "-".join(filter(None, (f"{number:05}", *(re.sub(r"[^\w.-]", "_", word) for word in words))))
            return
        finally:
            with suppress(OSError):
                lock_file.unlink(missing_ok=True)
