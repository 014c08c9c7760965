"""ControlNet's marks: a token before those of each prompt, which tells prompts and negative prompts apart."""

from __future__ import annotations

from torch import Tensor

MARK = 1024.0
"""The absolute value of all numbers in the token: positive for a prompt, negative for a negative prompt."""


def count(conditions: Tensor) -> int:
    """Returns how many marks conditions begin with, `(rows, tokens, width)`: one or none."""
    return int(bool((conditions[:, 0].abs() == MARK).all()))


def removed(conditions: Tensor) -> Tensor:
    """Returns conditions without marks."""
    return conditions[:, count(conditions) :]
