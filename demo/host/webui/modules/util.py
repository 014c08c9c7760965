"""Stands in for `modules.util`, of which we only import `open_folder`."""

from __future__ import annotations


def open_folder(path: str) -> None:
    """Never called: this host's page has no button for it."""
    raise NotImplementedError(path)
