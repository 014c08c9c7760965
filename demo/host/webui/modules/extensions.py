"""Stands in for `modules.extensions`: all folders in `extensions_dir`, or this project if that does not exist."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from modules.paths_internal import extensions_dir, project_path


@dataclass(frozen=True)
class Extension:
    name: str
    path: str


def active() -> list[Extension]:
    folder = Path(extensions_dir)
    entries = sorted(entry for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else [Path(project_path)]
    return [Extension(entry.name, str(entry)) for entry in entries]
