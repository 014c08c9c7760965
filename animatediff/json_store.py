"""JSON files in the folder `animatediff` of the WebUI's data folder, which outlive a restart."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

from modules.paths_internal import data_path

_WRITING = Lock()
"""Gradio runs each of the page's requests in a thread of its own."""


def read(name: str) -> Any:
    """Returns what was last written under this name; None if nothing was. Raises OSError or ValueError if it cannot be read."""
    try:
        return json.loads(_file(name).read_text(encoding="utf-8-sig"))  # an editor may have added a byte order mark
    except FileNotFoundError:
        return None


def update(name: str, change: Callable[[Any], Any]) -> None:
    """Replaces what is stored under this name by what `change` returns for it; `change` gets None if nothing is stored.

    Raises OSError or ValueError if that fails; the file is then as before.
    """
    file = _file(name)
    with _WRITING:
        content = change(read(name))
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}.part")  # the lock holds within this process, not against another one
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
