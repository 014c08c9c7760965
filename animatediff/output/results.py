"""Turns finished frames into files and into the WebUI's answer.

Frames are saved before anything is encoded from them, and each file is written by itself: if one fails, the others are still
saved. Other extensions hear of every file, as they do of the WebUI's own pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modules import images, script_callbacks, shared, ui_tempdir
from modules.processing import Processed
from PIL import Image

from ..errors import reason
from ..request.params import Params
from ..video import gifsicle
from ..video.clip import Clip, Quality, Sound
from ..video.formats import VIDEO_FORMATS
from ..video.interpolation import interpolated
from ..video.rife import Rife
from . import paths
from .animated_image import Animation
from .signed_links import link_to

WARNINGS = "AnimateDiff warnings"
"""The parameter of the answer that lists warnings."""
ELSEWHERE = "Free some disk space, or choose another folder in the settings."


@dataclass
class Video:
    """The frames of one clip, with an infotext for each."""

    frames: list[Image.Image]
    infotexts: list[str]
    first_row: int
    """The index of its first frame in the job's lists of prompts and seeds."""
    seed: int
    player_files: list[str] = field(default_factory=list)
    """Its MP4 and WebM files: the WebUI's gallery cannot show them, the page's own player can."""
    clip: Clip | None = None
    """What its files were encoded from."""
    seams: dict[str, Any] | None = None
    """For a video made in context windows, or of one that wraps: the frames at which windows begin, and the change from each
    frame to the next."""
    maps_of: str = ""
    """The ControlNet unit whose detected maps it shows, as a part of its file's name; empty for a clip."""


@dataclass(kw_only=True)
class Results:
    """Saves the videos of one job and puts them into the WebUI's answer."""

    p: Any
    """The job's processing object, for extensions that hear of its files."""
    params: Params
    quality: Quality
    outpath: str | None
    """The WebUI's folder for samples; None to save nothing."""
    writes_frames: bool
    """Whether the frames are saved beside the video too."""
    is_api: bool
    """An API client decodes what it gets, so it may get a video; the page's gallery shows only images."""
    warnings: list[str]
    """The warnings that the answer carries. A file that cannot be made or saved adds one."""
    sound: Sound | None
    rife: Path | None
    """The RIFE model that interpolates frames; None for optical flow."""
    files: list[str] = field(default_factory=list, init=False)
    """All files that were saved."""
    player_files: list[str] = field(default_factory=list, init=False)
    """The MP4 and WebM files among them."""

    def deliver(
        self, processed: Processed, videos: Sequence[Video], others: Sequence[Image.Image], maps: Sequence[Video] = ()
    ) -> None:
        """Saves the videos and puts them into the WebUI's answer, in front of `others`. `maps`: videos of detected maps.

        The lists in `processed` that have an entry for each image are rebuilt to match.
        """
        shown = [(picture, video, index) for video in videos for picture, index in self._pictures(video)]
        if shown:
            shown += [(animation, video, 0) for video in maps for animation in self._animations_of_maps(video)]
            videos = [*videos, *maps]
        shown.sort(key=lambda entry: not isinstance(entry[0], Animation))  # the user asked for animations, so they come first
        video_of_shown = [video for _, video, _ in shown]
        self._add_facts(processed, videos, video_of_shown)
        if not shown:
            return  # interrupted before the first frame
        rows = [video.first_row + index for _, video, index in shown] + [videos[0].first_row] * len(others)
        processed.images = [picture for picture, _, _ in shown] + list(others)
        processed.infotexts = [video.infotexts[index] for _, video, index in shown] + [videos[0].infotexts[0]] * len(others)
        processed.info = processed.infotexts[0]
        processed.index_of_first_image = 0
        for name in ("all_prompts", "all_negative_prompts", "all_seeds", "all_subseeds"):
            values = getattr(processed, name)
            setattr(processed, name, [values[row] for row in rows])

    def _add_facts(self, processed: Processed, videos: Sequence[Video], video_of_shown: Sequence[Video]) -> None:
        """Adds what clients read of the videos to the answer's parameters."""
        facts = {
            "AnimateDiff files": self.files,
            "AnimateDiff videos": [
                self._player_facts(file, video, video_of_shown) for video in videos for file in video.player_files
            ],
            "AnimateDiff seams": [video.seams for video in videos if video.seams],
            "AnimateDiff maps": [
                {"unit": video.maps_of, "pictures": _places(video, video_of_shown)} for video in videos if video.maps_of
            ],
            WARNINGS: self.warnings,
        }
        processed.extra_generation_params = {
            **processed.extra_generation_params,
            **{name: entries for name, entries in facts.items() if entries},
        }

    def _player_facts(self, file: str, video: Video, video_of_shown: Sequence[Video]) -> dict[str, Any]:
        """Describes an MP4 or WebM file: an API client gets a link, the page gets what its player needs."""
        if self.is_api:
            return {"file": file, "name": Path(file).name, "url": link_to(file)}
        file = str(Path(file).resolve())  # the WebUI looks files up by this path
        ui_tempdir.register_tmp_file(shared.demo, file)  # lets gradio serve it to everyone who may see the page
        assert video.clip is not None
        facts = {"frames": len(video.clip.frames), "fps": video.clip.fps, "plays": self.params.loop_number}
        return {"file": file, "name": Path(file).name, "pictures": _places(video, video_of_shown), **facts}

    def _pictures(self, video: Video) -> list[tuple[Image.Image, int]]:
        """Saves one video. Returns the images to show, each with the index of the frame whose infotext belongs to it."""
        self.files += [frame.already_saved_as for frame in video.frames if hasattr(frame, "already_saved_as")]  # by the WebUI
        with self._stem(video) as stem:
            if stem and self.writes_frames and "PNG" in self.params.format:
                self._write_frames(video, stem)
            if stem and "TXT" in self.params.format:
                self._write_file(stem.with_name(stem.name + ".txt"), video.infotexts[0].encode())
            video.clip = self._clip(video)
            made = self._encoded(video, video.clip, stem)
        shown: list[tuple[Image.Image, int]] = [(animation, 0) for animation in self._sent(made)]
        if "Frame" in self.params.format or not made:
            shown += [(frame, index) for index, frame in enumerate(video.frames)]
        return shown or [(video.frames[0], 0)]

    def _animations_of_maps(self, video: Video) -> list[Animation]:
        """Saves a video of detected maps in the formats of the clip. Returns the animations to show."""
        with self._stem(video) as stem:
            video.clip = Clip(video.frames, self.params.fps, self.params.loop_number, "", None)
            return self._sent(self._encoded(video, video.clip, stem))

    def _encoded(self, video: Video, clip: Clip, stem: Path | None) -> dict[str, Animation]:
        wanted = [name for name in VIDEO_FORMATS if name in self.params.format]
        return {name: animation for name in wanted if (animation := self._encode(video, clip, name, stem))}

    def _sent(self, made: dict[str, Animation]) -> list[Animation]:
        """Returns the animations that are in the answer's images."""
        return [animation for name, animation in made.items() if VIDEO_FORMATS[name].is_picture or self._sends_data(animation)]

    def _sends_data(self, animation: Animation) -> bool:
        """Whether an API client gets an MP4 or WebM as data: if it asked for that, or if there is no saved file to link to."""
        return self.is_api and (self.params.video_delivery == "data" or animation.already_saved_as is None)

    @contextmanager
    def _stem(self, video: Video) -> Iterator[Path | None]:
        """Yields the path of one video's files without suffix; None if nothing is to be saved, or nothing can be."""
        with ExitStack() as stack:
            stem = None
            if self.outpath:
                folder = paths.todays_folder(self.outpath)
                try:
                    stem = stack.enter_context(paths.new_stem(folder, str(video.seed), self.params.request_id, video.maps_of))
                except OSError as error:
                    self._warn(f"Nothing could be saved in {folder}: {reason(error)}. {ELSEWHERE}")
            yield stem

    def _write_frames(self, video: Video, folder: Path) -> None:
        shared.state.textinfo = "AnimateDiff: saving frames"
        for index, (frame, text) in enumerate(zip(video.frames, video.infotexts)):
            path = folder / f"{index:05}.png"
            saved = self._file_facts(frame, path, text)
            script_callbacks.before_image_saved_callback(saved)
            try:
                folder.mkdir(exist_ok=True)
                with _removed_on_error(path):  # not saved.filename: the folder's order is that of the clip
                    infotext = saved.pnginfo.get("parameters")
                    images.save_image_with_geninfo(saved.image, infotext, str(path), existing_pnginfo=saved.pnginfo)
            except OSError as error:
                self._warn(
                    f"{len(video.frames) - index} of {len(video.frames)} frames could not be saved: {reason(error)}. "
                    f"{ELSEWHERE}"
                )
                return
            self.files.append(str(path))
            saved.filename = str(path)
            script_callbacks.image_saved_callback(saved)

    def _file_facts(self, image: Image.Image, file: Path, infotext: str) -> script_callbacks.ImageSaveParams:
        """Returns what other extensions hear of a file. `image`: what it shows; of an animation, the first frame."""
        return script_callbacks.ImageSaveParams(image, self.p, str(file), {"parameters": infotext})

    def _clip(self, video: Video) -> Clip:
        """Returns what the files are encoded from: the frames, and interpolated ones if the request asks for them."""
        infotext = video.infotexts[0] if shared.opts.enable_pnginfo else ""
        frames, fps = video.frames, self.params.fps
        if self.params.interp != "Off" and any(name in self.params.format for name in VIDEO_FORMATS):
            shared.state.textinfo = "AnimateDiff: interpolating frames"
            try:
                rife = Rife(self.rife) if self.rife else None
                frames = interpolated(frames, self.params.factor, closed=self.params.loops, rife=rife)
                fps = self.params.shown_fps
            except Exception as error:
                self._warn(
                    f"Frames could not be interpolated, so the video has only the generated ones: {reason(error)}. Choose "
                    "another Frame interpolation (interp), or “Off”."
                )
        return Clip(frames, fps, self.params.loop_number, infotext, self.sound)

    def _encode(self, video: Video, clip: Clip, name: str, stem: Path | None) -> Animation | None:
        """Encodes and saves the video in one format. Returns None if it cannot be encoded."""
        shared.state.textinfo = f"AnimateDiff: encoding {name}"
        video_format = VIDEO_FORMATS[name]
        try:
            encoded = video_format.encode(clip, self.quality)
        except Exception as error:
            self._warn(f"The {name} could not be made: {reason(error)}. Choose another Save format (format).")
            return None
        if name == "GIF" and self.quality.optimize_gif_gifsicle:
            encoded = self._optimized(encoded)
        path = stem and stem.with_name(stem.name + video_format.suffix)
        animation = Animation.of(video.frames[0], encoded)
        if path and self._write_file(path, encoded):
            animation.already_saved_as = str(path)
            script_callbacks.image_saved_callback(self._file_facts(video.frames[0], path, video.infotexts[0]))
            if not video_format.is_picture:
                video.player_files.append(str(path))
                self.player_files.append(str(path))
        elif not (path or video_format.is_picture or self.is_api):
            self._warn(
                f"The {name} is lost: the gallery cannot show it, and the WebUI's settings switch saving off. Choose GIF, WEBP "
                "or APNG as well, or switch on saving in the settings (saving of incomplete images, if you interrupted)."
            )
        return animation

    def _optimized(self, gif: bytes) -> bytes:
        try:
            return gifsicle.optimized(gif)
        except OSError as error:
            self._warn(
                f"The GIF could not be made smaller: {reason(error)}. Check gifsicle, or switch off “Compress GIF with "
                "gifsicle” in the settings."
            )
            return gif

    def _write_file(self, path: Path, content: bytes) -> bool:
        """Writes a file. Returns False, and adds a warning, if that fails."""
        try:
            with _removed_on_error(path):
                path.write_bytes(content)
        except OSError as error:
            self._warn(f"{path} could not be saved: {reason(error)}. {ELSEWHERE}")
            return False
        self.files.append(str(path))
        return True

    def _warn(self, text: str) -> None:
        self.warnings.append(f"AnimateDiff: {text}")


def _places(video: Video, video_of_shown: Sequence[Video]) -> list[int]:
    """Returns which of the answer's images belong to a video."""
    return [index for index, other in enumerate(video_of_shown) if other is video]


@contextmanager
def _removed_on_error(file: Path) -> Iterator[None]:
    """Removes a file if writing it fails: half a file is worse than none."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            file.unlink(missing_ok=True)
        raise
