"""The pictures that ControlNet's units take: one for each frame, or for some frames.

A unit without a picture of its own takes, in this order: the pictures of its folder, the pictures of img2img, the frames of the
source video. A folder is given as ControlNet's text: the folder in the first line, then `mask:` with a folder of masks and
`keyframe:` with the frames that its pictures are for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from motion_module.errors import MissingDependency, UnreadableVideo
from motion_module.pictures import Frame
from motion_module.video_reader import Video

from ..errors import RequestError, reason, shown
from ..request import source_video
from ..request.params import MOST_FRAMES, Params

Origin = Literal["own", "folder", "img2img", "source video"]
FOLDER_MODE, MERGE_MODE = "batch", "merge"
"""The values of ControlNet's input mode in which a unit has a folder, and some pictures that it merges."""


@dataclass(frozen=True)
class Folder:
    """The pictures of a unit's folder, as they were read. `masks`: None, or one for each picture.

    `keyframes`: the frames that they are for; None if each frame has one.
    """

    pictures: list[Frame]
    masks: list[Frame] | None
    keyframes: tuple[int, ...] | None


@dataclass(frozen=True)
class Unit:
    """An enabled unit. `number`: ControlNet's. `origin`: where its pictures come from. `folder`: what it has of them.

    `copies`: how many units ControlNet makes of it, one for each picture that it was given to merge.
    """

    number: int
    module: str
    model: str
    origin: Origin
    folder: Folder | None = None
    copies: int = 1

    @property
    def pictures(self) -> list[Frame]:
        """The pictures of its folder."""
        return self.folder.pictures if self.folder else []

    @property
    def keyframes(self) -> tuple[int, ...] | None:
        """The frames that its pictures are for; None if each frame has one."""
        return self.folder.keyframes if self.folder else None

    @property
    def follows_frames(self) -> bool:
        """Whether it has a picture for each frame, or for some."""
        return self.origin != "own"


def units_with_pictures(units: list[tuple[int, Any]], params: Params, init_images: list[Any] | None) -> tuple[Unit, ...]:
    """Returns the enabled units with the pictures of their folders.

    `units`: ControlNet's, with their numbers. `init_images`: the images of img2img; None in txt2img. Raises RequestError for a
    unit that needs a picture and has none, and for a folder that cannot be read.
    """
    found = []
    for number, unit in units:
        origin = origin_of(unit, params, init_images)
        if origin is None:
            raise RequestError(
                f"ControlNet unit {number} ({unit.module}) has no picture. Give it one, or a folder of pictures (batch), or "
                "set a source video (video_source, video_path), whose frames it takes."
            )
        if origin == "img2img" and _is_given(unit.mask):
            raise RequestError(
                f"ControlNet unit {number} has a mask, but takes the pictures of img2img. Give img2img the mask (mask, "
                "mask_path), or the unit a picture or a folder."
            )
        name = f"ControlNet unit {number}"
        folder = _read_folder(str(unit.batch_images), name, params.video_length) if origin == "folder" else None
        found.append(Unit(number, unit.module, unit.model, origin, folder, _copies(unit)))
    return tuple(found)


def origin_of(unit: Any, params: Params, init_images: list[Any] | None) -> Origin | None:
    """Returns where a unit's pictures come from; None if it needs one and has none."""
    if unit.ipadapter_input is not None:
        return "own"
    if unit.input_mode.value == FOLDER_MODE:
        return "folder" if str(unit.batch_images or "").strip() else None
    if unit.input_mode.value == MERGE_MODE and not unit.accepts_multiple_inputs:
        return "own" if isinstance(unit.image, list) and unit.image else None
    if _is_given(unit.image):
        return "own"
    if init_images is not None and (params.frames_from_source or len(init_images) > 1):
        return "img2img"
    if params.source:
        return "source video"
    if init_images and params.mask_path and unit.is_inpaint:  # the same picture, with a mask for each frame
        return "img2img"
    return "own" if init_images else None


def _is_given(picture: Any) -> bool:
    """Returns whether a unit has a picture or a mask: a text, an array, or others. The library webuiapi sends "" for none."""
    return picture is not None and not (isinstance(picture, str) and not picture)


def _copies(unit: Any) -> int:
    return len(unit.image) if unit.input_mode.value == MERGE_MODE and not unit.accepts_multiple_inputs else 1


def _read_folder(text: str, unit: str, frames: int) -> Folder:
    name, *lines = (line.strip() for line in text.strip().splitlines())
    settings = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines if line)}
    if unknown := [key for key in settings if key not in ("mask", "keyframe")]:
        raise RequestError(
            f"The folder of {unit} is followed by a line {shown(unknown[0])}, which is unknown. Write mask: with a folder of "
            "masks, or keyframe: with numbers of frames."
        )
    keyframes = _keyframes(settings["keyframe"], unit) if "keyframe" in settings else None
    pictures = _read(name, f"The folder of {unit}", len(keyframes) + 1 if keyframes else frames)
    if keyframes and len(keyframes) != len(pictures):
        count = f"more than {len(keyframes)}" if len(pictures) > len(keyframes) else len(pictures)
        raise RequestError(
            f"The folder of {unit} has {count} pictures for {len(keyframes)} keyframes. Name one frame for each picture."
        )
    most = len(pictures) + (not frames or bool(keyframes))  # one more tells that there are too many
    masks = _read(settings["mask"], f"The mask folder of {unit}", most) if "mask" in settings else None
    if masks is not None and len(masks) not in (1, len(pictures)):
        count = f"more than {len(pictures)}" if len(masks) > len(pictures) else len(masks)
        raise RequestError(
            f"The mask folder of {unit} has {count} masks for {len(pictures)} pictures. Give one mask, or one for each."
        )
    return Folder(pictures, masks * len(pictures) if masks and len(masks) == 1 else masks, keyframes)


def _keyframes(text: str, unit: str) -> tuple[int, ...]:
    try:
        keyframes = tuple(int(number) for number in text.split(","))
    except ValueError:
        keyframes = ()
    if not keyframes or list(keyframes) != sorted(set(keyframes)) or keyframes[0] < 0:
        raise RequestError(
            f"The keyframes of {unit} are {shown(text)}. Write numbers of frames that grow, such as keyframe:0,6,12."
        )
    return keyframes


def _read(name: str, what: str, most: int) -> list[Frame]:
    """Reads the pictures of a folder, or the frames of a video, up to `most` of them; 0 for all."""
    path: Path = source_video.find(name, what)
    video = Video(path, background=source_video.background())
    try:
        return source_video.read_all(video.first(most or MOST_FRAMES + 1), what)
    except (UnreadableVideo, MissingDependency, OSError) as error:
        raise RequestError(f"{what}, {path.name}, cannot be used: {reason(error)}.") from None
