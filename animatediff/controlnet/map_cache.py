"""Maps that ControlNet's preprocessors have made, kept on disk for the next run with the same pictures and settings."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from modules import shared
from modules.paths_internal import data_path
from PIL import Image

MEGABYTE = 1_000_000
DEFAULT_MEGABYTES = 500
UNREPEATABLE = ("shuffle",)
"""Preprocessors whose maps depend on the seed as well."""


def folder() -> Path:
    """The folder of kept maps."""
    return Path(data_path) / "tmp" / "animatediff-maps"


class KeptMaps:
    """One of ControlNet's preprocessors that looks up its map on disk before it makes one.

    `version`: ControlNet's. Another one may make other maps of the same pictures.
    """

    def __init__(self, preprocessor: Any, version: str) -> None:
        self._preprocessor = preprocessor
        self._version = version

    def __getattr__(self, name: str) -> Any:
        return getattr(self._preprocessor, name)

    def cached_call(self, image: Any, **settings: Any) -> Any:
        """Returns what the preprocessor's own method returns: a result with a `value`."""
        made = self._preprocessor
        if made.name == "none" or made.name in UNREPEATABLE or not made.returns_image or _bound() == 0:
            return made.cached_call(image, **settings)
        file = folder() / f"{_digest(image, [self._version, made.name], settings)}.png"
        if (kept := _read(file)) is not None:
            return made.Result(value=kept, display_images=[kept])
        result = made.cached_call(image, **settings)
        _write(file, result.value)
        return result


def _bound() -> int:
    """How many bytes all kept maps may take. The setting is None where its field was emptied."""
    return max(0, int(shared.opts.data.get("animatediff_map_cache_mb", DEFAULT_MEGABYTES) or 0)) * MEGABYTE


def _digest(image: Any, preprocessor: list[str], settings: dict[str, Any]) -> str:
    facts = [*preprocessor, image.shape, image.dtype.str, *sorted((key, str(value)) for key, value in settings.items())]
    return hashlib.sha256(repr(facts).encode() + np.ascontiguousarray(image).tobytes()).hexdigest()


def _read(file: Path) -> Any:
    """Returns a kept map as it was made; None if there is none."""
    try:
        with Image.open(file) as picture:
            kept = np.asarray(picture)
        file.touch()  # so that it is among the last to be deleted
    except (OSError, SyntaxError):  # Pillow raises a SyntaxError for a broken PNG
        return None
    return kept


def _write(file: Path, made: Any) -> None:
    """Keeps a map if it is a picture of bytes. Errors lose only speed."""
    if not isinstance(made, np.ndarray) or made.dtype != np.uint8 or made.ndim not in (2, 3):
        return
    part = file.with_suffix(".part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(made).save(part, format="PNG", compress_level=1)
        part.replace(file)
    except (OSError, TypeError):  # TypeError: Pillow has no mode for as many channels
        part.unlink(missing_ok=True)


def prune() -> None:
    """Deletes the maps that were used longest ago, until the others fit into the bound, and what a crash has left."""
    with suppress(OSError):
        facts = []
        for file in folder().iterdir():
            if file.suffix == ".part":
                file.unlink()
                continue
            status = file.stat()
            facts.append((status.st_mtime, status.st_size, file))
        total = sum(size for _, size, _ in facts)
        for _, size, file in sorted(facts, key=lambda fact: fact[0]):
            if total <= _bound():
                break
            file.unlink()
            total -= size
