"""Pillow images that display their first frame and save the whole animation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

Kind = TypeVar("Kind", bound=Image.Image)


def _copy_as(kind: type[Kind], frame: Image.Image) -> Kind:
    copy = frame.copy()
    copy.__class__ = kind  # Pillow has no public way to make an instance of a subclass from an image
    assert isinstance(copy, kind)
    return copy


class Animation(Image.Image):
    """An encoded animation. The gallery serves the file `already_saved_as`; the API and temporary files call `save`."""

    encoded: bytes
    already_saved_as: str | None

    @classmethod
    def of(cls, frame: Image.Image, encoded: bytes) -> Animation:
        animation = _copy_as(cls, frame)
        animation.encoded, animation.already_saved_as = encoded, None
        return animation

    def save(self, fp: Any, format: str | None = None, **_params: Any) -> None:
        if hasattr(fp, "write"):
            fp.write(self.encoded)
        else:
            Path(fp).write_bytes(self.encoded)


class Preview(Image.Image):
    """A live preview that is encoded when it is saved: animated as PNG or WebP, as its first frame in any other format."""

    _rest: Sequence[Image.Image]
    _milliseconds: int

    @classmethod
    def of(cls, frames: Sequence[Image.Image], milliseconds: int) -> Preview:
        preview = _copy_as(cls, frames[0])
        preview._rest, preview._milliseconds = frames[1:], milliseconds
        return preview

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:
        if str(format).upper() in ("PNG", "WEBP"):
            params |= {"save_all": True, "append_images": self._rest, "duration": self._milliseconds, "loop": 0}
            params |= {"optimize": False, "compress_level": 1}  # quick to encode, since a preview is shown once
        super().save(fp, format, **params)
