"""From a generation that is about to begin to what it is asked for: everything that can be refused without the checkpoint."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modules import shared
from modules.paths_internal import models_path

from motion_module.video_reader import MissingDependency

from ..errors import RequestError
from ..output import paths
from ..page import xyz
from ..request.params import RIFE, Params, without_img2img
from ..request.plan import Plan, make_plan
from ..request.reading import read_arguments
from ..request.source_video import Source, read
from ..video.formats import is_picture
from ..video.rife import model_in
from . import advice

WHOLE_LEVELS = {"SD 1.5": 64, "SDXL": 32}
"""Pixels of which the UNet's lowest level has one, so that no level is resized on its way up."""
LATENT_UPSCALE = 3
"""The WebUI's number for “Just resize (latent upscale)”."""


@dataclass(frozen=True)
class Asked:
    """A request that can be met. `source`: the video that img2img starts from, None where it starts from pictures.

    `from_picture`: whether all frames start from one picture. `rife`: the model that makes frames in between, where RIFE does.
    """

    params: Params
    plan: Plan
    source: Source | None
    from_picture: bool
    warnings: list[str]
    rife: Path | None = None


def asked_of(p: Any, arguments: tuple[Any, ...]) -> Asked | None:
    """What a generation is asked for, if that is a video. Raises RequestError or CheckpointError where it cannot be met."""
    params, warnings = read_arguments(arguments, xyz.values_on(p))
    if not params.enable or getattr(p, "_ad_inner", False):
        return None
    if getattr(p, "txt2img_upscale", False):
        p.comment("AnimateDiff: the ✨ button upscales the first frame, as a picture. Use hires fix to upscale a video.")
        p.firstpass_image = p.firstpass_image.convert("RGB")  # a GIF has a palette, which the WebUI does not expect
        return None
    video = _source_of(p, params)
    pictures = video.frames if video else _init_pictures(p)
    _require_one_size(pictures)
    params = _filled_in(p, params, video, pictures)
    warnings += video.warnings(params) if video else []
    plan = make_plan(params)
    if len(pictures) not in (0, 1, plan.frames):
        raise RequestError(
            f"img2img was given {len(pictures)} pictures for {plan.frames} frames. Give it one picture, or one for each frame."
        )
    if plan.family.takes_image and not pictures:
        raise RequestError(f"{plan.family.title} animates a picture: use it in img2img.")
    _require_place_for_last_frame(p, params, plan, pictures)
    _require_layers_that_go_along(p, plan)
    if params.freeinit_enable and hasattr(p, "init_images"):
        raise RequestError(
            "FreeInit (freeinit_enable) begins with noise alone, so it is for txt2img. Switch it off in img2img."
        )
    warnings += advice.warnings(p, plan)
    if shared.opts.samples_save and not p.do_not_save_samples:
        paths.require_writable(p.outpath_samples)
    elif params.video_delivery == "url" and not all(is_picture(name) for name in params.format):
        raise RequestError(
            'video_delivery is "url", but nothing is saved that a URL could lead to. '
            'Set save_images to true, or video_delivery to "data".'
        )
    rife = _rife_for(params)
    return Asked(plan.as_params(params), plan, video, video is None and len(pictures) == 1, warnings, rife)


def _filled_in(p: Any, params: Params, video: Source | None, pictures: list[Any]) -> Params:
    """The request with what its pictures say of it."""
    if video:
        return video.filled_in(params)
    if not hasattr(p, "init_images"):
        return without_img2img(params)
    if len(pictures) > 1 and not params.video_length:
        return dataclasses.replace(params, video_length=len(pictures))
    return params


def _require_place_for_last_frame(p: Any, params: Params, plan: Plan, pictures: list[Any]) -> None:
    if params.last_frame is None:
        return
    hindrance = ""
    if not hasattr(p, "init_images"):
        hindrance = "is for img2img, where it goes with a first one"
    elif plan.family.takes_image:
        hindrance = f"cannot be had with {plan.family.title}, which animates one picture"
    elif len(pictures) != 1:
        hindrance = f"needs one first picture, but {len(pictures)} are given"
    elif plan.frames == 1:
        hindrance = "cannot be the only one"
    elif params.last_frame.size != pictures[0].size and _goes_by_the_first(p):
        hindrance = "must be as large as the first one with a mask, or where latents are resized in place of pictures"
    if hindrance:
        raise RequestError(f"The last frame (last_frame) {hindrance}. Leave it out.")


def _goes_by_the_first(p: Any) -> bool:
    """Whether the WebUI cuts or masks all pictures as the first one, or takes them for latents of one size."""
    return getattr(p, "image_mask", None) is not None or getattr(p, "resize_mode", 0) == LATENT_UPSCALE


def _require_layers_that_go_along(p: Any, plan: Plan) -> None:
    """The WebUI's own changes to the UNet with which some of ours cannot act."""
    tiles = any(shared.opts.data.get(name) for name in ("hypertile_enable_unet", "hypertile_enable_unet_secondpass"))
    if plan.first_frame_attention and tiles:
        raise RequestError(
            "Attention to the first frame (first_frame_attention) does not work with Hypertile, which cuts images into tiles. "
            "Switch off “Enable Hypertile U-Net” in the settings, or set first_frame_attention to 0."
        )
    waits = plan.offload and plan.windows.needed and plan.windows_within
    whole = WHOLE_LEVELS[plan.family.base]
    if waits and (p.width % whole or p.height % whole):
        raise RequestError(
            f"Frames can wait in RAM (offload) at widths and heights that are multiples of {whole}, but the video is "
            f"{p.width}×{p.height}. Change its size, or switch it off."
        )


def _source_of(p: Any, params: Params) -> Source | None:
    """The video that a request starts from, read; None where it names none."""
    if not params.source:
        return None
    if not hasattr(p, "init_images"):
        raise RequestError("A source video (video_source, video_path) is what img2img starts from. Use it in img2img.")
    return read(params)


def _require_one_size(pictures: list[Any]) -> None:
    """Frames of different shapes would each be stretched or cut in their own way."""
    for number, picture in enumerate(pictures, start=1):
        if len(pictures) > 1 and picture.size != pictures[0].size:
            sizes = ["×".join(map(str, size)) for size in (picture.size, pictures[0].size)]
            raise RequestError(
                f"The pictures for the frames have different sizes: picture {number} is {sizes[0]}, the first is {sizes[1]}. "
                "Give all of them one size."
            )


def _rife_for(params: Params) -> Path | None:
    if params.interp != RIFE:
        return None
    try:
        return model_in(Path(models_path) / RIFE)
    except MissingDependency as error:
        raise RequestError(f"{error} Or set Frames in between (interp) to “optical flow”.") from error


def _init_pictures(p: Any) -> list[Any]:
    """The pictures that img2img starts from; one, where its batch tab repeats the same for each row."""
    pictures = getattr(p, "init_images", None) or []
    return pictures[:1] if all(picture is pictures[0] for picture in pictures) else pictures
