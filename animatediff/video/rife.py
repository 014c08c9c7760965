"""Interpolates frames with RIFE (arXiv 2011.06294), if its ncnn package is installed, and a model of version 4."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from motion_module.errors import MissingDependency
from motion_module.pictures import Frame

PACKAGE, ON_PYPI = "rife_ncnn_vulkan_python", "rife-ncnn-vulkan-python-tntwise"
MODELS = "rife-v4*"
"""The names of model folders. Earlier versions can only make the frame half way between two others."""
FILES = ("flownet.param", "flownet.bin")


def model_in(folder: Path) -> Path:
    """Returns the newest model in a folder, by name. Raises MissingDependency if there is none, or RIFE is not installed."""
    if importlib.util.find_spec(PACKAGE) is None:
        raise MissingDependency(f"RIFE is not installed. Run `pip install {ON_PYPI}` in the WebUI's Python environment.")
    models = [model for model in sorted(folder.glob(MODELS)) if all((model / file).is_file() for file in FILES)]
    if not models:
        raise MissingDependency(f"RIFE has no model. Put one into {folder}: for example, rife-v4.6 of nihui/rife-ncnn-vulkan.")
    return models[-1]


class Rife:
    """A loaded model, on the first GPU that Vulkan finds, otherwise on the CPU."""

    def __init__(self, model: Path) -> None:
        import rife_ncnn_vulkan_python as package

        gpu = 0 if package.wrapped.get_gpu_count() else -1
        self._model: Any = package.Rife(gpuid=gpu, model=str(model))

    def between(self, before: Frame, after: Frame, fractions: Sequence[float]) -> list[Frame]:
        """Returns the frames at these fractions of the way from `before` to `after`, `(height, width, 3)` each."""
        first, second = Image.fromarray(before), Image.fromarray(after)
        return [np.asarray(self._model.process(first, second, timestep=fraction)) for fraction in fractions]
