"""Links under which the API gives out the videos that it made, and no other file."""

from __future__ import annotations

import hmac
import secrets
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlencode

ROUTE = "/animatediff/v1/video"
_KEY = secrets.token_bytes(32)
"""Of this process: links end with it."""


def link_to(file: str) -> str:
    """The address of a video, below that of the WebUI."""
    return f"{ROUTE}?{urlencode({'file': file, 'key': _signature(file)})}"


def linked(file: str, key: str) -> Path | None:
    """The video that a link made by `link_to` leads to; None where it was made by somebody else, or the file is gone."""
    if not hmac.compare_digest(key.encode(), _signature(file).encode()):
        return None
    path = Path(file)
    return path if path.is_file() else None


def _signature(file: str) -> str:
    return hmac.new(_KEY, file.encode(), sha256).hexdigest()
