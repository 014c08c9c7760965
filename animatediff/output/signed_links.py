"""Signed links: an API client can fetch the videos that were made for it, and no other file."""

from __future__ import annotations

import hmac
import secrets
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlencode

ROUTE = "/animatediff/v1/video"
_KEY = secrets.token_bytes(32)
"""Made anew by each process, so a link is valid until the WebUI restarts."""


def link_to(file: str) -> str:
    """Returns the link to a video, relative to the WebUI's address."""
    return f"{ROUTE}?{urlencode({'file': file, 'key': _signature(file)})}"


def linked(file: str, key: str) -> Path | None:
    """Returns the video of a link that `link_to` made; None if the signature is wrong or the file is gone."""
    if not hmac.compare_digest(key.encode(), _signature(file).encode()):
        return None
    path = Path(file)
    return path if path.is_file() else None


def _signature(file: str) -> str:
    return hmac.new(_KEY, file.encode(), sha256).hexdigest()
