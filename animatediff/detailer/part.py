"""Marks a generation that makes a part of a finished clip again, within the generation of that clip."""

from __future__ import annotations

from typing import Any

NAME = "_animatediff_part"


def mark(p: Any, text: str) -> None:
    """Marks a generation. `text`: which part it makes, for the user."""
    setattr(p, NAME, text)


def part_of(p: Any) -> str:
    """Returns which part a generation makes; empty for a whole clip."""
    text: str = getattr(p, NAME, "")
    return text
