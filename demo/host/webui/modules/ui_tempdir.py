"""Files that the page may show. Here, all in the folders that the host writes to."""

from __future__ import annotations

from typing import Any


def register_tmp_file(_page: Any, _file: str) -> None:
    """Needed for no file that this host has written."""


def check_tmp_file(_page: Any, _file: str) -> bool:
    """Whether a file has been registered."""
    return False
