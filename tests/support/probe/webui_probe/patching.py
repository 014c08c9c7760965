"""Replaces attributes of classes and modules, and puts the very same objects back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Patches:
    """A set of replaced attributes."""

    def __init__(self) -> None:
        self._originals: list[tuple[Any, str, Any]] = []

    def wrap(self, owner: Any, name: str, wrapper: Callable[[Any], Any]) -> None:
        """Replaces a function that `owner`, a class or module, itself defines by `wrapper(function)`."""
        original = vars(owner)[name]
        self._originals.append((owner, name, original))
        setattr(owner, name, wrapper(original))

    def undo(self) -> None:
        """Restores every attribute, the last replaced first."""
        while self._originals:
            owner, name, original = self._originals.pop()
            setattr(owner, name, original)
