"""The extension's settings, as a generation reads them. `page/settings_section.py` adds them to the WebUI's settings."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from modules import shared

from .video.clip import Quality


def keeps_unfinished() -> bool:
    """Returns whether intermediate results of long videos are kept on disk, so that they can be resumed."""
    return shared.opts.data.get("animatediff_keep_unfinished", True)


def folders(key: str) -> list[Path]:
    """Returns the folders of a setting that names one on each line, with links resolved."""
    lines = shared.opts.data.get(key, "").splitlines()
    return [Path(line.strip()).resolve() for line in lines if line.strip()]


def quality() -> Quality:
    """Returns the settings of the encoders."""
    chosen = {
        field.name: shared.opts.data.get(f"animatediff_{field.name}", field.default) for field in dataclasses.fields(Quality)
    }
    return Quality(**chosen)
