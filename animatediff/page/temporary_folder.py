"""The WebUI's folder for pictures of the page that are in no file yet, such as the first frame of an MP4 in the gallery."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from modules import shared


def make(*_app: Any) -> None:
    """`on_app_started`: makes the folder. A new Forge Neo names one in its settings that does not exist."""
    if folder := getattr(shared.opts, "temp_dir", ""):
        with suppress(OSError):  # whoever writes to it says why it cannot be used
            Path(folder).mkdir(parents=True, exist_ok=True)
