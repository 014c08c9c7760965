"""Where Gradio 3.41 and Gradio 4.40 differ: WebUIs have one or the other."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

JAVASCRIPT = "js" if int(gr.__version__.partition(".")[0]) >= 4 else "_js"
"""The keyword of an event's JavaScript."""


def javascript(code: str) -> dict[str, str]:
    """Returns the keyword with which an event runs JavaScript in the page."""
    return {JAVASCRIPT: code}


def named_files(sent: Any) -> list[str]:
    """Returns the files that a page names as uploads in what it sends for a file control."""
    files = getattr(sent, "root", sent)  # Gradio 4 has a class for a list
    named = []
    for file in files if isinstance(files, list) else [files]:
        if isinstance(file, Mapping):  # Gradio 3 also takes the content itself
            named += [str(file.get("name"))] if file.get("is_file") else []
        elif file is not None:
            named.append(str(file.path))
    return named


def picture_in_base64(sent: Any) -> str:
    """Returns what a page sends for a picture control in base64. Gradio 4 has put it into a file of its own."""
    if not hasattr(sent, "path"):
        return str(sent)
    return base64.b64encode(Path(sent.path).read_bytes()).decode()


def login_cookies(app: Any) -> tuple[str, str]:
    """Returns the names of the cookies that tell who has logged in to the page: over HTTPS and over HTTP."""
    of_app = f"-{app.cookie_id}" if hasattr(app, "cookie_id") else ""  # Gradio 4 tells several WebUIs of a computer apart
    return f"access-token{of_app}", f"access-token-unsecure{of_app}"
