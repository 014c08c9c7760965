"""The folder of a day's videos, and names in it that no two jobs share."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from itertools import count
from pathlib import Path

from modules import images

from ..errors import RequestError


def of_today(outpath: str) -> Path:
    """`outpath`: the WebUI's folder for samples."""
    return Path(outpath) / "AnimateDiff" / date.today().isoformat()


def require_writable(outpath: str) -> None:
    """Raises RequestError unless files can be made in the folder of today's videos."""
    folder = of_today(outpath)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"The folder {folder} cannot be made: {error}. Choose another one in the settings.") from None
    if not os.access(folder, os.W_OK):
        raise RequestError(f"Nothing can be written to {folder}. Choose another folder in the settings.")


@contextmanager
def new_stem(folder: Path, *words: str) -> Iterator[Path]:
    """A path without suffix, `number-words`, whose number nobody else takes while this is open, from whatever process.

    A number is taken by making a file, which only one can. Raises OSError where that cannot be done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in count(images.get_next_sequence_number(str(folder), "")):
        claim = folder / f".{number:05}"
        try:
            claim.touch(exist_ok=False)
        except FileExistsError:
            continue
        try:
            if any(folder.glob(f"{number:05}-*")):  # by somebody who is done since we looked
                continue
            yield folder / "-".join(filter(None, (f"{number:05}", *(re.sub(r"[^\w.-]", "_", word) for word in words))))
            return
        finally:
            with suppress(OSError):
                claim.unlink(missing_ok=True)
