"""The detectors in files, where ADetailer has them. Nothing is downloaded."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from modules import shared
from modules.paths_internal import models_path

from ..errors import RequestError, shown
from ..request.choices import DETECTED, DETECTOR_SUFFIX, DRAWN_BOX, NO_DETAIL

DOWNLOADED = ("face_yolov8n.pt", "face_yolov8s.pt", "hand_yolov8n.pt", "person_yolov8n-seg.pt", "person_yolov8s-seg.pt")
"""The files that ADetailer downloads into the cache of Hugging Face."""
MOST_NAMED = 8
"""How many files an error names."""


def choices() -> list[str]:
    """Returns what can be detailed: first what needs no file, then the files, if `ultralytics` is there, which they need."""
    files = sorted(_files(), key=shared.natural_sort_key) if importlib.util.find_spec("ultralytics") else []
    return [NO_DETAIL, *DETECTED, DRAWN_BOX, *files]


def find(name: str) -> Path:
    """Returns the file of a detector. Raises RequestError if there is none of that name."""
    files = _files()
    if name not in files:
        there = ", ".join([*sorted(files)[:MOST_NAMED], *DETECTED])
        raise RequestError(
            f"The detector {shown(name)} is missing. Put it into the WebUI's folder models/adetailer, or set Detail (detail) "
            f"to one of those that are there: {there}."
        )
    return files[name]


def _files() -> dict[str, Path]:
    more = (shared.opts.data.get("ad_extra_models_dir") or "").split("|")  # ADetailer's setting
    folders = [Path(models_path) / "adetailer", *map(Path, filter(None, more))]
    found = [file for folder in folders for file in sorted(folder.rglob(f"*{DETECTOR_SUFFIX}")) if file.is_file()]
    named = [file for file in found if file.name == file.name.encode("utf-8", "replace").decode()]  # an answer can name them
    return {**{file.name: file for file in reversed(named)}, **_downloaded()}  # of two, ADetailer uses the same one


def _downloaded() -> dict[str, Path]:
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return {}
    cached = {name: try_to_load_from_cache("Bingsu/adetailer", name) for name in DOWNLOADED}
    return {name: Path(file) for name, file in cached.items() if isinstance(file, str)}
