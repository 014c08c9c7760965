"""The source video: which folders it may lie in, which frames are used, its frame rate and its sound."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from modules import shared
from PIL import Image

from motion_module.errors import MissingDependency, UnreadableVideo
from motion_module.pictures import WHITE, Frame
from motion_module.video_reader import VIDEO_SUFFIXES, Video, is_readable

from .. import settings
from ..errors import RequestError, reason, shown
from ..interrupt import is_stopping
from ..video import ffmpeg
from ..video.clip import Sound
from ..video.formats import is_picture
from . import uploads
from .network_paths import leads_elsewhere
from .params import MOST_FRAMES, Params
from .reading import with_fps

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
"""The beginning of a URL or of one of ffmpeg's protocols. A single letter is a Windows drive."""
SOURCE = "The source video"
RAM_TAKEN = 0.5
"""The fraction of the free memory that frames may take."""


@dataclass(frozen=True)
class Source:
    """The part of a video that a request uses.

    `frames`: at the video's own size. They take three bytes a pixel until the job ends: 100 of 1920×1080 take 620 MB.
    `fps`: of these frames, to three decimals; 0 if the video does not tell. `sound`: from the first of these frames on, if a
    format with sound is wanted.
    """

    name: str
    frames: list[Image.Image]
    fps: float
    sound: Sound | None

    def filled_in(self, params: Params) -> Params:
        """Returns the request with this length and frame rate. Raises RequestError where a GIF cannot play that fast."""
        return dataclasses.replace(with_fps(params, self.fps), video_length=len(self.frames))

    def sound_for(self, params: Params) -> Sound | None:
        """Returns its sound if the new video plays at the same speed, else None."""
        return self.sound if params.fps == self.fps else None

    def warnings(self, params: Params) -> list[str]:
        if self.sound is None or self.sound_for(params):
            return []
        speeds = f"FPS (fps) is {params.fps:g}, but the frames of {self.name} are played at {self.fps:g}"
        return [f"AnimateDiff: The sound is left out, since {speeds}. Set FPS to 0 to have its speed and its sound."]


@dataclass(frozen=True)
class Glance:
    """Some frames of a source, by their indexes, made small. `count`: of all its frames, exact or stated; 0 if unknown."""

    count: int
    is_exact: bool
    fps: float
    pictures: dict[int, Image.Image]


def read(params: Params) -> Source:
    """Reads the frames that a request uses of its source. Raises RequestError where it cannot, or when interrupted."""
    path = find(params.source)
    video = Video(path, background=background())
    shared.state.textinfo = "AnimateDiff: reading the source video"
    with _faults_in_words(path):
        frames, fps = _frames(video, params), video.fps()
        may_sound = fps and not all(is_picture(name) for name in params.format) and ffmpeg.has_sound(path)
    sound = Sound(path, video.time_of(params.source_start)) if may_sound else None
    return Source(path.name, frames, round(fps / params.source_stride, 3), sound)


def glance(params: Params, choose: Callable[[int], Sequence[int]], size: tuple[int, int], seconds: float) -> Glance:
    """Returns some frames of the source, without reading all of a long one. Raises RequestError where it cannot be read.

    `choose`: returns their indexes, in order, from the number of all frames, which is 0 if it is unknown. `size`: their largest
    width and height. `seconds`: after about this time, the rest is left out.
    """
    path = find(params.source)
    video = Video(path, background=background())
    with _faults_in_words(path):
        count, is_exact = video.stated_count()
        pictures = {index: _small(frame, size) for index, frame in video.glimpses(choose(count), seconds)}
        return Glance(count, is_exact, video.fps() if is_exact or video.is_decoded_by_ffmpeg else 0.0, pictures)


def _small(frame: Frame, size: tuple[int, int]) -> Image.Image:
    picture = Image.fromarray(frame)
    picture.thumbnail(size)
    return picture


@contextmanager
def _faults_in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except (UnreadableVideo, MissingDependency, OSError) as error:
        raise RequestError(f"The source video {path.name} cannot be used: {reason(error)}.") from None


def _frames(video: Video, params: Params) -> list[Image.Image]:
    """Decodes the frames and counts them while it does: the length that a file states is often wrong."""
    start, stride, wanted = params.source_start, params.source_stride, params.video_length
    memory = psutil.virtual_memory().available * RAM_TAKEN
    frames: list[Image.Image] = []
    count = 0
    for count, frame in enumerate(video.first(start + (wanted - 1) * stride + 1 if wanted else None), start=1):
        if is_stopping():
            raise RequestError(
                f"Reading {video.path.name} was interrupted at frame {count}, so there is no video. Generate again."
            )
        if count > start and (count - 1 - start) % stride == 0:
            frames.append(Image.fromarray(frame))
        if len(frames) * frame.nbytes > memory:
            size = f"{frame.shape[1]}×{frame.shape[0]}"
            raise RequestError(
                f"{video.path.name} has more frames than there is memory for: {len(frames)} of {size}. Set Number of "
                f"frames (video_length) to less than {len(frames)}, raise Select every nth frame (source_stride), or "
                "make the video smaller."
            )
        if len(frames) > MOST_FRAMES:
            break
    name = video.path.name
    if not frames:
        raise RequestError(
            f"{name} has only {count} frame{'s' * (count > 1)}, but Skip first frames (source_start) is {start}. Skip fewer."
        )
    if len(frames) < wanted:
        raise RequestError(
            f"Number of frames (video_length) is {wanted}, but {name} has {count}, of which {len(frames)} can be taken with "
            f"Skip first frames (source_start) at {start} and Select every nth frame (source_stride) at {stride}. Set "
            f"Number of frames to {len(frames)} or less, or to 0 for all of them."
        )
    if len(frames) > MOST_FRAMES:
        raise RequestError(
            f"{name} has more than {MOST_FRAMES} frames. Set Number of frames (video_length) to that "
            "or less, or raise Select every nth frame (source_stride)."
        )
    return frames


def read_all(video: Iterable[Frame], what: str) -> list[Frame]:
    """Returns all frames of a video. `what`: it, in an error's words.

    Raises RequestError where they do not fit into memory, or are more than a clip can have. Raises what `video` does.
    """
    memory = psutil.virtual_memory().available * RAM_TAKEN
    frames: list[Frame] = []
    for frame in video:
        frames.append(frame)
        if len(frames) * frame.nbytes > memory:
            size = f"{frame.shape[1]}×{frame.shape[0]}"
            raise RequestError(
                f"{what} has more frames than there is memory for: {len(frames)} of {size}. Lower Number of frames "
                "(video_length), or make its pictures smaller."
            )
    if len(frames) > MOST_FRAMES:
        raise RequestError(f"{what} has more than {MOST_FRAMES} frames, which a clip cannot have. Remove some of them.")
    return frames


def find(name: str, what: str = SOURCE) -> Path:
    """Returns the video file or folder of frames of that name, with links resolved. `what`: it, in an error's words.

    Raises RequestError unless it exists and lies in a folder that the settings allow, or was uploaded on the page, which only
    a source video can be.
    """
    if ADDRESS.match(name):
        raise RequestError(
            f"{what} {shown(name)} is a URL. Download it. Then {'upload it on the page, or ' * (what == SOURCE)}name the file "
            "in a folder that the settings allow."
        )
    path = allowed(name, what)
    if uploads.holds(path):
        name = path.name  # as its user knows it
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
        files = Video(path).files() if is_folder else [path]
        is_video = is_folder or (is_file and is_readable(path))
    except OSError as error:
        raise RequestError(f"{what} {shown(name)} cannot be opened: {reason(error)}. Check its name.") from None
    if not (is_folder or is_file):
        raise RequestError(f"{what} {shown(name)} does not exist. Name a video file, or a folder of frames.")
    if not is_video:
        raise RequestError(
            f"{what} {shown(name)} is not a video by its content. Name a {', '.join(VIDEO_SUFFIXES)} file, or a "
            "folder of frames."
        )
    for file in files:
        allowed(str(file), what)
    return path


def background() -> str:
    """Returns the colour that the WebUI puts below transparent pixels of img2img's images."""
    colour: str = shared.opts.data.get("img2img_background_color") or WHITE
    return colour


def allowed(name: str, what: str) -> Path:
    """Returns the resolved path if it may be read. An error does not tell whether a forbidden path exists."""
    folders = settings.folders("animatediff_source_folders")
    try:
        path = None if leads_elsewhere(name, folders) else Path(name).resolve()
    except (OSError, RuntimeError, ValueError):
        raise RequestError(f"{what} {shown(name)} is not a valid path. Name a video file, or a folder of frames.") from None
    if path is None or not (uploads.holds(path) or any(map(path.is_relative_to, folders))):
        raise RequestError(
            f"{what} {shown(name)} lies outside the folders that may be read. "
            f"{'Upload it on the page, or add' if what == SOURCE else 'Add'} its folder to “Folders from which source videos "
            "may be read” in the settings of AnimateDiff."
        )
    return path
