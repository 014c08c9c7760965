"""Two checkpoints between which a host changes in the middle of something."""

from __future__ import annotations

import pytest

ANOTHER_OBJECT = pytest.param("tiny-a.safetensors", "tiny-b.safetensors", id="another model object")
SAME_OBJECT = pytest.param(
    "tiny-swap.safetensors",
    "tiny-swap.ckpt",
    marks=pytest.mark.not_on(("Forge", "Neo", "reForge"), "every checkpoint becomes a model of its own"),
    id="the same model object",
)
"""AUTOMATIC1111 loads the weights of the second into the model of the first."""
PAIRS = [ANOTHER_OBJECT, SAME_OBJECT]
