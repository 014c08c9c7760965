"""img2img's Batch tab: with AnimateDiff on, its images become the frames of one clip.

The WebUI's own function generates once for each image. Other extensions replace that function too; with AnimateDiff off, ours
calls whichever function was there before it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from motion_module.errors import UnreadableVideo
from motion_module.pictures import flattened, read_with_alpha
from motion_module.video_reader import by_number, pictures_below

from ..errors import RequestError, reported_to_user
from ..request import uploads
from ..request.params import Params
from ..request.reading import read_arguments
from ..request.source_video import background

BEFORE = "_animatediff_before"
"""The attribute that holds our function and the one before it. Ours is in it, since `functools.wraps` copies attributes."""


def replace_loop() -> None:
    """Replaces the WebUI's function by ours, once."""
    if (page := _page()) is not None and not hasattr(page.process_batch, BEFORE):
        page.process_batch = _around(page)


def put_loop_back() -> None:
    """Restores the function; a callback of `on_script_unloaded`. If another extension has wrapped ours since, ours stays."""
    if (page := _page()) is None:
        return
    ours, before = getattr(page.process_batch, BEFORE, (None, None))
    if ours is page.process_batch:
        page.process_batch = before


def _page() -> Any:
    """Returns the WebUI's module of the tab; None in the stand-in WebUI, which has no such tab."""
    try:
        from modules import img2img
    except ImportError:
        return None
    return img2img


def _around(page: Any) -> Callable[..., Any]:
    before = page.process_batch

    @functools.wraps(before)
    def process_batch(p: Any, *arguments: Any, **named: Any) -> Any:
        with reported_to_user("reading the images of the Batch tab"):
            is_on = _params_of(p).enable
        return make_clip(p, *arguments, **named) if is_on else before(p, *arguments, **named)

    setattr(process_batch, BEFORE, (process_batch, before))
    return process_batch


def make_clip(p: Any, *arguments: Any, **named: Any) -> Any:
    """Makes one clip of the images of the tab. The arguments are those of the WebUI's function."""
    with reported_to_user("reading the images of the Batch tab"):
        _give_frames(p, _params_of(p), *arguments, **named)
    return p.scripts.run(p, *p.script_args) or _page().process_images(p)


def _params_of(p: Any) -> Params:
    """Returns the values of the panel. Raises RequestError if one of them is not allowed."""
    ours = next((script for script in p.scripts.alwayson_scripts if script.title() == "AnimateDiff"), None)
    if ours is None:
        return Params()
    return read_arguments(p.script_args[ours.args_from : ours.args_to], {})[0]


def _give_frames(
    p: Any,
    params: Params,
    source: Any,
    output_dir: str,
    mask_dir: str,
    _args: Any,
    to_scale: bool = False,
    scale_by: float = 1.0,
    use_png_info: bool = False,
    **_: Any,
) -> None:
    """Gives `p` the images, up to the number of frames of the request. The arguments are those of the WebUI's function.

    Raises RequestError for settings of the tab that a clip cannot follow.
    """
    if params.source:
        raise RequestError("Both the Batch tab and the source video in the panel give frames. Remove the source video.")
    if use_png_info:
        raise RequestError(
            "“Append png info to prompts” gives each image its own settings, but all frames of a clip share the same. "
            "Switch it off."
        )
    if len(masks := _pictures_in(mask_dir) if mask_dir else []) > 1:
        raise RequestError(
            f"There are {len(masks)} masks in {mask_dir}, but the Batch tab takes one for all frames. For one for each frame, "
            "name the folder under Masks (mask_path) in the panel instead."
        )
    p.init_images = [flattened(_picture(file), background()) for file in _files(source)[: params.video_length or None]]
    if masks:
        p.image_mask = _picture(masks[0])  # the WebUI takes its transparency as the mask, if it has some
    if to_scale:
        p.width, p.height = (int(side * scale_by) for side in p.init_images[0].size)
    if output_dir.strip():
        p.outpath_samples = output_dir.strip()


def _files(source: Any) -> list[Path]:
    """Returns the images of a folder, or the uploaded ones, in natural order (2 before 10). Raises RequestError if none."""
    if isinstance(source, str):
        files = _pictures_in(source)
    else:
        # Gradio has copied each file to `name`. What the page called its upload may be any file of the server.
        if not all(uploads.holds(getattr(file, "orig_name", file.name)) for file in source):
            raise RequestError("The Batch tab accepts only files that were uploaded on this page. Upload the images.")
        files = sorted((Path(file.name) for file in source), key=by_number)
    if not files:
        raise RequestError("The Batch tab has no images. Upload some, or name a folder that contains some.")
    return files


def _pictures_in(folder: str) -> list[Path]:
    """Returns the images of a folder and of the folders in it, as the WebUI's own function reads them."""
    try:
        return pictures_below(Path(folder))
    except OSError as error:
        folder = error.filename or folder
        raise RequestError(f"The folder {folder} cannot be read ({error.strerror}). Correct its path.") from error


def _picture(file: Path) -> Image.Image:
    try:
        picture: Image.Image = read_with_alpha(file)
    except (OSError, UnreadableVideo) as error:
        raise RequestError(f"{file.name} cannot be read as an image. Remove it from the batch.") from error
    return picture
