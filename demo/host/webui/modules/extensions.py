"""The folders of extensions: every folder below `extensions_dir`, or, where there is none, the project itself."""

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
    found = sorted(entry for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else [Path(project_path)]
    return [Extension(entry.name, str(entry)) for entry in found]
