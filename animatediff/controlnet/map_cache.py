"""Maps that ControlNet's preprocessors have made, kept on disk for the next run with the same pictures and settings."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from modules import shared
from modules.paths_internal import data_path
from PIL import Image, UnidentifiedImageError

MEGABYTE = 1_000_000
DEFAULT_MEGABYTES = 500
UNREPEATABLE = ("shuffle",)
"""Preprocessors whose maps depend on the seed as well."""


def folder() -> Path:
    """The folder of kept maps."""
    return Path(data_path) / "tmp" / "animatediff-maps"


class KeptMaps:
    """One of ControlNet's preprocessors that looks up its map on disk before it makes one."""

    def __init__(self, preprocessor: Any) -> None:
        self._preprocessor = preprocessor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._preprocessor, name)

    def cached_call(self, image: Any, **settings: Any) -> Any:
        """Returns what the preprocessor's own method returns: a result with a `value`."""
        made = self._preprocessor
        if made.name == "none" or made.name in UNREPEATABLE or not made.returns_image or _bound() == 0:
            return made.cached_call(image, **settings)
        file = folder() / f"{_digest(image, made.name, settings)}.png"
        if (kept := _read(file)) is not None:
            return made.Result(value=kept, display_images=[kept])
        result = made.cached_call(image, **settings)
        _write(file, result.value)
        return result


def _bound() -> int:
    """How many bytes all kept maps may take."""
    return int(shared.opts.data.get("animatediff_map_cache_mb", DEFAULT_MEGABYTES)) * MEGABYTE


def _digest(image: Any, name: str, settings: dict[str, Any]) -> str:
    facts = [name, image.shape, image.dtype.str, *sorted((key, str(value)) for key, value in settings.items())]
    return hashlib.sha256(repr(facts).encode() + np.ascontiguousarray(image).tobytes()).hexdigest()


def _read(file: Path) -> Any:
    """Returns a kept map as it was made; None if there is none."""
    try:
        with Image.open(file) as picture:
            kept = np.asarray(picture)
        file.touch()  # so that it is among the last to be deleted
    except (OSError, UnidentifiedImageError):
        return None
    return kept


def _write(file: Path, made: Any) -> None:
    """Keeps a map if it is a picture of bytes, and deletes the oldest ones where all take too much. Errors lose only speed."""
    if not isinstance(made, np.ndarray) or made.dtype != np.uint8 or made.ndim not in (2, 3):
        return
    part = file.with_suffix(".part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(made).save(part, format="PNG", compress_level=1)
        part.replace(file)
        facts = sorted((entry.stat().st_mtime, entry.stat().st_size, entry) for entry in file.parent.glob("*.png"))
        total = sum(size for _, size, _ in facts)
        for _, size, entry in facts[:-1]:
            if total <= _bound():
                break
            entry.unlink()
            total -= size
    except (OSError, TypeError):  # TypeError: Pillow has no mode for as many channels
        part.unlink(missing_ok=True)
