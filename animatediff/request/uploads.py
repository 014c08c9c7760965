"""Gradio's folder of files that were uploaded on the page: each lies in a folder of its own, whose name cannot be guessed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from .network_paths import leads_elsewhere


def holds(file: str | Path) -> bool:
    """Returns whether a file, with links resolved, lies where gradio puts uploads.

    Directly in the folder lie pictures that the page has shown to anyone, so neither these nor the folder itself are uploads.
    """
    if leads_elsewhere(str(file), [_folder()]):
        return False
    try:
        return Path(file).resolve().parent.parent == _folder()
    except (OSError, RuntimeError, ValueError):
        return False


def _folder() -> Path:
    return Path(os.environ.get("GRADIO_TEMP_DIR") or Path(tempfile.gettempdir(), "gradio")).resolve()
