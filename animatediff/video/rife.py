"""Frames in between by RIFE (arXiv 2011.06294): its package for ncnn, where it is installed, and a model of version 4."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from motion_module.video_reader import Frame, MissingDependency

PACKAGE, ON_PYPI = "rife_ncnn_vulkan_python", "rife-ncnn-vulkan-python-tntwise"
MODELS = "rife-v4*"
"""Names of folders of models; earlier versions know no frame but the one half way."""
FILES = ("flownet.param", "flownet.bin")


def model_in(folder: Path) -> Path:
    """The last by name of the models in a folder. Raises MissingDependency where there is none, or RIFE is not installed."""
    if importlib.util.find_spec(PACKAGE) is None:
        raise MissingDependency(f"RIFE is not installed: `pip install {ON_PYPI}` in the environment of the WebUI does that.")
    models = [model for model in sorted(folder.glob(MODELS)) if all((model / file).is_file() for file in FILES)]
    if not models:
        raise MissingDependency(
            f"RIFE has no model: put one, such as the folder rife-v4.6 of nihui/rife-ncnn-vulkan, into {folder}."
        )
    return models[-1]


class Rife:
    """A model, loaded: on the first GPU that Vulkan finds, else on the CPU."""

    def __init__(self, model: Path) -> None:
        import rife_ncnn_vulkan_python as package

        gpu = 0 if package.wrapped.get_gpu_count() else -1
        self._model: Any = package.Rife(gpuid=gpu, model=str(model))

    def between(self, before: Frame, after: Frame, shares: Sequence[float]) -> list[Frame]:
        """The frames at these parts of the way, `(height, width, 3)` each."""
        first, second = Image.fromarray(before), Image.fromarray(after)
        return [np.asarray(self._model.process(first, second, timestep=share)) for share in shares]
