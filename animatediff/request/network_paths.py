"""Paths that lead to another computer, as in `\\\\host\\share`: looking at one makes Windows log in there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path


def leads_elsewhere(path: str, folders: Iterable[Path]) -> bool:
    """Returns whether a path names a computer on which none of these folders lies. It is not looked at, nor resolved."""
    return _host(path) not in {"", *(_host(str(folder)) for folder in folders)} - {"?", "."}


def _host(path: str) -> str:
    """Returns the computer that a path names: `?` and `.` before names of devices, nothing for a path on this one."""
    names_host = re.match(r"\s*[\\/]{2,}([^\\/]*)", path)
    return names_host[1].casefold() if names_host else ""
