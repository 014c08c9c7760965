"""Controls for uploads that accept nothing else.

What a page sends is up to its user. Gradio 3 copies any file of the server that a request names as its upload to where the page
can read it, and every Gradio decodes a picture of any format that Pillow knows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from ..errors import RequestError
from ..request import uploads
from ..request.base64_pictures import decoded
from .gradio_versions import named_files, picture_in_base64


class Upload(gr.File):
    """A file, which must have been uploaded."""

    is_template = True
    """Tells gradio to draw it as what it derives from."""
    webui_do_not_create_gradio_pyi_thank_you = True
    """Tells Forge to keep Gradio 4 from writing a stub beside this file."""

    def preprocess(self, x: Any) -> Any:
        """Checks what the page sends, before gradio copies it. Returns the path of the file.

        Extensions that put requests into a queue pickle them, which Gradio 3's open file does not allow.
        """
        for file in named_files(x):
            _require_upload(file)
        file = super().preprocess(x)
        return getattr(file, "name", file)


class PictureUploads(gr.File):
    """Pictures, which must have been uploaded."""

    is_template = True
    """Tells gradio to draw it as what it derives from."""
    webui_do_not_create_gradio_pyi_thank_you = True
    """Tells Forge to keep Gradio 4 from writing a stub beside this file."""

    def preprocess(self, x: Any) -> Any:
        """Checks what the page sends, before gradio copies it. Returns the files as the API names them."""
        for file in named_files(x):
            _require_upload(file)
        files = super().preprocess(x) or []
        return [{"path": getattr(file, "name", file)} for file in (files if isinstance(files, list) else [files])]


class Picture(gr.Image):
    """A picture."""

    is_template = True
    """Tells gradio to draw it as what it derives from."""
    webui_do_not_create_gradio_pyi_thank_you = True
    """Tells Forge to keep Gradio 4 from writing a stub beside this file."""

    def preprocess(self, x: Any) -> Any:
        """Checks the format of what the page sends. Returns the picture as it is given through the API.

        Gradio would turn all into RGB, without transparency and with eight bits, where a mask means something else.
        """
        if x is None:
            return None
        try:
            return decoded(self.label or "The picture", picture_in_base64(x))
        except RequestError as error:
            raise gr.Error(str(error)) from error


def _require_upload(name: str) -> None:
    if not uploads.holds(name):
        raise gr.Error("Only files that were uploaded on this page can be used. Upload the file.")
    if not Path(name).is_file():
        raise gr.Error(f"{Path(name).name} is no longer on the server. Upload it again.")
