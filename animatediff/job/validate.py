"""What can be refused or warned of before the checkpoint is looked at."""

from __future__ import annotations

from typing import Any

from modules import shared
from PIL import ImageOps

from motion_module.errors import MissingDependency
from motion_module.light_steps import LEAST_STEPS
from motion_module.optical_flow import opencv
from motion_module.weight_files import CheckpointError

from ..detailer import detector_files
from ..detailer.boxes import read_box
from ..detailer.yolo_file import yolo_model
from ..errors import RequestError, shown
from ..output import paths
from ..request.choices import DRAWN_BOX, EXACT, IN_ATTENTION, WHOLE
from ..request.masks import union
from ..request.params import MOST_FRAMES, Params
from ..request.plan import Plan
from ..video.formats import is_picture
from . import advice, camera, chosen_script, motion_masks, sparse_control

SIDE_MULTIPLES = {"SD 1.5": 64, "SDXL": 32}
"""Pixels of one element at the UNet's lowest level. At multiples of these, no level is resized on its way up."""
ORIGINAL = 1
"""The WebUI's number for “original” as masked content."""
BACK_AND_FORTH = ("heun", "restart")
"""How the names of samplers begin whose calls do not follow each other from noise to picture."""
LATENT_UPSCALE = 3
"""The WebUI's number for “Just resize (latent upscale)”."""


def validate(p: Any, plan: Plan) -> list[str]:
    """Returns warnings for the answer. Raises RequestError for what cannot work."""
    chosen_script.require_suitable(p)
    _require_matching_images(plan)
    _require_matching_masks(p, plan)
    motion_masks.require_matching(plan)
    _require_image(plan)
    _require_windows_of_encoder(plan)
    _require_usable_last_frame(p, plan)
    _require_possible_strengths(p, plan)
    _require_possible_interpolation(plan)
    _require_all_frames_within_positions(plan)
    _require_keyframes_of_units(plan)
    _require_units_with_weights(plan)
    _require_possible_offload(p, plan)
    _require_no_hypertile(plan)
    _require_possible_detail(plan)
    _require_steps_that_can_be_light(p, plan)
    sparse_control.require_possible(plan)
    camera.require_possible(p, plan)
    if plan.params.freeinit_enable and plan.images is not None:
        raise RequestError(
            "Enable FreeInit (freeinit_enable) is on, but FreeInit starts from noise alone, so it works only in txt2img. "
            "Switch it off in img2img."
        )
    _require_place_to_save(p, plan.params)
    source = plan.inputs.source
    return [
        *(source.warnings(plan.params) if source else ()),
        *_images_left_over(plan),
        *camera.warnings(plan),
        *_nothing_written(p, plan.params),
        *motion_masks.warnings(p, plan),
        *advice.warnings(p, plan),
        *advice.other_detailer(p),
    ]


def _require_matching_images(plan: Plan) -> None:
    """One image for all frames, or one of the same size for each: different sizes would be cropped in different ways."""
    if (images := plan.images) is None:
        return
    if not images:
        raise RequestError(
            "img2img was given no picture. Give it one (init_images), or a source video (video_source, video_path)."
        )
    for number, image in enumerate(images, start=1):
        if image.size != images[0].size:
            sizes = ["×".join(map(str, size)) for size in (image.size, images[0].size)]
            raise RequestError(
                f"The pictures for the frames have different sizes: picture {number} is {sizes[0]}, the first is {sizes[1]}. "
                "Make all of them the same size."
            )
    if len(images) not in (1, plan.frames):
        raise RequestError(
            f"img2img was given {len(images)} pictures for {plan.frames} frames. Use one picture, or one for each frame, "
            f"or set Number of frames (video_length) to {len(images)}."
        )


def _require_matching_masks(p: Any, plan: Plan) -> None:
    """One mask for all frames, or one for each, of the size of the pictures: the WebUI crops both to the same region."""
    if not (masks := plan.masks):
        return
    if not hasattr(p, "image_mask"):
        raise RequestError("Masks (mask_path) need the inpainting of img2img, which this WebUI does not have. Remove them.")
    if p.image_mask is not None and p.image_mask.getbbox():  # the page has a black one where nothing is painted
        raise RequestError(
            "Both Masks (mask_path) and img2img (mask) give a mask. Remove one of them; on the page, use “Inpaint upload” "
            "without a mask for its settings."
        )
    if len(masks) not in (1, plan.frames):
        raise RequestError(
            f"There are {len(masks)} masks (mask_path) for {plan.frames} frames. Give one for all frames, or one for each, or "
            f"set Number of frames (video_length) to {len(masks)}."
        )
    size = (plan.images or masks)[0].size
    if masks[0].size != size:
        sizes = ["×".join(map(str, each)) for each in (masks[0].size, size)]
        raise RequestError(
            f"The masks (mask_path) are {sizes[0]}, but the pictures of img2img are {sizes[1]}. Make them the same size."
        )
    covered = union(masks, inverted=bool(p.inpainting_mask_invert))
    if (ImageOps.invert(covered) if p.inpainting_mask_invert else covered).getbbox() is None:
        where = "white" if p.inpainting_mask_invert else "black"
        raise RequestError(
            f"All masks (mask_path) are {where} everywhere, so nothing would be painted anew. Correct them, or change Mask "
            "mode (inpainting_mask_invert)."
        )
    if len(masks) == 1:
        return
    if plan.params.last_frame is not None:
        raise RequestError(
            "Last frame (last_frame) cannot be used with a mask for each frame (mask_path). Remove it, or give one mask."
        )
    if _soft_inpainting_is_on(p):
        raise RequestError(
            "Soft inpainting does not work with a mask for each frame (mask_path). Switch it off, or give one mask."
        )


def _soft_inpainting_is_on(p: Any) -> bool:
    """Whether the WebUI's own extension of that name is switched on, by its first control."""
    soft = next((script for script in p.scripts.alwayson_scripts if script.title() == "Soft Inpainting"), None)
    return soft is not None and bool(p.script_args[soft.args_from])


def _require_image(plan: Plan) -> None:
    if plan.family.takes_image and plan.images is None:
        raise RequestError(f"{plan.family.title} animates a picture, and txt2img has none. Use it in img2img.")


def _require_possible_strengths(p: Any, plan: Plan) -> None:
    """Frames with a denoising strength of their own are held at their images until it begins."""
    if plan.denoising_strength is None:
        return
    hindrance = ""
    if plan.denoising_strength == 0:
        hindrance = "is 0 in every frame, so that nothing would change. Raise it in some frames"
    elif isinstance(plan.denoising_strength, tuple) and plan.family.takes_image:
        instead = "Drift from the image (image_drift)" if plan.family.encodes_image else "PIA motion (pia_motion)"
        hindrance = f"does not work with {plan.family.title}, whose frames all start from noise. Use {instead}"
    elif isinstance(plan.denoising_strength, tuple) and _is_painted_over(p, plan):
        hindrance = "needs “original” as Masked content (inpainting_fill), since other contents replace the images. Choose it"
    if hindrance:
        raise RequestError(f"Denoising strength per frame (denoising_strength_frames) {hindrance}, or remove the keyframes.")


def _is_painted_over(p: Any, plan: Plan) -> bool:
    """Whether inpainting fills what masks cover before it begins."""
    return bool(plan.masks or getattr(p, "image_mask", None) is not None) and p.inpainting_fill != ORIGINAL


def _require_windows_of_encoder(plan: Plan) -> None:
    """An image encoder counts frames within their window, and one frame is in several if they cut only the attention."""
    if plan.family.encodes_image and plan.windows.needed and plan.windows_in_attention:
        raise RequestError(
            f"Windows apply to (context_mode) is “{IN_ATTENTION}”, but the image encoder of {plan.family.title} needs whole "
            f"windows. Set it to “{WHOLE}”, or Number of frames (video_length) to {plan.windows.length} or less."
        )


def _require_steps_that_can_be_light(p: Any, plan: Plan) -> None:
    """Few steps are far apart, so that none can use what another one has computed. Distilled modules have few."""
    speed = plan.params.speed
    if speed == EXACT:
        return
    if plan.family.advice.steps_between[1] < LEAST_STEPS:
        raise RequestError(
            f"Speed (speed) is “{speed}”, but {plan.family.title} makes a clip in so few steps that each has to compute "
            f"everything. Set Speed to “{EXACT}”."
        )
    if p.steps < LEAST_STEPS:
        raise RequestError(
            f"Speed (speed) is “{speed}”, which needs at least {LEAST_STEPS} steps, but this request has {p.steps}. Set more "
            f"steps, or Speed to “{EXACT}”."
        )
    of_hires = getattr(p, "hr_sampler_name", None) if getattr(p, "enable_hr", False) else None
    for sampler in (p.sampler_name, of_hires):
        if sampler and sampler.lower().startswith(BACK_AND_FORTH):
            raise RequestError(
                f"Speed (speed) is “{speed}”, which does not work with the sampler {sampler}: it computes some noise levels "
                f"twice. Choose another sampler, or set Speed to “{EXACT}”."
            )


def _require_possible_interpolation(plan: Plan) -> None:
    """The new frames are in memory together with the others."""
    if (count := plan.frames * plan.params.factor) > MOST_FRAMES:
        raise RequestError(
            f"Interpolation factor (interp_x) is {plan.params.factor}, which makes {count} frames of {plan.frames}, but a "
            f"video has at most {MOST_FRAMES}. Lower it, or Number of frames (video_length)."
        )


def _images_left_over(plan: Plan) -> list[str]:
    """Returns a warning if img2img was given more pictures than there are frames."""
    given, frames = len(plan.inputs.init_images or ()), plan.frames
    if given <= frames:
        return []
    used = "only the first is used" if frames == 1 else f"only the first {frames} are used"
    text = (
        f"img2img was given {given} pictures, but {used}, since Number of frames (video_length) is {frames}. "
        f"Set it to {given} to use all."
    )
    return [f"AnimateDiff: {text}"]


def _nothing_written(p: Any, params: Params) -> list[str]:
    """Returns a warning if formats were chosen that exist only as files, and no files are written.

    PNG is among the defaults, so it counts only if there is no video either.
    """
    files = [name for name in ("PNG", "TXT") if name in params.format]
    if _saves(p) or not files or (files == ["PNG"] and len(params.format) > 1):
        return []
    how = "In the API, set save_images to true. On the page, switch on saving in the WebUI's settings"
    return [f"AnimateDiff: Nothing was written for {' and '.join(files)}, since this request saves no files. {how}."]


def _require_usable_last_frame(p: Any, plan: Plan) -> None:
    last, images = plan.params.last_frame, plan.images
    if last is None:
        return
    hindrance, remedy = "", "Remove it."
    if images is None:
        hindrance = "works only in img2img, together with a first one"
    elif plan.family.takes_image:
        hindrance = f"cannot be used with {plan.family.title}, which animates a single picture"
    elif len(images) != 1:
        hindrance = f"needs exactly one first picture, but there are {len(images)}"
    elif plan.frames == 1:
        hindrance = "needs a video of at least two frames"
    elif last.size != images[0].size and _first_image_sets_size(p):
        hindrance = "must have the size of the first one if there is a mask, or for “Just resize (latent upscale)”"
        remedy = "Give it that size, or remove it."
    if hindrance:
        raise RequestError(f"Last frame (last_frame) {hindrance}. {remedy}")


def _first_image_sets_size(p: Any) -> bool:
    """Whether the WebUI crops or masks all images like the first one, or needs latents of one size."""
    return getattr(p, "image_mask", None) is not None or getattr(p, "resize_mode", 0) == LATENT_UPSCALE


def _require_all_frames_within_positions(plan: Plan) -> None:
    for module in plan.descriptions:
        if plan.windows.attended_frames > module.length and plan.params.positional_encoding == "as trained":
            raise RequestError(
                f"The context length is {plan.windows.attended_frames} frames, but {module.path.name} has only {module.length} "
                f"positions. Set Context length (batch_size) to {module.length} or less, or Positional encoding "
                "(positional_encoding) to stretch or extend."
            )


def _require_keyframes_of_units(plan: Plan) -> None:
    for unit in plan.inputs.controls:
        if beyond := [frame for frame in unit.keyframes or () if frame >= plan.frames]:
            raise RequestError(
                f"ControlNet unit {unit.number} has a picture for frame {shown(beyond[0])}, but the {plan.frames} frames of "
                "the video have the numbers from 0. Name an earlier frame, or set a larger Number of frames (video_length)."
            )


def _require_units_with_weights(plan: Plan) -> None:
    enabled = [unit.number for unit in plan.inputs.controls]
    for number in plan.control_weights:
        if number is not None and number not in enabled:
            raise RequestError(
                f"ControlNet weight per frame (controlnet_frames) names unit {number}, but the enabled units are "
                f"{', '.join(map(str, enabled)) or 'none'}. Enable it, or correct its number."
            )


def _require_possible_offload(p: Any, plan: Plan) -> None:
    """Frames can only be offloaded to RAM where layers of the image model see one frame at a time."""
    if not (plan.params.offload and plan.windows.needed and plan.windows_in_attention):
        return
    hindrance = ""
    if plan.family.unet_norms == "over frames":
        hindrance = (
            f"{plan.family.title} normalises over all frames at once. Use another motion module, or switch offloading off"
        )
    elif plan.params.first_frame_attention:
        hindrance = (
            "all frames attend to the first one. Set Attend to the first frame (first_frame_attention) to 0, or switch "
            "offloading off"
        )
    elif plan.inputs.controls or plan.sparse:
        who = "ControlNet" if plan.inputs.controls else "SparseCtrl"
        hindrance = (
            f"{who} adds to the features of all frames. Set Windows apply to (context_mode) to “whole UNet”, or switch "
            "offloading off"
        )
    if hindrance:
        raise RequestError(f"Offload frames to RAM (offload) cannot be used, since {hindrance}.")
    multiple = SIDE_MULTIPLES[plan.family.base]
    if p.width % multiple or p.height % multiple:
        raise RequestError(
            f"Offload frames to RAM (offload) needs a width and a height that are multiples of {multiple}, but the video is "
            f"{p.width}×{p.height}. Change its size, or switch offloading off."
        )


def hypertile_is_on() -> bool:
    """Whether the WebUI cuts pictures into tiles inside the UNet, where rows are no frames then."""
    return any(shared.opts.data.get(name) for name in ("hypertile_enable_unet", "hypertile_enable_unet_secondpass"))


def _require_no_hypertile(plan: Plan) -> None:
    if plan.params.first_frame_attention and hypertile_is_on():
        raise RequestError(
            "Attend to the first frame (first_frame_attention) does not work with Hypertile, which cuts images into tiles. Set "
            "it to 0, or switch off “Enable Hypertile U-Net” in the settings."
        )


def _require_possible_detail(plan: Plan) -> None:
    if not plan.params.details:
        return
    if plan.family.takes_image:
        raise RequestError(
            f"Detail (detail) does not work with {plan.family.title}, which animates one picture and would lose the motion of "
            "the clip. Use another motion module, or set it to “Off”."
        )
    try:
        opencv()
        if plan.params.detector_file:
            yolo_model(detector_files.find(plan.params.detector_file))
    except MissingDependency as error:
        raise RequestError(f"Detail (detail) cannot follow subjects. {error} Or set it to “Off”.") from error
    except CheckpointError as error:
        raise RequestError(f"Detail (detail): {error}") from error
    if plan.params.detail == DRAWN_BOX:
        read_box(plan.params.detail_box)


def _saves(p: Any) -> bool:
    """Whether this request may write files."""
    return bool(shared.opts.samples_save and not p.do_not_save_samples)


def _require_place_to_save(p: Any, params: Params) -> None:
    if _saves(p):
        paths.require_writable(p.outpath_samples)
    elif params.video_delivery == "url" and not all(is_picture(name) for name in params.format):
        raise RequestError(
            'video_delivery is "url", but no file is saved that a URL could point to. '
            'Set save_images to true, or video_delivery to "data".'
        )
