"""Replaces attributes of classes and modules, and restores the same objects.

It does not use `motion_module.patching`: the probe also has to work in a WebUI without this extension.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Patches:
    """A set of replaced attributes."""

    def __init__(self) -> None:
        self._originals: list[tuple[Any, str, Any]] = []

    def wrap(self, owner: Any, name: str, wrapper: Callable[[Any], Any]) -> None:
        """Replaces a function of `owner`, the class or module that defines it, by `wrapper(function)`."""
        original = vars(owner)[name]
        self._originals.append((owner, name, original))
        setattr(owner, name, wrapper(original))

    def undo(self) -> None:
        """Restores all attributes, in reverse order."""
        while self._originals:
            owner, name, original = self._originals.pop()
            setattr(owner, name, original)
