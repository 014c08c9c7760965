"""Pictures in base64, as programs and pages send them (imports nothing of the WebUI)."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import BinaryIO

from PIL import Image, ImageOps

from ..errors import RequestError

PICTURE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""The formats of a given picture. Other decoders of Pillow are seldom tested, and EPS starts a program."""
MOST_PICTURE_BYTES, MOST_PICTURE_SIDE = 64_000_000, 8_192


def decoded(name: str, text: str) -> Image.Image:
    """Returns a picture that came as base64, which may be a data URL, upright. `name`: as errors call it.

    Raises RequestError.
    """
    text = text.rpartition(";base64,")[2]
    if len(text) > MOST_PICTURE_BYTES * 4 / 3:
        raise RequestError(f"{name} has more than {MOST_PICTURE_BYTES // 10**6} MB. Send a smaller picture.")
    try:
        content: BinaryIO = BytesIO(base64.b64decode("".join(text.split()), validate=True))
    except ValueError:
        content = BytesIO()
    return opened(name, content)


def opened(name: str, content: BinaryIO) -> Image.Image:
    """Returns a picture of one of these formats, upright. `name`: as errors call it. Raises RequestError."""
    try:
        picture = Image.open(content, formats=PICTURE_FORMATS)
        if max(picture.size) <= MOST_PICTURE_SIDE:
            picture.load()
            return ImageOps.exif_transpose(picture)
    except Exception as error:  # decoders raise SyntaxError, struct.error, zlib.error and others
        raise RequestError(
            f"{name} is not a picture that can be read. Use one of these formats, in requests as base64: "
            f"{', '.join(PICTURE_FORMATS)}."
        ) from error
    size = "×".join(map(str, picture.size))
    raise RequestError(
        f"{name} has {size} pixels, but must have at most {MOST_PICTURE_SIDE} on a side. Send a smaller picture."
    )
