"""Stands in for `modules.ui_tempdir`: the files that gradio may serve. Here, those are all in the host's own folders."""

from __future__ import annotations

from typing import Any


def register_tmp_file(_page: Any, _file: str) -> None:
    """Does nothing: gradio may serve every file that this host writes."""


def check_tmp_file(_page: Any, _file: str) -> bool:
    """Returns False, since no file is registered."""
    return False
