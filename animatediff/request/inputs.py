"""The files that a request names, found and opened: motion modules, the source video, RIFE's model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modules.paths_internal import models_path
from PIL import Image

from motion_module.checkpoint import Description
from motion_module.errors import MissingDependency
from motion_module.sparse_ctrl import Shape

from ..controlnet.pictures import Unit, units_with_pictures
from ..controlnet.script import is_installed
from ..errors import RequestError, reason
from ..video.rife import model_in
from . import camera, masks, module_files, source_video, sparse_files
from .base64_pictures import opened
from .camera import CameraFile
from .choices import NO_MODULE, RIFE
from .frame_pictures import FramePicture, SparseAsked
from .params import Params
from .source_video import Source


@dataclass(frozen=True)
class SparseInput:
    """A SparseCtrl model with its pictures. `said`: the frame that each picture names itself; None where it does not."""

    asked: SparseAsked
    path: Path
    shape: Shape
    pictures: list[Image.Image]
    said: list[int | None]


@dataclass(frozen=True)
class Inputs:
    """What a generation starts from.

    `second`: the second motion module, if one is chosen. `init_images`: the images of img2img, or the frames of its source
    video; None in txt2img. `masks`, `motion_masks`: one for all frames or one for each; empty if there are none. `rife`: the
    folder of the model that interpolates frames, if RIFE does. `controls`: ControlNet's enabled units. `camera`: CameraCtrl's
    file and poses. `sparse`: the SparseCtrl models.
    """

    module: Description
    second: Description | None
    init_images: list[Image.Image] | None
    source: Source | None
    masks: list[Image.Image]
    motion_masks: list[Image.Image]
    rife: Path | None
    controls: tuple[Unit, ...]
    camera: CameraFile | None
    sparse: tuple[SparseInput, ...] = ()

    @property
    def shortest_folder(self) -> Unit | None:
        """The ControlNet unit whose folder has the fewest pictures, of those with a picture for each frame."""
        folders = [unit for unit in self.controls if unit.folder and unit.folder.keyframes is None]
        return min(folders, key=lambda unit: len(unit.pictures), default=None)


def find_inputs(params: Params, init_images: list[Image.Image] | None, units: list[tuple[int, Any]]) -> Inputs:
    """Finds and opens what `params` names. `init_images`: those of img2img, None in txt2img. `units`: ControlNet's, enabled.

    Raises RequestError or CheckpointError for what is missing, or cannot be read.
    """
    module = _described(params.model)
    second = None if params.model_2 in NO_MODULE else _described(params.model_2)
    rife, of_camera = _rife(params), camera.find(params)
    controls = units_with_pictures(units, params, init_images)
    sparse = tuple(_sparse(asked, init_images) for asked in params.sparse_asked)
    of_frames = _masks(params, is_img2img=init_images is not None)
    of_motion = _motion_masks(params)
    source = _source(params, controls, is_img2img=init_images is not None)  # last, since it takes longest
    if source and init_images is not None and params.frames_from_source:
        init_images = source.frames
    return Inputs(module, second, init_images, source, of_frames, of_motion, rife, controls, of_camera, sparse)


def _described(name: str) -> Description:
    path = module_files.find(name)
    module_files.short_hash(path)  # computes the hash once; by it, a published file is recognised
    return module_files.what_it_is(path)


def _source(params: Params, controls: tuple[Unit, ...], *, is_img2img: bool) -> Source | None:
    if not params.source:
        return None
    drives_controlnet = any(unit.origin == "source video" for unit in controls)
    if not (drives_controlnet or (is_img2img and params.frames_from_source)):
        where = "with “Only for ControlNet” (source_for_controlnet)" if is_img2img else "in txt2img"
        if not is_installed():
            raise RequestError(
                f"A source video (video_source, video_path) {where} drives ControlNet, which this WebUI does not have. "
                "Use it in img2img, where frames start from it, or install sd-webui-controlnet."
            )
        raise RequestError(
            f"A source video (video_source, video_path) {where} drives ControlNet, but no unit takes it. Enable a ControlNet "
            "unit without a picture, or remove the source video."
        )
    return source_video.read(params)


def _masks(params: Params, *, is_img2img: bool) -> list[Image.Image]:
    if not params.mask_path:
        return []
    if not is_img2img:
        raise RequestError("Masks (mask_path) work only in img2img, where they say what is painted anew. Remove them.")
    return masks.read(params.mask_path)


def _motion_masks(params: Params) -> list[Image.Image]:
    if params.motion_mask is not None:
        return [masks.of_picture(params.motion_mask)]
    return masks.read(params.motion_mask_path, masks.MOVING) if params.motion_mask_path else []


def _sparse(asked: SparseAsked, init_images: list[Image.Image] | None) -> SparseInput:
    path = sparse_files.find(asked.model)
    first = [FramePicture(init_images[0], frame=None)] if asked.init_image and init_images else []
    given = [*first, *asked.pictures]
    if not given:
        raise RequestError(
            f"The SparseCtrl model {path.name} has no picture. Upload one (sparse_pictures), switch on “The first is img2img's "
            "picture” (sparse_init_image) in img2img, or choose no model (sparse_ctrl)."
        )
    pictures = [picture.image or _opened(picture.path) for picture in given]
    return SparseInput(asked, path, sparse_files.what_it_is(path), pictures, [picture.frame for picture in given])


def _opened(name: str) -> Image.Image:
    """Opens a picture that was uploaded on the page, or lies in a folder that the settings allow. Raises RequestError."""
    what = "The picture for SparseCtrl (sparse_pictures)"
    path = source_video.allowed(name, what)
    try:
        with path.open("rb") as content:
            return opened(f"The picture {path.name} (sparse_pictures)", content)
    except OSError as error:
        raise RequestError(f"{what} {path.name} cannot be opened: {reason(error)}. Check its name.") from None


def _rife(params: Params) -> Path | None:
    if params.interp != RIFE:
        return None
    try:
        return model_in(Path(models_path) / RIFE)
    except MissingDependency as error:
        raise RequestError(f"{error} Or set Frame interpolation (interp) to “optical flow”.") from error
