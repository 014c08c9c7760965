"""img2img's batch tab: its pictures are the frames of one clip.

The WebUI's own loop generates once for each picture. Other extensions replace its function too; where AnimateDiff is off,
whatever was there before ours is called.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from modules import images, shared
from PIL import Image

from ..errors import AnimateDiffError, RequestError
from ..request.params import Params
from ..request.reading import read_arguments

log = logging.getLogger("AnimateDiff")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
"""What the tab takes of a folder."""
BEFORE = "_animatediff_before"
"""The attribute of our function with itself, since wrappers take attributes over, and the one that was there before."""


def replace_loop() -> None:
    """Puts our function into the place of the WebUI's, once."""
    if (page := _page()) is not None and not hasattr(page.process_batch, BEFORE):
        page.process_batch = _around(page)


def put_loop_back() -> None:
    """`on_script_unloaded`. Where another extension has wrapped ours by now, ours stays below."""
    if (page := _page()) is None:
        return
    ours, before = getattr(page.process_batch, BEFORE, (None, None))
    if ours is page.process_batch:
        page.process_batch = before


def _page() -> ModuleType | None:
    """The WebUI's module with the tab; the embedded host has none."""
    try:
        from modules import img2img
    except ImportError:
        return None
    return img2img  # type: ignore[no-any-return]


def _around(page: ModuleType) -> Callable[..., Any]:
    before = page.process_batch

    @functools.wraps(before)
    def process_batch(p: Any, *arguments: Any, **named: Any) -> Any:
        try:
            params = _params_of(p)
            if not params.enable:
                return before(p, *arguments, **named)
            _give_frames(p, params, *arguments, **named)
        except RequestError as error:
            log.error(str(error))
            raise AnimateDiffError(str(error)) from error
        return p.scripts.run(p, *p.script_args) or page.process_images(p)

    setattr(process_batch, BEFORE, (process_batch, before))
    return process_batch


def _params_of(p: Any) -> Params:
    """What the panel says. Raises RequestError where that cannot be met."""
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
    """Gives `p` the pictures, or as many of them as are wanted. The arguments are those of the WebUI's function.

    Raises RequestError for what a clip cannot do.
    """
    if params.source:
        raise RequestError("The batch tab gives frames, and so does the source video in the panel. Take one of them away.")
    if use_png_info:
        raise RequestError(
            "“Append png info to prompts” would give each picture settings of its own, but a clip has the same for all its "
            "frames. Switch it off."
        )
    if len(masks := shared.listfiles(mask_dir) if mask_dir else []) > 1:
        raise RequestError(
            f"There are {len(masks)} masks in {mask_dir}, but a clip has one for all its frames. Leave one there."
        )
    p.init_images = [_picture(file) for file in _files(source)[: params.video_length or None]]
    if masks:
        p.image_mask = _picture(Path(masks[0]))
    if to_scale:
        p.width, p.height = (int(side * scale_by) for side in p.init_images[0].size)
    if output_dir.strip():
        p.outpath_samples = output_dir.strip()


def _files(source: Any) -> list[Path]:
    """Those of a folder, or of files that were uploaded, in the order in which people count. Raises RequestError."""
    if isinstance(source, str):
        files = [Path(file) for file in shared.walk_files(source, allowed_extensions=PICTURES)]
    else:
        files = sorted((Path(file.name) for file in source), key=lambda file: shared.natural_sort_key(file.name))
    if not files:
        raise RequestError("The batch tab has no pictures. Upload some, or name a folder that has some.")
    return files


def _picture(file: Path) -> Image.Image:
    try:
        picture = images.read(str(file))
        picture.load()
    except OSError as error:
        raise RequestError(f"{file.name} is no picture that can be read. Take it out of the batch.") from error
    return picture
