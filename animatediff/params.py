"""The one table of parameters. The panel, the API and its schema, the infotext and `docs/parameters.md` are made from it.

Nothing of the WebUI is imported here. Keys and defaults are those of the established extension's API, so that programs
written for it go on working.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from motion_module.controls import ControlsError, parse_rules
from motion_module.families import FAMILIES
from motion_module.picture import CURVES

from .video.formats import VIDEO_FORMATS

FORMATS = (*VIDEO_FORMATS, "PNG", "TXT")
API_FORMATS = (*FORMATS, "Frame")
MOST_FRAMES = 10_000
"""Each takes its place in memory: of latents, and then of the finished picture."""
MOST_GIF_FPS = 50
"""Browsers take a delay of less than two hundredths of a second for a mistake, and show the GIF slowly."""
DEFAULT_MODULE = "mm_sd15_v3.safetensors"
NO_MODULE = ("", "None")


class RequestError(ValueError):
    """A request cannot be met. The text is for the user: what, with which value, and how to mend it."""


@dataclass(frozen=True)
class Option:
    """What is said of one parameter beside its name, type and default.

    `group`: where the panel shows it: "main", the name of a folded group, or "" for the API alone.
    `lines`: of a text, in the panel. `at_first`: what the panel shows at first, where that is not the default of the API.
    `later`: the feature that a value other than the default asks for, where that feature is not there yet.
    """

    label: str = ""
    help: str = ""
    group: str = ""
    elem_id: str = ""
    minimum: float | None = None
    maximum: float | None = None
    lines: int = 1
    at_first: str | None = None
    choices: tuple[str, ...] = ()
    later: str = ""


def _option(default: Any, **facts: Any) -> Any:
    metadata = {"option": Option(**facts)}
    if isinstance(default, (list, tuple)):
        return dataclasses.field(default=tuple(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


MOTION, SECOND, PICTURE = "Motion", "Second motion module", "PIA"
WINDOWS, TRAVEL, NOISE, FREEINIT = "Context windows", "Prompt travel", "Noise", "FreeInit"
PLAYBACK = "Playback"
AS_FOUND = "as found"
_FROM_VIDEO = "Video input"
_FRAMES_OF_IMAGE = "Frame-by-frame strength in img2img"


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
        help="0: as many as the motion module was trained with.",
    )
    fps: int = _option(8, label="FPS", group="main", elem_id="fps", minimum=1, help="Frames shown in a second.")
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
        choices=("Off", "optical flow"),
        help="Makes the video smoother with new frames along the motion, at as many more frames a second. PNG files are "
        "without them.",
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
    window_mode: str = _option(
        "blend whole frames",
        label="What windows share",
        group=WINDOWS,
        elem_id="window-mode",
        choices=("blend whole frames", "share attention"),
        help="blend whole frames: each window is made by itself, with the memory of one. share attention: all frames are made "
        "at once, and only motion is made in windows, with the memory of all.",
    )
    window_order: str = _option(
        "shifting",
        label="Places of windows",
        group=WINDOWS,
        elem_id="window-order",
        choices=("shifting", "static"),
        help="shifting: other places in each step. static: the same in all.",
    )
    window_fusion: str = _option(
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
    noise_mode: str = _option(
        "per frame",
        label="Noise of the frames",
        group=NOISE,
        elem_id="noise-mode",
        choices=("per frame", "shared", "mixed", "repeated window", "FreeNoise"),
        help="What frames begin with. per frame: each with its own. shared: all with that of the first. mixed: with some of "
        "both. repeated window: with those of the first window again. FreeNoise: so too, but shuffled.",
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
    positions: str = _option(
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
    mix: str = _option(
        "blend",
        label="How they act together",
        group=SECOND,
        elem_id="mix",
        choices=("blend", "chain"),
        help="blend: a mean of both. chain: the second on what the first has made.",
    )
    mix_share: float = _option(
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
    video_source: str = _option("", later=_FROM_VIDEO, help="A video file to start from.")
    video_path: str = _option("", later=_FROM_VIDEO, help="A folder of frames to start from.")
    mask_path: str = _option("", later=_FROM_VIDEO, help="A folder of masks.")
    latent_power: float = _option(1.0, later=_FRAMES_OF_IMAGE, help="img2img: power of the first picture over the frames.")
    latent_scale: float = _option(32.0, later=_FRAMES_OF_IMAGE, help="img2img: scale of the first picture over the frames.")
    last_frame: str = _option("", later="A last frame", help="img2img: the last frame, in base64.")
    latent_power_last: float = _option(1.0, help="As latent_power, for last_frame. Counts only with it.")
    latent_scale_last: float = _option(32.0, help="As latent_scale, for last_frame. Counts only with it.")
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
    def shown_fps(self) -> int:
        """Frames in a second of the finished video."""
        return self.fps * (self.interp_x if self.interp != "Off" else 1)


FIELDS = dataclasses.fields(Params)
IGNORED_KEYS = ("is_i2i_batch", "video_default", "prompt_scheduler", "reverse", "use_main_seed")
"""Keys that the established extension took for its own use, or once took: accepted, without meaning."""


def option_of(field: dataclasses.Field[Any]) -> Option:
    return field.metadata["option"]


PANEL_FIELDS = tuple(field for field in FIELDS if option_of(field).group)


def read_arguments(arguments: Iterable[Any], changes: Mapping[str, Any]) -> tuple[Params, list[str]]:
    """Reads what the WebUI hands a script: the panel's values in order, or the API's dictionary in the first place.

    `changes` count instead of what is there. Returns the parameters and warnings. Raises RequestError where that cannot be met.
    """
    values = list(arguments)
    first = values[0] if values else None
    given = first if isinstance(first, Mapping) else {field.name: value for field, value in zip(PANEL_FIELDS, values)}
    return read_mapping({**given, **changes})


def read_mapping(given: Mapping[str, Any]) -> tuple[Params, list[str]]:
    """Checks a dictionary of parameters. None means the default. A dictionary without `enable` is not enabled.

    Raises RequestError with all that is wrong in it.
    """
    known = {field.name: field for field in FIELDS}
    warnings = [
        f"AnimateDiff does not know the parameter {key!r}; it was ignored."
        for key in given
        if key not in known and key not in IGNORED_KEYS
    ]
    if given.get("enable") is None or not _read_value(known["enable"], given["enable"]):
        return Params(), warnings
    values: dict[str, Any] = {}
    faults: list[str] = []
    for name, value in given.items():
        if name not in known or value is None:
            continue
        try:
            values[name] = _read_value(known[name], value)
        except RequestError as fault:
            faults.append(str(fault))
    if faults:
        raise RequestError(" ".join(faults))
    params = Params(**values)
    _refuse_what_is_not_there_yet(params)
    try:
        parse_rules(params.motion_rules)
    except ControlsError as error:
        raise RequestError(f"Motion rules (motion_rules): {error}") from None
    if params.motion_start >= params.motion_end:
        raise RequestError(
            f"Motion starts at {params.motion_start:g} of the steps (motion_start) and ends at {params.motion_end:g} "
            "(motion_end). The end must come after the start."
        )
    if "GIF" in params.format and params.fps > MOST_GIF_FPS:
        raise RequestError(f"FPS (fps) is {params.fps}, but players show a GIF at {MOST_GIF_FPS} frames a second at most.")
    if "GIF" in params.format and params.shown_fps > MOST_GIF_FPS:
        raise RequestError(
            f"With {params.interp_x} times the frames (interp_x) there are {params.shown_fps} in a second, but players show "
            f"a GIF at {MOST_GIF_FPS} at most. Set interp_x to {MOST_GIF_FPS // params.fps} or less, or choose another format."
        )
    return params, warnings


def _read_value(field: dataclasses.Field[Any], value: Any) -> Any:
    option = option_of(field)
    if field.name == "format":
        return _read_formats(value)
    readers = {"bool": _read_bool, "int": _read_whole_number, "float": _read_number, "str": _read_text}
    name = _spoken_name(field)
    result = readers[str(field.type)](name, value)
    if option.minimum is not None and result < option.minimum:
        raise RequestError(f"{name} is {value}, but must be at least {option.minimum:g}.")
    if option.maximum is not None and result > option.maximum:
        raise RequestError(f"{name} is {value}, but must be at most {option.maximum:g}.")
    if option.choices and result not in option.choices:
        raise RequestError(f"{name} is {value!r}, but must be one of {', '.join(option.choices)}.")
    return result


def _spoken_name(field: dataclasses.Field[Any]) -> str:
    """The key, for programs, behind the label in the panel, where there is one."""
    label = option_of(field).label
    return f"{label} ({field.name})" if label else field.name


def _read_bool(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise RequestError(f"{name} is {value!r}, but must be true or false.")


def _read_number(name: str, value: Any) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(value)
    except (TypeError, ValueError):
        raise RequestError(f"{name} is {value!r}, but must be a number.") from None
    if number != number or abs(number) == float("inf"):
        raise RequestError(f"{name} is {value}, but must be a finite number.")
    return number


def _read_whole_number(name: str, value: Any) -> int:
    number = _read_number(name, value)
    if number != int(number):
        raise RequestError(f"{name} is {value}, but must be a whole number.")
    return int(number)


def _read_text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    raise RequestError(f"{name} is {value!r}, but must be text.")


def _read_formats(value: Any) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise RequestError(f"format is {value!r}, but must be a list of {', '.join(API_FORMATS)}.")
    known = {name.upper(): name for name in API_FORMATS}
    chosen = dict.fromkeys(known.get(name.upper(), name) for name in names)
    problems = format_problems()
    choice = f"Choose from {', '.join(name for name in API_FORMATS if name not in problems)}."
    for name in chosen:
        if name not in API_FORMATS:
            raise RequestError(f"The format {name!r} is unknown. {choice}")
        if name in problems:
            raise RequestError(f"The format {name} cannot be written here: {problems[name]}. {choice}")
    if not chosen:
        raise RequestError(f"No save format is chosen. {choice}")
    return tuple(chosen)


def _refuse_what_is_not_there_yet(params: Params) -> None:
    for field in FIELDS:
        later, value = option_of(field).later, getattr(params, field.name)
        if later and value != field.default:
            raise RequestError(
                f"{later} is not available yet, but {field.name} is {value!r}. Leave {field.name} out, or at {field.default!r}."
            )


def format_problems() -> dict[str, str]:
    """The formats that cannot be written on this machine, and why."""
    return {name: problem for name, video_format in VIDEO_FORMATS.items() if (problem := video_format.problem())}


def schema() -> dict[str, Any]:
    """A JSON schema of the API's dictionary."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "AnimateDiff",
        "type": "object",
        "properties": {field.name: _schema_of(field) for field in FIELDS},
    }


def _schema_of(field: dataclasses.Field[Any]) -> dict[str, Any]:
    option = option_of(field)
    types = {"bool": "boolean", "int": "integer", "float": "number", "str": "string"}
    facts: dict[str, Any] = {"description": option.help, "default": field.default}
    if field.name == "format":
        facts |= {"type": ["array", "string"], "items": {"enum": list(option.choices)}, "default": list(field.default)}
        return facts
    facts["type"] = types[str(field.type)]
    if option.minimum is not None:
        facts["minimum"] = option.minimum
    if option.maximum is not None:
        facts["maximum"] = option.maximum
    if option.choices:
        facts["enum"] = list(option.choices)
    if option.later:
        facts["description"] += " Not available yet: only the default is accepted."
    return facts


def as_markdown() -> str:
    """The table for `docs/parameters.md`."""
    rows = ["| key | type | default | in the panel | meaning |", "|---|---|---|---|---|"]
    for field in FIELDS:
        facts, option = _schema_of(field), option_of(field)
        default = ", ".join(field.default) if isinstance(field.default, tuple) else field.default
        shown = f"`{default}`" if default != "" else "empty"
        kind = "list" if field.name == "format" else str(field.type)
        allowed = f" One of {', '.join(option.choices)}." if option.choices else ""
        rows.append(f"| `{field.name}` | {kind} | {shown} | {option.label} | {facts['description']}{allowed} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(as_markdown(), end="")
