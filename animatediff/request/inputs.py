"""The files that a request names, found and opened: motion modules, the source video, RIFE's model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from modules.paths_internal import models_path
from PIL import Image

from motion_module.checkpoint import Description
from motion_module.errors import MissingDependency

from ..errors import RequestError
from ..video.rife import model_in
from . import module_files, source_video
from .choices import NO_MODULE, RIFE
from .params import Params
from .source_video import Source


@dataclass(frozen=True)
class Inputs:
    """What a generation starts from.

    `second`: the second motion module, if one is chosen. `init_images`: the images of img2img, or the frames of its source
    video; None in txt2img. `rife`: the folder of the model that interpolates frames, if RIFE does.
    """

    module: Description
    second: Description | None
    init_images: list[Image.Image] | None
    source: Source | None
    rife: Path | None


def find_inputs(params: Params, init_images: list[Image.Image] | None) -> Inputs:
    """Finds and opens what `params` names. `init_images`: those of img2img, None in txt2img.

    Raises RequestError or CheckpointError for what is missing, or cannot be read.
    """
    module = _described(params.model)
    second = None if params.model_2 in NO_MODULE else _described(params.model_2)
    rife = _rife(params)
    source = _source(params, is_img2img=init_images is not None)  # last, since it takes longest
    return Inputs(module, second, source.frames if source else init_images, source, rife)


def _described(name: str) -> Description:
    path = module_files.find(name)
    module_files.short_hash(path)  # computes the hash once; by it, a published file is recognised
    return module_files.what_it_is(path)


def _source(params: Params, *, is_img2img: bool) -> Source | None:
    if not params.source:
        return None
    if not is_img2img:
        raise RequestError("A source video (video_source, video_path) works only in img2img. Use it there, or remove it.")
    return source_video.read(params)


def _rife(params: Params) -> Path | None:
    if params.interp != RIFE:
        return None
    try:
        return model_in(Path(models_path) / RIFE)
    except MissingDependency as error:
        raise RequestError(f"{error} Or set Frame interpolation (interp) to “optical flow”.") from error
