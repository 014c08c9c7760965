"""Odds and ends."""

from __future__ import annotations


def open_folder(path: str) -> None:
    """The page has no button for it."""
    raise NotImplementedError(path)
