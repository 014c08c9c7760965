"""The table of parameters. The panel, the API and its schema, infotexts and `docs/parameters.md` are made from it.

This module imports nothing of the WebUI. Keys and defaults are those of the API of sd-webui-animatediff, so that programs
written for it keep working.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

from PIL import Image

from motion_module.families import FAMILIES
from motion_module.image_encoder import DRIFT
from motion_module.pia import CURVES

from ..video.formats import VIDEO_FORMATS
from . import needs
from .choices import (
    API_FORMATS,
    AS_FOUND,
    DEFAULT_MODULE,
    DETECTED,
    DETECTOR_SUFFIX,
    DRAWN_BOX,
    EXACT,
    FAST,
    FAST_DEEP,
    FAST_NEGATIVE,
    IN_ATTENTION,
    MIX,
    NO_DETAIL,
    NO_MODULE,
    RAMP,
    RIFE,
    WHOLE,
)
from .frame_pictures import FramePicture, SparseAsked
from .needs import Needs

MOST_FRAMES = 10_000
"""All frames are in memory together: first as latents, then as pictures."""
OWN_FPS = 8.0
"""Frames per second where neither the request nor the source video gives a number."""
LEAST_FPS, MOST_FPS = 0.02, 1000.0
"""What every encoder can write: APNG's longest delay is 65 seconds, and WebP, APNG and WebM count time in milliseconds."""
MOST_GIF_FPS = 50
"""Browsers treat a delay of less than two hundredths of a second as an error, and play the GIF slowly."""
DEFAULT_INTERP_X, MOST_INTERP_X = 10, 30
MOST_SUBJECTS = 16


class Group(NamedTuple):
    """A group of controls that the panel shows folded, with its title and element id."""

    title: str
    elem_id: str
    img2img_only: bool = False


MAIN = Group("", "")
"""The controls that are always visible."""
LENGTH = Group("Length and loop", "context-windows")
IMAGE = Group("Image to video", "first-and-last-frame", img2img_only=True)
SPARSE = Group("Pictures at frames (SparseCtrl)", "sparse-ctrl")
VIDEO = Group("Video to video", "source-video")
MOTION = Group("Motion", "motion")
CAMERA = Group("Camera", "camera")
TRAVEL = Group("Prompt travel", "prompt-travel")
PER_FRAME = Group("Per frame", "per-frame")
DETAIL = Group("Detail faces and hands", "detail")
SPEED = Group("Speed", "speed-group")
OUTPUT = Group("Output", "playback")
ADVANCED = Group("Advanced", "advanced")


class Slider(NamedTuple):
    """The range that a slider offers. The API may allow values outside it."""

    minimum: float
    maximum: float
    step: float


@dataclass(frozen=True)
class Option:
    """What the table says about one parameter besides its name, type and default.

    `group`: where the panel shows it; None for the API alone. `section`: the heading that it has inside its group.
    `info`: a short line that the panel shows below the label; `help` is shown as a tooltip. `img2img_only`: whether the panel
    of txt2img hides it. `minimum`, `maximum`: of a number, or of each number in a schedule per frame, which is text;
    `zero_is_auto`: whether 0 is accepted as well. `longest`: of a text, in bytes of UTF-8, which is what file systems limit.
    `lines`: the height of a text box. `slider`: the range of a slider; None for a number field. `shown_default`: the panel's
    first value, if it is not the API's default. `is_saved`: whether presets, infotexts and X/Y/Z plots include it; uploaded
    files are not included.
    `more_choices`: the suffix of files whose names are choices too.
    `needs`: when it has an effect; None for always.
    """

    label: str = ""
    help: str = ""
    group: Group | None = None
    section: str = ""
    elem_id: str = ""
    info: str = ""
    img2img_only: bool = False
    minimum: float | None = None
    maximum: float | None = None
    zero_is_auto: bool = False
    longest: int = 1_000
    slider: Slider | None = None
    lines: int = 1
    placeholder: str = ""
    shown_default: str | float | None = None
    is_saved: bool = True
    choices: tuple[str, ...] = ()
    more_choices: str = ""
    needs: Needs | None = None

    @property
    def is_schedule(self) -> bool:
        """Whether it is a schedule per frame."""
        return self.group is PER_FRAME

    @property
    def of_img2img(self) -> bool:
        """Whether the panel of txt2img hides it."""
        return self.img2img_only or (self.group is not None and self.group.img2img_only)

    @property
    def full_help(self) -> str:
        """The help, with the condition under which the parameter has an effect."""
        return f"{self.help} Has an effect only if {self.needs.text}." if self.needs else self.help


def _option(default: Any, **facts: Any) -> Any:
    metadata = {"option": Option(**facts)}
    if isinstance(default, (list, tuple)):
        return dataclasses.field(default=tuple(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


FRACTION = {"minimum": 0.0, "maximum": 1.0, "slider": Slider(0, 1, 0.01)}
WINDOWS, NOISE, FREEINIT = "Context windows", "Noise", "FreeInit"


def schedule(placeholder: str) -> dict[str, Any]:
    """Returns what the table says about every schedule per frame."""
    return {"group": PER_FRAME, "lines": 2, "longest": 10_000, "placeholder": placeholder}


@dataclass(frozen=True)
class Params:
    """One request. Requests that were read (`reading.py`) have values of the right type and within their range."""

    enable: bool = _option(False, label="AnimateDiff", group=MAIN, elem_id="enable", help="Make a video instead of a still.")
    model: str = _option(
        DEFAULT_MODULE,
        label="Motion module",
        group=MAIN,
        elem_id="motion-module",
        help="The motion module file, as a path below the folder of motion modules.",
    )
    video_length: int = _option(
        0,
        label="Number of frames",
        group=MAIN,
        elem_id="video-length",
        minimum=0,
        maximum=MOST_FRAMES,
        help="The length of the clip. 0: the length of the source video or the batch, or the length that the motion module was "
        "trained on.",
    )
    fps: float = _option(
        0.0,
        label="FPS",
        group=MAIN,
        elem_id="fps",
        minimum=LEAST_FPS,
        maximum=MOST_FPS,
        zero_is_auto=True,
        shown_default=OWN_FPS,
        help="Frames per second. 0: the speed of the source video, or 8 without one.",
    )
    closed_loop: str = _option(
        "R-P",
        label="Closed loop",
        group=MAIN,
        elem_id="closed-loop",
        choices=("N", "R-P", "R+P", "A"),
        shown_default="N",
        needs=needs.CLOSABLE,
        info="N: no loop. R-P: frames loop. R+P: keyframes too. A: also short clips.",
        help="N: no loop. R-P: context windows continue from the last frame to the first. R+P: as R-P, and the last keyframe "
        "of the prompt blends into the first. A: as R+P, in long clips with more windows across the end, and also in a clip "
        "that fits into the context length.",
    )
    format: tuple[str, ...] = _option(
        ("GIF", "PNG"),
        label="Save format",
        group=MAIN,
        elem_id="save-format",
        choices=API_FORMATS,
        help=f"{', '.join(VIDEO_FORMATS)}: the video. PNG: every frame as a file. TXT: the settings as a file. "
        "Frame (API only): every frame in the answer.",
    )
    batch_size: int = _option(
        0,
        label="Context length",
        group=LENGTH,
        elem_id="batch-size",
        minimum=0,
        maximum=MOST_FRAMES,
        slider=Slider(0, 64, 1),
        help="Frames in one context window. A longer clip is made in several overlapping windows. 0: the length that the "
        "motion module was trained on. If the number of frames is 0, this is also the length of the clip.",
    )
    overlap: int = _option(
        -1,
        label="Overlap",
        group=LENGTH,
        elem_id="overlap",
        minimum=-1,
        maximum=MOST_FRAMES - 1,
        slider=Slider(-1, 32, 1),
        needs=needs.SEVERAL_WINDOWS,
        help="The least number of frames that neighbouring windows share. More is smoother and slower. "
        "-1: a quarter of the context length.",
    )
    stride: int = _option(
        1,
        label="Stride",
        group=LENGTH,
        elem_id="stride",
        minimum=1,
        maximum=32,
        slider=Slider(1, 8, 1),
        needs=needs.SEVERAL_WINDOWS,
        help="1: windows of consecutive frames. 2: also windows of every 2nd frame. 3: also of every 4th, and so on. More "
        "keeps distant frames consistent and is slower.",
    )
    image_mode: str = _option(
        MIX,
        label="Image mode",
        group=IMAGE,
        elem_id="image-mode",
        choices=(MIX, RAMP),
        shown_default=RAMP,
        needs=needs.FROM_IMAGE,
        help="strength ramp: the first frame is the image, and denoising gets stronger from frame to frame. blend with noise: "
        "all frames have the same denoising strength, and the image fades into noise.",
    )
    ramp_length: float = _option(
        0.25,
        label="Ramp length",
        group=IMAGE,
        elem_id="image-reach",
        **FRACTION,
        needs=needs.BY_RAMP,
        help="The fraction of the clip in which denoising rises from 0 to the full strength. 0: full strength in every frame.",
    )
    last_frame: Image.Image | None = _option(  # noqa: RUF009
        None,
        label="Last frame",
        group=IMAGE,
        elem_id="last-frame",
        is_saved=False,
        help="An image that the clip ends with. In the API: base64. img2img only.",
    )
    latent_power: float = _option(
        1.0,
        label="Latent power",
        group=IMAGE,
        elem_id="latent-power",
        minimum=0.1,
        maximum=100,
        needs=needs.BY_NOISE,
        help="The weight of the image in a frame is 1 − frame^power / scale. Raise the power to fade the image out sooner.",
    )
    latent_scale: float = _option(
        32.0,
        label="Latent scale",
        group=IMAGE,
        elem_id="latent-scale",
        minimum=0.1,
        maximum=1_000_000_000,
        needs=needs.BY_NOISE,
        help="The scale in the weight of the image, 1 − frame^power / scale. Raise it to keep the image longer.",
    )
    latent_power_last: float = _option(
        1.0,
        label="Latent power (last frame)",
        group=IMAGE,
        elem_id="latent-power-last",
        minimum=0.1,
        maximum=100,
        needs=needs.BY_NOISE_AT_THE_END,
        help="The latent power of the last frame, counted backwards from the end.",
    )
    latent_scale_last: float = _option(
        32.0,
        label="Latent scale (last frame)",
        group=IMAGE,
        elem_id="latent-scale-last",
        minimum=0.1,
        maximum=1_000_000_000,
        needs=needs.BY_NOISE_AT_THE_END,
        help="The latent scale of the last frame, counted backwards from the end.",
    )
    pia_motion: str = _option(
        "moderate motion",
        label="PIA motion",
        group=IMAGE,
        elem_id="pia-motion",
        choices=tuple(CURVES),
        needs=needs.WITH_PIA,
        help="How far frames may move away from the image. For PIA motion modules, in img2img.",
    )
    image_drift: float = _option(
        DRIFT,
        label="Drift from the image",
        group=IMAGE,
        elem_id="image-drift",
        minimum=0,
        maximum=10,
        slider=Slider(0, 1.5, 0.05),
        needs=needs.WITH_ENCODER,
        help="How far frames may drift away from the image. Lower it to keep them closer. For AnimateLCM-I2V, in img2img.",
    )
    sparse_ctrl: str = _option(
        "",
        label="SparseCtrl model",
        group=SPARSE,
        elem_id="sparse-model",
        help="A model that lets pictures at some frames steer the whole clip. An RGB model takes pictures, a scribble model "
        "white lines on black. For Stable Diffusion 1.5, best with a v3 motion module. Empty: off.",
    )
    sparse_pictures: tuple[FramePicture, ...] = _option(
        (),
        label="Pictures",
        group=SPARSE,
        elem_id="sparse-pictures",
        is_saved=False,
        needs=needs.WITH_SPARSE,
        help="One picture or several, from the first frame's on. In the API: a list of pictures in base64, or of objects with "
        "“image” (base64) or “path” (in a folder that the settings allow) and “frame”.",
    )
    sparse_frames: str = _option(
        "",
        label="Frames of the pictures",
        group=SPARSE,
        elem_id="sparse-frames",
        placeholder="empty: spread evenly; or 0, 8, -1",
        needs=needs.WITH_SPARSE,
        help="The frame of each picture in the order of the files, such as 0, 8, -1. Frames count from 0, and -1 is the last "
        "one. Empty: the pictures are spread evenly from the first frame to the last.",
    )
    sparse_init_image: bool = _option(
        False,
        label="The first is img2img's picture",
        group=SPARSE,
        elem_id="sparse-init-image",
        img2img_only=True,
        needs=needs.WITH_SPARSE_IN_IMG2IMG,
        help="The picture of img2img is the picture of the first frame, before those that are uploaded here.",
    )
    sparse_strength: float = _option(
        1.0,
        label="SparseCtrl strength",
        group=SPARSE,
        elem_id="sparse-strength",
        minimum=0,
        maximum=10,
        slider=Slider(0, 2, 0.05),
        needs=needs.WITH_SPARSE,
        help="How strongly the pictures steer. 1: as trained.",
    )
    sparse_start: float = _option(
        0.0,
        label="SparseCtrl start",
        group=SPARSE,
        elem_id="sparse-start",
        **FRACTION,
        needs=needs.WITH_SPARSE,
        help="The fraction of the steps at which the pictures begin to steer.",
    )
    sparse_end: float = _option(
        1.0,
        label="SparseCtrl end",
        group=SPARSE,
        elem_id="sparse-end",
        **FRACTION,
        needs=needs.WITH_SPARSE,
        help="The fraction of the steps at which the pictures stop steering.",
    )
    video_source: str = _option(
        "",
        label="Source video",
        group=VIDEO,
        elem_id="video-source",
        is_saved=False,
        longest=4_096,
        help="A video. In img2img, frames start from it; ControlNet units without a picture take its frames too. In the API: "
        "the path of a file in a folder that the settings allow.",
    )
    video_path: str = _option(
        "",
        label="Path on the server",
        group=VIDEO,
        elem_id="video-path",
        is_saved=False,
        longest=4_096,
        help="Instead of an upload: a video file or a folder of frames, in a folder that the settings allow.",
    )
    source_start: int = _option(
        0,
        label="Skip first frames",
        group=VIDEO,
        elem_id="source-start",
        minimum=0,
        maximum=10_000_000,
        needs=needs.WITH_SOURCE,
        help="The number of frames to skip at the start of the source video.",
    )
    source_stride: int = _option(
        1,
        label="Select every nth frame",
        group=VIDEO,
        elem_id="source-stride",
        minimum=1,
        maximum=10_000,
        needs=needs.WITH_SOURCE,
        help="1: every frame of the source video. 2: every second frame, and so on.",
    )
    source_for_controlnet: bool = _option(
        False,
        label="Only for ControlNet",
        group=VIDEO,
        elem_id="source-for-controlnet",
        needs=needs.WITH_SOURCE,
        help="In img2img, frames start from its picture, and the source video drives only ControlNet, as it does in txt2img.",
    )
    mask_path: str = _option(
        "",
        label="Masks",
        group=VIDEO,
        elem_id="mask-path",
        is_saved=False,
        longest=4_096,
        info="The path of a folder or a video. White is painted anew.",
        help="A folder or a video of masks, one for each frame, or one picture for all, in a folder that the settings allow. "
        "White is painted anew, and black stays; of a transparent picture, what is opaque is painted anew. The settings of "
        "inpainting apply, such as Mask blur. img2img only.",
    )
    motion_scale: float = _option(
        1.0,
        label="Motion scale",
        group=MOTION,
        elem_id="motion-scale",
        minimum=0,
        maximum=10,
        slider=Slider(0, 3, 0.05),
        help="Multiplies the keys of the temporal attention. Above 1: more motion. Below 1: less motion.",
    )
    motion_effect: float = _option(
        1.0,
        label="Motion effect",
        group=MOTION,
        elem_id="motion-effect",
        minimum=-10,
        maximum=10,
        slider=Slider(0, 2, 0.05),
        help="Multiplies the output of the motion module. 0: off. 1: as trained.",
    )
    motion_start: float = _option(
        0.0,
        label="Motion start",
        group=MOTION,
        elem_id="motion-start",
        **FRACTION,
        help="The fraction of the steps at which the motion module is switched on.",
    )
    motion_end: float = _option(
        1.0,
        label="Motion end",
        group=MOTION,
        elem_id="motion-end",
        **FRACTION,
        help="The fraction of the steps at which the motion module is switched off.",
    )
    motion_rules: str = _option(
        "",
        label="Motion rules",
        group=MOTION,
        elem_id="motion-rules",
        lines=2,
        longest=10_000,
        placeholder="up_3: scale 1.2\nmid 0.5-1: effect 0.8",
        help="A different scale or effect for single blocks or steps, one rule per line: up_3: scale 1.2, or "
        "mid 0.5-1: effect 0.8.",
    )
    motion_mask: Image.Image | None = _option(  # noqa: RUF009
        None,
        label="Motion mask",
        group=MOTION,
        elem_id="motion-mask",
        is_saved=False,
        help="A picture of where motion acts: white moves, black holds still, and grey is in between. In the API: base64.",
    )
    motion_mask_path: str = _option(
        "",
        label="Motion masks on the server",
        group=MOTION,
        elem_id="motion-mask-path",
        is_saved=False,
        longest=4_096,
        help="Instead of an upload: a folder or a video of motion masks, one for each frame, or one picture for all, in a "
        "folder that the settings allow.",
    )
    first_frame_attention: float = _option(
        0.0,
        label="Attend to the first frame",
        group=MOTION,
        elem_id="anchor",
        **FRACTION,
        help="How strongly every frame attends to the first one, so that colours and objects stay the same. 0: off.",
    )
    positional_encoding: str = _option(
        "as trained",
        label="Positional encoding",
        group=MOTION,
        elem_id="positions",
        choices=("as trained", "stretch", "extend"),
        help="For a context length above the number of positions that the motion module knows. stretch: interpolates its "
        "positions, which slows the motion down. extend: adds positions after the last one.",
    )
    model_2: str = _option(
        "",
        label="Second motion module",
        group=MOTION,
        elem_id="motion-module-2",
        help="A motion module that is combined with the first one.",
    )
    model_2_mode: str = _option(
        "blend",
        label="Combination",
        group=MOTION,
        elem_id="mix",
        choices=("blend", "chain"),
        needs=needs.WITH_SECOND,
        help="blend: the weighted mean of both modules. chain: the second module is applied to the output of the first.",
    )
    model_2_weight: float = _option(
        0.5,
        label="Weight of the second module",
        group=MOTION,
        elem_id="mix-share",
        **FRACTION,
        needs=needs.WITH_SECOND,
        help="blend: the weight of the second module in the mean. chain: its motion effect.",
    )
    camera: str = _option(
        "",
        label="Camera module",
        group=CAMERA,
        elem_id="camera-module",
        help="CameraCtrl.ckpt, a file in the folder of motion modules that lets the camera move as you say. It was trained "
        "with AnimateDiff v3.",
    )
    camera_strength: float = _option(
        1.0,
        label="Camera strength",
        group=CAMERA,
        elem_id="camera-strength",
        minimum=0,
        maximum=10,
        slider=Slider(0, 2, 0.05),
        needs=needs.WITH_CAMERA,
        help="How closely the video follows the camera. 0: off. 1: as trained.",
    )
    camera_motion: str = _option(
        "",
        label="Camera motion",
        group=CAMERA,
        elem_id="camera-motion",
        lines=3,
        longest=10_000,
        placeholder="0: pan left 0.5\n8: dolly in, tilt up ease",
        needs=needs.WITH_CAMERA,
        help="How the camera moves: pan, tilt, roll, dolly, truck, pedestal, zoom or orbit, each with a direction, a speed and "
        "ease if you like, such as “pan left 0.5 ease”. Speed 1 turns by 30 degrees in 16 frames. A comma joins moves, and a "
        "line such as “8: dolly in” begins at a frame. Empty: the camera stands still.",
    )
    camera_poses: str = _option(
        "",
        label="Pose file",
        group=CAMERA,
        elem_id="camera-poses",
        is_saved=False,
        longest=900_000,
        needs=needs.WITH_CAMERA,
        help="Instead of words: a text file with a pose for each frame, in the form of RealEstate10K. In the API: its text, or "
        "the path of a file in a folder that the settings allow.",
    )
    prompt_interpolation: str = _option(
        "slerp",
        label="Prompt interpolation",
        group=TRAVEL,
        elem_id="prompt-interpolation",
        choices=("slerp", "lerp"),
        info="Write keyframes in the prompt, one per line, for example “8: smiling”.",
        help="How prompts are interpolated between keyframes. slerp: spherical. lerp: linear. Keyframes are lines such as "
        "“8: smiling” in the prompt or the negative prompt.",
    )
    motion_scale_frames: str = _option(
        "",
        label="Motion scale per frame",
        elem_id="motion-scale-frames",
        minimum=0,
        maximum=10,
        **schedule("0: 1\n16: 0.4"),
        help="Keyframes with the motion scale of single frames, such as “0: 1” and “16: 0.4” on two lines, in place of Motion "
        "scale.",
    )
    motion_effect_frames: str = _option(
        "",
        label="Motion effect per frame",
        elem_id="motion-effect-frames",
        minimum=-10,
        maximum=10,
        **schedule("0: 0\n8-12: 1\n100%: 0"),
        help="Keyframes with the motion effect of single frames, such as “0: 0” and “8-12: 1” on two lines, in place of Motion "
        "effect. A frame at 0 gets nothing from the motion module.",
    )
    cfg_scale_frames: str = _option(
        "",
        label="CFG scale per frame",
        elem_id="cfg-scale-frames",
        minimum=0,
        maximum=100,
        **schedule("0: 7\n16: 4"),
        help="Keyframes with the CFG scale of single frames, such as “0: 7” and “16: 4” on two lines, in place of the CFG "
        "scale, also in the hires pass.",
    )
    controlnet_frames: str = _option(
        "",
        label="ControlNet weight per frame",
        elem_id="controlnet-frames",
        minimum=0,
        maximum=10,
        **schedule("0: 1\n16: 0.4"),
        help="Keyframes with what multiplies the control weight of ControlNet's units in single frames, such as “0: 1” and "
        "“16: 0.4” on two lines. What follows a line “unit 1:” is for that unit alone, by ControlNet's number.",
    )
    sparse_strength_frames: str = _option(
        "",
        label="SparseCtrl strength per frame",
        elem_id="sparse-strength-frames",
        minimum=0,
        maximum=10,
        needs=needs.WITH_ANY_SPARSE,
        **schedule("0: 1\n16: 0.4"),
        help="Keyframes with what multiplies the SparseCtrl strength in single frames, such as “0: 1” and “16: 0.4” on two "
        "lines. A frame at 0 is not steered.",
    )
    denoising_strength_frames: str = _option(
        "",
        label="Denoising strength per frame",
        elem_id="denoising-strength-frames",
        minimum=0,
        maximum=1,
        img2img_only=True,
        needs=needs.IN_IMG2IMG,
        **schedule("0: 0.2\n100%: 0.7"),
        help="Keyframes with the denoising strength of single frames, such as “0: 0” and “100%: 0.7” on two lines, in place of "
        "the denoising strength, Image mode and Ramp length. A frame at 0 stays as it is.",
    )
    detail: str = _option(
        NO_DETAIL,
        label="Detail",
        group=DETAIL,
        elem_id="detail-what",
        choices=(NO_DETAIL, *DETECTED, DRAWN_BOX),
        more_choices=DETECTOR_SUFFIX,
        help="What is made again at a larger size in the finished clip: each subject becomes a clip of its own, through the "
        "same motion module. Off: nothing. faces, upper bodies, eyes: what OpenCV finds. box: what is in a box on the first "
        "frame. A file such as face_yolov8n.pt: what this detector of ADetailer finds.",
    )
    detail_box: str = _option(
        "",
        label="Box on the first frame",
        group=DETAIL,
        elem_id="detail-box",
        longest=100,
        placeholder="x, y, width, height",
        needs=needs.IN_DRAWN_BOX,
        help="The subject on the first frame: x and y of the upper left corner, width and height, in pixels of the finished "
        "video, such as 120, 80, 96, 128. It is followed through the clip.",
    )
    detail_most: int = _option(
        2,
        label="Most subjects",
        group=DETAIL,
        elem_id="detail-most",
        minimum=1,
        maximum=MOST_SUBJECTS,
        slider=Slider(1, 8, 1),
        needs=needs.BY_DETECTOR,
        help="How many subjects are detailed, the largest first. Each takes about as long as a clip of its size.",
    )
    detail_confidence: float = _option(
        0.3,
        label="Confidence",
        group=DETAIL,
        elem_id="detail-confidence",
        **FRACTION,
        needs=needs.BY_DETECTOR,
        help="How sure the detector must be. Raise it if something else is detailed, lower it if a subject is missed.",
    )
    detail_prompt: str = _option(
        "",
        label="Detail prompt",
        group=DETAIL,
        elem_id="detail-prompt",
        lines=2,
        longest=10_000,
        placeholder="empty: the prompt of the clip",
        needs=needs.WITH_DETAIL,
        help="The prompt of the subjects, also with LoRAs and keyframes. Empty: the prompt of the clip.",
    )
    detail_negative_prompt: str = _option(
        "",
        label="Detail negative prompt",
        group=DETAIL,
        elem_id="detail-negative-prompt",
        lines=2,
        longest=10_000,
        placeholder="empty: the negative prompt of the clip",
        needs=needs.WITH_DETAIL,
        help="The negative prompt of the subjects. Empty: the negative prompt of the clip.",
    )
    detail_strength: float = _option(
        0.4,
        label="Detail strength",
        group=DETAIL,
        elem_id="detail-strength",
        minimum=0.01,
        maximum=1,
        slider=Slider(0.05, 1, 0.05),
        needs=needs.WITH_DETAIL,
        help="The denoising strength: how far a subject may change.",
    )
    detail_padding: float = _option(
        0.25,
        label="Padding",
        group=DETAIL,
        elem_id="detail-padding",
        minimum=0,
        maximum=2,
        slider=Slider(0, 1, 0.05),
        needs=needs.WITH_DETAIL,
        help="How much of its surroundings is made with a subject, as a fraction of its size. The detail fades out there.",
    )
    detail_steps: int = _option(
        0,
        label="Detail steps",
        group=DETAIL,
        elem_id="detail-steps",
        minimum=0,
        maximum=150,
        slider=Slider(0, 50, 1),
        needs=needs.WITH_DETAIL,
        help="The number of sampling steps for a subject. 0: that of the clip.",
    )
    detail_cfg: float = _option(
        0.0,
        label="Detail CFG scale",
        group=DETAIL,
        elem_id="detail-cfg",
        minimum=0,
        maximum=100,
        slider=Slider(0, 30, 0.5),
        needs=needs.WITH_DETAIL,
        help="How strictly a subject follows its prompt. 0: the CFG scale of the clip.",
    )
    detail_size: int = _option(
        0,
        label="Detail size",
        group=DETAIL,
        elem_id="detail-size",
        minimum=64,
        maximum=2_048,
        zero_is_auto=True,
        slider=Slider(0, 1_024, 64),
        needs=needs.WITH_DETAIL,
        help="The size at which a subject is made, as the side of a square in pixels. 0: the size that the motion module was "
        "trained at.",
    )
    detail_controlnet: bool = _option(
        False,
        label="With ControlNet",
        group=DETAIL,
        elem_id="detail-controlnet",
        needs=needs.WITH_DETAIL,
        help="The ControlNet units without a picture of their own also control the subjects, by what is seen in the finished "
        "clip.",
    )
    speed: str = _option(
        EXACT,
        label="Speed",
        group=SPEED,
        elem_id="speed",
        choices=(EXACT, FAST, FAST_DEEP, FAST_NEGATIVE),
        info="Fast: about 60 % of the image model's arithmetic at 20 steps.",
        help="Exact: every step computes everything. Fast: light steps compute only the outer blocks of the image model, and "
        "leave out the negative prompt; the rest comes from the full step before them. The other choices do one of the two.",
    )
    speed_every: int = _option(
        2,
        label="A full step every … steps",
        group=SPEED,
        elem_id="speed-every",
        minimum=2,
        maximum=10,
        slider=Slider(2, 5, 1),
        needs=needs.WITH_LIGHT_STEPS,
        help="2: every second step is full. 3: every third, and so on. More is faster and further from the exact clip.",
    )
    interp: str = _option(
        "Off",
        label="Frame interpolation",
        group=OUTPUT,
        elem_id="interp-choice",
        choices=("Off", "optical flow", RIFE),
        needs=needs.AS_VIDEO,
        help="Inserts new frames between the frames of the video and raises its FPS to match. PNG files do not include them. "
        "RIFE must be installed, see “Frame interpolation” in docs/guide.md.",
    )
    interp_x: int = _option(
        DEFAULT_INTERP_X,
        label="Interpolation factor",
        group=OUTPUT,
        elem_id="interp-x",
        minimum=1,
        maximum=MOST_INTERP_X,
        slider=Slider(1, MOST_INTERP_X, 1),
        shown_default=3,
        needs=needs.INTERPOLATED,
        help="Multiplies the number of frames and the FPS of the video. 10 is lowered to what the format can play.",
    )
    loop_number: int = _option(
        0,
        label="Times to play",
        group=OUTPUT,
        elem_id="loop-number",
        minimum=0,
        maximum=65_535,
        needs=needs.AS_VIDEO,
        help="How many times the video plays. 0: forever.",
    )
    family: str = _option(
        AS_FOUND,
        label="Family",
        group=ADVANCED,
        elem_id="family",
        choices=(AS_FOUND, *FAMILIES),
        help="The kind of motion module. Choose it if the file is taken for a different kind.",
    )
    context_mode: str = _option(
        WHOLE,
        label="Windows apply to",
        group=ADVANCED,
        section=WINDOWS,
        elem_id="window-mode",
        choices=(WHOLE, IN_ATTENTION),
        needs=needs.SEVERAL_WINDOWS,
        help="whole UNet: each window runs through the UNet by itself, which needs the memory of one window. motion attention: "
        "all frames run through the UNet together and only the temporal attention is windowed, which needs the memory of all.",
    )
    offload: bool = _option(
        False,
        label="Offload frames to RAM",
        group=ADVANCED,
        section=WINDOWS,
        elem_id="offload",
        needs=needs.OFFLOADABLE,
        help="Keeps only the frames in use on the GPU. Longer clips fit into memory, and sampling is slower.",
    )
    context_schedule: str = _option(
        "uniform",
        label="Context schedule",
        group=ADVANCED,
        section=WINDOWS,
        elem_id="window-order",
        choices=("uniform", "static"),
        needs=needs.SEVERAL_WINDOWS,
        help="uniform: windows move from step to step. static: windows are the same in every step.",
    )
    fuse_method: str = _option(
        "pyramid",
        label="Fuse method",
        group=ADVANCED,
        section=WINDOWS,
        elem_id="window-fusion",
        choices=("pyramid", "flat", "overlap-linear"),
        needs=needs.SEVERAL_WINDOWS,
        help="How overlapping windows are averaged. pyramid: the middle of a window counts most. flat: all frames count the "
        "same. overlap-linear: weights fall off only at the ends.",
    )
    noise_type: str = _option(
        "per frame",
        label="Noise type",
        group=ADVANCED,
        section=NOISE,
        elem_id="noise-mode",
        needs=needs.REPEATABLE,
        choices=("per frame", "constant", "mixed", "repeated context", "FreeNoise"),
        help="The initial noise. per frame: different in every frame. constant: the same in all. mixed: a mixture of both. "
        "repeated context: the noise of the first window again in every window. FreeNoise: repeated and shuffled.",
    )
    noise_share: float = _option(
        0.5,
        label="Shared noise",
        group=ADVANCED,
        section=NOISE,
        elem_id="noise-share",
        **FRACTION,
        needs=needs.MIXED_NOISE,
        help="The share of the first frame's noise in mixed noise. Raise it for less flicker.",
    )
    freeinit_enable: bool = _option(
        False,
        label="Enable FreeInit",
        group=ADVANCED,
        section=FREEINIT,
        elem_id="freeinit-enable",
        needs=needs.SEVERAL_ITERATIONS,
        help="Makes the video several times, each time from the low frequencies of the last result. The video gets steadier, "
        "and sampling takes longer. txt2img only.",
    )
    freeinit_fast: bool = _option(
        False,
        label="Fast sampling",
        group=ADVANCED,
        section=FREEINIT,
        elem_id="freeinit-fast",
        needs=needs.WITH_FREEINIT,
        help="Uses fewer steps in all iterations but the last. Three iterations then take two thirds of the time.",
    )
    freeinit_iters: int = _option(
        3,
        label="FreeInit iterations",
        group=ADVANCED,
        section=FREEINIT,
        elem_id="freeinit-iters",
        minimum=1,
        maximum=10,
        slider=Slider(1, 10, 1),
        needs=needs.WITH_FREEINIT,
        help="How many times the video is made. More is steadier and slower.",
    )
    freeinit_filter: str = _option(
        "butterworth",
        label="FreeInit filter",
        group=ADVANCED,
        section=FREEINIT,
        elem_id="freeinit-filter",
        choices=("butterworth", "gaussian", "box", "ideal"),
        needs=needs.WITH_FREEINIT,
        help="The low-pass filter. butterworth and gaussian: soft edges. box and ideal: sharp edges.",
    )
    freeinit_ds: float = _option(
        0.25,
        label="Spatial cutoff",
        group=ADVANCED,
        section=FREEINIT,
        elem_id="freeinit-ds",
        **FRACTION,
        needs=needs.WITH_FREEINIT,
        help="The cutoff of the filter within a frame, as a fraction of the highest frequency. More keeps finer detail.",
    )
    freeinit_dt: float = _option(
        0.25,
        label="Temporal cutoff",
        group=ADVANCED,
        section=FREEINIT,
        elem_id="freeinit-dt",
        **FRACTION,
        needs=needs.WITH_FREEINIT,
        help="The cutoff of the filter along time, as a fraction of the highest frequency. More keeps faster motion.",
    )
    sparse_more: tuple[SparseAsked, ...] = _option(
        (),
        help="More SparseCtrl models that act at the same time: a list of objects with the keys sparse_ctrl, sparse_pictures, "
        "sparse_frames, sparse_init_image, sparse_strength, sparse_start and sparse_end.",
    )
    request_id: str = _option("", longest=200, help="A text that is added to file names after the seed.")
    video_delivery: str = _option(
        "data",
        choices=("data", "url"),
        needs=needs.FOR_PLAYERS,
        help="How the API returns MP4 and WebM. data: in images, as base64. url: as links in info, for programs that open "
        "everything in images as a picture.",
    )

    @property
    def sparse_asked(self) -> tuple[SparseAsked, ...]:
        """What is asked of each SparseCtrl model: none, one, or several."""
        if self.sparse_ctrl in NO_MODULE:
            return self.sparse_more
        first = SparseAsked(
            self.sparse_ctrl,
            self.sparse_pictures,
            self.sparse_frames,
            self.sparse_init_image,
            self.sparse_strength,
            self.sparse_start,
            self.sparse_end,
        )
        return (first, *self.sparse_more)

    @property
    def details(self) -> bool:
        """Whether subjects of the finished clip are made again."""
        return self.detail != NO_DETAIL

    @property
    def detector_file(self) -> str:
        """The file whose detector finds subjects; empty if something else does."""
        return self.detail if self.detail.endswith(DETECTOR_SUFFIX) else ""

    @property
    def has_windows(self) -> bool:
        """Whether the clip needs several context windows, once its length and the context length are known."""
        return 0 < self.batch_size < self.video_length

    @property
    def loops(self) -> bool:
        """Whether context windows continue from the last frame to the first, once both lengths are known."""
        return self.video_length > 1 if self.closed_loop == "A" else self.closed_loop != "N" and self.has_windows

    @property
    def prompts_loop(self) -> bool:
        """Whether the last keyframe of a prompt blends into the first one."""
        return self.closed_loop in ("R+P", "A")

    @property
    def source(self) -> str:
        """The path of the source video or folder of frames; empty if there is none."""
        return self.video_source or self.video_path

    @property
    def frames_from_source(self) -> bool:
        """Whether img2img starts from the frames of the source video."""
        return bool(self.source) and not self.source_for_controlnet

    @property
    def factor(self) -> int:
        """By which interpolation multiplies the frames, once FPS is known. The default is lowered to what formats can play."""
        if self.interp == "Off":
            return 1
        fits = max(1, int(self.most_fps / self.fps))
        return min(fits, self.interp_x) if self.interp_x == DEFAULT_INTERP_X else self.interp_x

    @property
    def most_fps(self) -> float:
        """The most frames per second that all chosen formats can play."""
        return MOST_GIF_FPS if "GIF" in self.format else MOST_FPS

    @property
    def shown_fps(self) -> float:
        """Frames per second of the finished video, with interpolated frames."""
        return self.fps * self.factor


FIELDS = dataclasses.fields(Params)


def option_of(field: dataclasses.Field[Any]) -> Option:
    """Returns what the table says about a field of Params."""
    return field.metadata["option"]


def default_of(field: dataclasses.Field[Any]) -> Any:
    """Returns the API's default of a field of Params."""
    return field.default


PANEL_FIELDS = tuple(field for field in FIELDS if option_of(field).group is not None)
SAVED_FIELDS = tuple(field for field in PANEL_FIELDS if option_of(field).is_saved)


def first_value(field: dataclasses.Field[Any]) -> Any:
    """Returns the value that the panel shows first."""
    option = option_of(field)
    return default_of(field) if option.shown_default is None else option.shown_default


def without_img2img(params: Params) -> Params:
    """Returns the request with defaults for all parameters that the panel of txt2img does not show."""
    hidden = [field for field in SAVED_FIELDS if option_of(field).of_img2img]
    return dataclasses.replace(params, **{field.name: default_of(field) for field in hidden})
