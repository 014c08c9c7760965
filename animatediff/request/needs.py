"""When parameters have an effect: the conditions that the table of parameters (`params.py`) gives them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from ..video.formats import VIDEO_FORMATS, is_picture
from .choices import DRAWN_BOX, EXACT, IN_ATTENTION, MIX, NO_DETAIL, NO_MODULE, RAMP

if TYPE_CHECKING:
    from .params import Params


class Needs(NamedTuple):
    """When a parameter has an effect: in words, and as a condition on the whole request.

    The condition gets the request with its lengths and family filled in, and the number of images that img2img starts from: 0
    in txt2img.
    """

    text: str
    met_by: Callable[[Params, int], bool]


SEVERAL_WINDOWS = Needs("the clip has more frames than the context length", lambda params, _: params.has_windows)
OFFLOADABLE = Needs(
    f"Windows apply to (context_mode) is “{IN_ATTENTION}” and the clip has more frames than the context length",
    lambda params, _: params.context_mode == IN_ATTENTION and params.has_windows,
)
CLOSABLE = Needs(
    "the clip has more frames than the context length; R+P also on keyframes, A in any clip",
    lambda params, _: params.closed_loop != "R-P" or params.has_windows,
)
IN_IMG2IMG = Needs("the video starts from images (img2img)", lambda _, images: images > 0)
WITH_PIA = Needs("the motion module is PIA", lambda params, _: params.family == "pia")
WITH_ENCODER = Needs("the motion module is AnimateLCM-I2V", lambda params, _: params.family == "lcm-i2v")
FROM_IMAGE = Needs(
    "img2img starts from one image and the motion module is neither PIA nor AnimateLCM-I2V",
    lambda params, images: images == 1 and not params.frames_from_source and params.family not in ("pia", "lcm-i2v"),
)
BY_RAMP = Needs(
    f"Image mode (image_mode) is “{RAMP}”, and {FROM_IMAGE.text}",
    lambda params, images: params.image_mode == RAMP and FROM_IMAGE.met_by(params, images),
)
BY_NOISE = Needs(
    f"Image mode (image_mode) is “{MIX}”, and {FROM_IMAGE.text}",
    lambda params, images: params.image_mode == MIX and FROM_IMAGE.met_by(params, images),
)
BY_NOISE_AT_THE_END = Needs(
    f"{BY_NOISE.text}, and there is a last frame (last_frame)",
    lambda params, images: params.last_frame is not None and BY_NOISE.met_by(params, images),
)
WITH_SPARSE = Needs("a SparseCtrl model is chosen", lambda params, _: params.sparse_ctrl not in NO_MODULE)
WITH_ANY_SPARSE = Needs(WITH_SPARSE.text, lambda params, _: bool(params.sparse_asked))
WITH_SPARSE_IN_IMG2IMG = Needs(
    f"{WITH_SPARSE.text} and img2img starts from a picture",
    lambda params, images: images > 0 and WITH_SPARSE.met_by(params, images),
)
WITH_SOURCE = Needs("there is a source video", lambda params, _: bool(params.source))
WITH_SECOND = Needs("a second motion module is chosen", lambda params, _: params.model_2 not in NO_MODULE)
WITH_CAMERA = Needs("a camera module (camera) is chosen", lambda params, _: params.camera not in NO_MODULE)
WITH_LIGHT_STEPS = Needs(f"Speed (speed) is not “{EXACT}”", lambda params, _: params.speed != EXACT)
AS_VIDEO = Needs(
    f"Save format (format) has a video: {', '.join(VIDEO_FORMATS)}",
    lambda params, _: any(name in VIDEO_FORMATS for name in params.format),
)
FOR_PLAYERS = Needs(
    "Save format (format) has MP4 or WEBM", lambda params, _: not all(is_picture(name) for name in params.format)
)
INTERPOLATED = Needs(
    "Frame interpolation (interp) is not “Off”", lambda params, _: params.interp != "Off" and AS_VIDEO.met_by(params, 0)
)
MIXED_NOISE = Needs("Noise type (noise_type) is “mixed”", lambda params, _: params.noise_type == "mixed")
REPEATABLE = Needs(
    "the clip has more frames than the context length; “constant” and “mixed” in any clip",
    lambda params, _: params.noise_type in ("per frame", "constant", "mixed") or params.has_windows,
)
SEVERAL_ITERATIONS = Needs("FreeInit iterations (freeinit_iters) is above 1", lambda params, _: params.freeinit_iters > 1)
WITH_FREEINIT = Needs("Enable FreeInit (freeinit_enable) is on", lambda params, _: params.freeinit_enable)
WITH_DETAIL = Needs(f"Detail (detail) is not “{NO_DETAIL}”", lambda params, _: params.details)
BY_DETECTOR = Needs(
    f"Detail (detail) is neither “{NO_DETAIL}” nor “{DRAWN_BOX}”",
    lambda params, _: params.details and params.detail != DRAWN_BOX,
)
IN_DRAWN_BOX = Needs(f"Detail (detail) is “{DRAWN_BOX}”", lambda params, _: params.detail == DRAWN_BOX)
