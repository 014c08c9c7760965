"""What is remembered from one start of the WebUI to the next: JSON files in `animatediff/` of its data folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from modules.paths_internal import data_path


def read(name: str) -> Any:
    """What was last written under this name; None where that is nothing, or cannot be read."""
    try:
        return json.loads(_file(name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def write(name: str, content: Any) -> None:
    """Raises OSError where that cannot be done; then what was there before still is."""
    file = _file(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    part.replace(file)


def _file(name: str) -> Path:
    return Path(data_path) / "animatediff" / f"{name}.json"
