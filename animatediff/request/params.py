"""The one table of parameters. The panel, the API and its schema, the infotext and `docs/parameters.md` are made from it.

Nothing of the WebUI is imported here. Keys and defaults are those of the established extension's API, so that programs
written for it go on working.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from PIL import Image

from motion_module.families import FAMILIES
from motion_module.pia import CURVES

from ..video.formats import VIDEO_FORMATS

FORMATS = (*VIDEO_FORMATS, "PNG", "TXT")
API_FORMATS = (*FORMATS, "Frame")
MOST_FRAMES = 10_000
"""Each takes its place in memory: of latents, and then of the finished picture."""
DEFAULT_MODULE = "mm_sd15_v3.safetensors"
NO_MODULE = ("", "None")
RIFE = "RIFE"
OWN_FPS = 8.0
"""Of a video whose request leaves it open, and whose source does not say it."""


@dataclass(frozen=True)
class Option:
    """What is said of one parameter beside its name, type and default.

    `group`: where the panel shows it: "main", the name of a folded group, or "" for the API alone.
    `lines`: of a text, in the panel. `at_first`: what the panel shows at first, where that is not the default of the API.
    `kept`: whether presets, infotexts and plots have it; a file of this moment is nothing to come back to.
    `later`: the feature that a value other than the default asks for, where that feature is not there yet.
    """

    label: str = ""
    help: str = ""
    group: str = ""
    elem_id: str = ""
    minimum: float | None = None
    maximum: float | None = None
    lines: int = 1
    at_first: str | float | None = None
    kept: bool = True
    choices: tuple[str, ...] = ()
    later: str = ""


def _option(default: Any, **facts: Any) -> Any:
    metadata = {"option": Option(**facts)}
    if isinstance(default, (list, tuple)):
        return dataclasses.field(default=tuple(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


MOTION, SECOND, PICTURE = "Motion", "Second motion module", "PIA"
GIVEN, SOURCE = "First and last frame", "Source video"
ONLY_IMG2IMG = (PICTURE, GIVEN, SOURCE)
"""Groups that the panel of txt2img does not show."""
WINDOWS, TRAVEL, NOISE, FREEINIT = "Context windows", "Prompt travel", "Noise", "FreeInit"
PLAYBACK = "Playback"
AS_FOUND = "auto"
MIX = "blend with noise"
IN_ATTENTION = "motion attention"
_OF_MASKS = "Masks of the frames"


@dataclass(frozen=True)
class Params:
    """One request, checked: every value has its type and is within its range."""

    enable: bool = _option(False, label="AnimateDiff", group="main", elem_id="enable", help="Make a video.")
    model: str = _option(
        DEFAULT_MODULE,
        label="Motion module",
        group="main",
        elem_id="motion-module",
        help="A file in the folder for motion modules, by its path below that folder.",
    )
    video_length: int = _option(
        0,
        label="Number of frames",
        group="main",
        elem_id="video-length",
        minimum=0,
        maximum=MOST_FRAMES,
        help="0: as many as the source video or the pictures of img2img have, else as the motion module was trained with.",
    )
    fps: float = _option(
        0.0,
        label="FPS",
        group="main",
        elem_id="fps",
        minimum=0,
        at_first=OWN_FPS,
        help="Frames shown in a second. 0: as the source video shows them, else 8.",
    )
    format: tuple[str, ...] = _option(
        ("GIF", "PNG"),
        label="Save format",
        group="main",
        elem_id="save-format",
        choices=API_FORMATS,
        help=f"{', '.join(VIDEO_FORMATS)}: the video. PNG: every frame as a file. TXT: how it was made, as a file. "
        "Frame (API): every frame in the answer.",
    )
    loop_number: int = _option(
        0,
        label="Display loop number",
        group=PLAYBACK,
        elem_id="loop-number",
        minimum=0,
        help="How often the animation plays. 0 is for ever.",
    )
    interp: str = _option(
        "Off",
        label="Frames in between",
        group=PLAYBACK,
        elem_id="interp-choice",
        choices=("Off", "optical flow", RIFE),
        help="Makes the video smoother with new frames along the motion, at as many more frames a second. PNG files are "
        "without them. RIFE has to be installed, see the README.",
    )
    interp_x: int = _option(
        10,
        label="Times",
        group=PLAYBACK,
        elem_id="interp-x",
        minimum=1,
        maximum=30,
        help="How many frames there are then for one.",
    )
    batch_size: int = _option(
        0,
        label="Frames in a window",
        group=WINDOWS,
        elem_id="batch-size",
        minimum=0,
        help="How many frames are made together; a longer video is made in such windows, which overlap and are blended. "
        "0: as many as the motion module was trained with. Where the number of frames is 0, also that.",
    )
    overlap: int = _option(
        -1,
        label="Overlap",
        group=WINDOWS,
        elem_id="overlap",
        minimum=-1,
        help="How many frames neighbouring windows share at least. -1: a quarter of a window.",
    )
    stride: int = _option(
        1,
        label="Stride",
        group=WINDOWS,
        elem_id="stride",
        minimum=1,
        help="1: windows of frames that follow each other. 2, 3, …: also windows of every second frame, every fourth, …",
    )
    closed_loop: str = _option(
        "R-P",
        label="Closed loop",
        group=WINDOWS,
        elem_id="closed-loop",
        choices=("N", "R-P", "R+P", "A"),
        at_first="N",
        help="N: the video has a start and an end. R-P: windows go on over its end, so that it loops. R+P: prompts too. "
        "A: as R+P, with more windows over the end.",
    )
    context_mode: str = _option(
        "whole UNet",
        label="What windows share",
        group=WINDOWS,
        elem_id="window-mode",
        choices=("whole UNet", IN_ATTENTION),
        help="whole UNet: each window is made by itself, with the memory of one. motion attention: all frames are made "
        "at once, and only motion is made in windows, with the memory of all.",
    )
    offload: bool = _option(
        False,
        label="Frames wait in RAM",
        group=WINDOWS,
        elem_id="offload",
        help="motion attention: the GPU holds only the frames that are worked on, so videos can be longer, and take longer.",
    )
    context_schedule: str = _option(
        "uniform",
        label="Places of windows",
        group=WINDOWS,
        elem_id="window-order",
        choices=("uniform", "static"),
        help="uniform: other places in each step. static: the same in all.",
    )
    fuse_method: str = _option(
        "pyramid",
        label="Blending of windows",
        group=WINDOWS,
        elem_id="window-fusion",
        choices=("pyramid", "flat", "overlap-linear"),
        help="How much a window counts for a frame. pyramid: more in its middle. flat: as much everywhere. "
        "overlap-linear: as much everywhere but for its ends.",
    )
    prompt_interpolation: str = _option(
        "slerp",
        label="Between keyframes",
        group=TRAVEL,
        elem_id="prompt-interpolation",
        choices=("slerp", "lerp"),
        help="How the prompt goes from one keyframe to the next: slerp: along an arc. lerp: along a line. Keyframes are lines "
        "such as “8: smiling” in the prompt or the negative prompt.",
    )
    noise_type: str = _option(
        "per frame",
        label="Noise of the frames",
        group=NOISE,
        elem_id="noise-mode",
        choices=("per frame", "constant", "mixed", "repeated context", "FreeNoise"),
        help="What frames begin with. per frame: each with its own. constant: all with that of the first. mixed: with some of "
        "both. repeated context: with those of the first window again. FreeNoise: so too, but shuffled.",
    )
    noise_share: float = _option(
        0.5,
        label="Shared part",
        group=NOISE,
        elem_id="noise-share",
        minimum=0.0,
        maximum=1.0,
        help="For mixed noise: how much of it is that of the first frame.",
    )
    freeinit_enable: bool = _option(
        False,
        label="Use FreeInit",
        group=FREEINIT,
        elem_id="freeinit-enable",
        help="Makes the video several times in txt2img, each time from what was slow in the one before: steadier, and slower.",
    )
    freeinit_fast: bool = _option(
        False,
        label="Fewer steps at first",
        group=FREEINIT,
        elem_id="freeinit-fast",
        help="Only the last round takes all steps: two thirds of the time with three rounds.",
    )
    freeinit_iters: int = _option(
        3, label="Rounds", group=FREEINIT, elem_id="freeinit-iters", minimum=1, maximum=10, help="How often it is made."
    )
    freeinit_ds: float = _option(
        0.25,
        label="Spatial cut-off",
        group=FREEINIT,
        elem_id="freeinit-ds",
        minimum=0.0,
        maximum=1.0,
        help="Up to which part of the highest frequency in a frame something is kept.",
    )
    freeinit_dt: float = _option(
        0.25,
        label="Temporal cut-off",
        group=FREEINIT,
        elem_id="freeinit-dt",
        minimum=0.0,
        maximum=1.0,
        help="Up to which part of the highest frequency along the frames something is kept.",
    )
    freeinit_filter: str = _option(
        "butterworth",
        label="Filter",
        group=FREEINIT,
        elem_id="freeinit-filter",
        choices=("butterworth", "gaussian", "box", "ideal"),
        help="How sharply that ends.",
    )
    motion_scale: float = _option(
        1.0,
        label="Motion scale",
        group=MOTION,
        elem_id="motion-scale",
        minimum=0.0,
        help="Multiplies the keys of the temporal attention: above 1 frames differ more, below 1 less.",
    )
    motion_effect: float = _option(
        1.0,
        label="Motion effect",
        group=MOTION,
        elem_id="motion-effect",
        help="How much of what the motion module adds is added: 0 is off, 1 as trained.",
    )
    motion_start: float = _option(
        0.0,
        label="Motion starts at",
        group=MOTION,
        elem_id="motion-start",
        minimum=0.0,
        maximum=1.0,
        help="Share of the steps (0 to 1) before which the motion module is off.",
    )
    motion_end: float = _option(
        1.0,
        label="Motion ends at",
        group=MOTION,
        elem_id="motion-end",
        minimum=0.0,
        maximum=1.0,
        help="Share of the steps (0 to 1) from which on the motion module is off.",
    )
    motion_rules: str = _option(
        "",
        label="Motion rules",
        group=MOTION,
        elem_id="motion-rules",
        lines=3,
        help="Other scale or effect for single blocks or steps, one rule a line: up_3: scale 1.2, or mid 0.5-1: effect 0.8.",
    )
    first_frame_attention: float = _option(
        0.0,
        label="Attend to the first frame",
        group=MOTION,
        elem_id="anchor",
        minimum=0.0,
        maximum=1.0,
        help="How much every frame looks at the first one, so that colours and things stay as they are there. 0 is off.",
    )
    positional_encoding: str = _option(
        "as trained",
        label="Positions",
        group=MOTION,
        elem_id="positions",
        choices=("as trained", "stretch", "extend"),
        help="For more frames at once than were trained. stretch: the trained motion, drawn out. "
        "extend: positions beyond the last.",
    )
    family: str = _option(
        AS_FOUND,
        label="Family",
        group=MOTION,
        elem_id="family",
        choices=(AS_FOUND, *FAMILIES),
        help="What the motion module is, where its file is taken for something else.",
    )
    model_2: str = _option(
        "",
        label="Second motion module",
        group=SECOND,
        elem_id="motion-module-2",
        help="A second motion module that acts together with the first.",
    )
    model_2_mode: str = _option(
        "blend",
        label="How they act together",
        group=SECOND,
        elem_id="mix",
        choices=("blend", "chain"),
        help="blend: a mean of both. chain: the second on what the first has made.",
    )
    model_2_weight: float = _option(
        0.5,
        label="Share of the second",
        group=SECOND,
        elem_id="mix-share",
        minimum=0.0,
        maximum=1.0,
        help="blend: its weight in the mean. chain: its effect.",
    )
    pia_motion: str = _option(
        "moderate motion",
        label="Motion of the picture",
        group=PICTURE,
        elem_id="pia-motion",
        choices=tuple(CURVES),
        help="For a motion module of PIA, in img2img: how far the frames may go from the picture.",
    )
    image_mode: str = _option(
        MIX,
        label="How frames leave the picture",
        group=GIVEN,
        elem_id="image-mode",
        choices=(MIX, "strength ramp"),
        at_first="strength ramp",
        help="With one picture in img2img. strength ramp: the first frame is the picture, and others are denoised the "
        "more the further on they are. blend with noise: all are denoised alike, from a picture that fades into noise.",
    )
    ramp_length: float = _option(
        0.25,
        label="Reach of the picture",
        group=GIVEN,
        elem_id="image-reach",
        minimum=0.0,
        maximum=1.0,
        help="strength ramp: which part of the video it takes from the picture to all of the denoising strength. "
        "0: every frame has all of it.",
    )
    last_frame: Image.Image | None = _option(  # noqa: RUF009
        None,
        label="Last frame",
        group=GIVEN,
        elem_id="last-frame",
        kept=False,
        help="img2img: where the video ends, in base64.",
    )
    latent_power: float = _option(
        1.0,
        label="Latent power",
        group=GIVEN,
        elem_id="latent-power",
        minimum=0.1,
        help="blend with noise: of the picture, 1 − frame^power / scale is left.",
    )
    latent_scale: float = _option(
        32.0, label="Latent scale", group=GIVEN, elem_id="latent-scale", minimum=0.1, help="blend with noise: the scale in it."
    )
    latent_power_last: float = _option(
        1.0,
        label="Latent power of the last frame",
        group=GIVEN,
        elem_id="latent-power-last",
        minimum=0.1,
        help="blend with noise: likewise, counted from the last frame.",
    )
    latent_scale_last: float = _option(
        32.0,
        label="Latent scale of the last frame",
        group=GIVEN,
        elem_id="latent-scale-last",
        minimum=0.1,
        help="blend with noise: likewise, counted from the last frame.",
    )
    video_source: str = _option(
        "",
        label="Video",
        group=SOURCE,
        elem_id="video-source",
        kept=False,
        help="The path of a video file whose frames img2img starts from, in place of pictures. It must lie in a folder that "
        "the settings allow. The page uploads one.",
    )
    video_path: str = _option(
        "",
        label="Or a path on the server",
        group=SOURCE,
        elem_id="video-path",
        kept=False,
        help="A folder of frames, or a video file, in a folder that the settings allow.",
    )
    source_start: int = _option(
        0,
        label="First frame of the source",
        group=SOURCE,
        elem_id="source-start",
        minimum=0,
        help="How many frames of the source are left out before it.",
    )
    source_stride: int = _option(
        1,
        label="Every n-th frame of the source",
        group=SOURCE,
        elem_id="source-stride",
        minimum=1,
        help="1: every frame. 2: every second, and so on.",
    )
    mask_path: str = _option("", later=_OF_MASKS, help="A folder of masks.")
    request_id: str = _option("", help="Put behind the seed in file names.")
    video_delivery: str = _option(
        "data",
        choices=("data", "url"),
        help="How MP4 and WebM reach a program: in images, or as links in info, for programs that open all images as pictures.",
    )

    @property
    def loops(self) -> bool:
        """Whether windows go on over the end of the video, once its length and theirs are known."""
        return self.closed_loop != "N" and 0 < self.batch_size < self.video_length

    @property
    def prompts_loop(self) -> bool:
        """Whether the last keyframe of a prompt goes over into the first."""
        return self.closed_loop in ("R+P", "A")

    @property
    def source(self) -> str:
        """The path of the video or folder of frames that img2img starts from; empty where it starts from pictures."""
        return self.video_source or self.video_path

    @property
    def shown_fps(self) -> float:
        """Frames in a second of the finished video."""
        return self.fps * (self.interp_x if self.interp != "Off" else 1)


FIELDS = dataclasses.fields(Params)


def option_of(field: dataclasses.Field[Any]) -> Option:
    return field.metadata["option"]


PANEL_FIELDS = tuple(field for field in FIELDS if option_of(field).group)
KEPT_FIELDS = tuple(field for field in PANEL_FIELDS if option_of(field).kept)


def without_img2img(params: Params) -> Params:
    """What txt2img has no controls for, as it is when nobody asks for it."""
    names = [field.name for field in KEPT_FIELDS if option_of(field).group in ONLY_IMG2IMG]
    return dataclasses.replace(params, **{field.name: field.default for field in FIELDS if field.name in names})
