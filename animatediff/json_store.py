"""What is remembered from one start of the WebUI to the next: JSON files in `animatediff/` of its data folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

from modules.paths_internal import data_path

_WRITING = Lock()
"""The page's requests come in threads of their own."""


def read(name: str) -> Any:
    """What was last written under this name; None where that is nothing. Raises OSError or ValueError if it cannot be read."""
    try:
        return json.loads(_file(name).read_text(encoding="utf-8-sig"))  # an editor may have put a mark in front
    except FileNotFoundError:
        return None


def update(name: str, change: Callable[[Any], Any]) -> None:
    """Writes what `change` makes of what is there.

    Raises OSError or ValueError where that cannot be done; then what was there before still is.
    """
    file = _file(name)
    with _WRITING:
        content = change(read(name))
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}.part")  # of another process, since of this one there is one at a time
        try:
            part.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
            part.replace(file)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def folder() -> Path:
    return Path(data_path) / "animatediff"


def _file(name: str) -> Path:
    return folder() / f"{name}.json"
