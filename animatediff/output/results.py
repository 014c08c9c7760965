"""From finished frames to files and to what the WebUI answers.

Frames are written first, then what is made of them, so that whatever fails costs only itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modules import images, shared, ui_tempdir
from PIL import Image

from ..request.params import Params
from ..video import gifsicle
from ..video.clip import Clip, Quality, Sound
from ..video.formats import VIDEO_FORMATS
from ..video.interpolation import interpolated
from ..video.rife import Rife
from . import paths
from .animated_image import Animation
from .signed_links import link_to


@dataclass
class Video:
    """The frames of one clip with an infotext for each, and the first of its rows in the job's lists of prompts and seeds."""

    frames: list[Image.Image]
    infotexts: list[str]
    first_row: int
    seed: int
    films: list[str] = field(default_factory=list)
    """Its files that the page's gallery cannot show."""
    clip: Clip | None = None
    """What these were encoded from."""
    seams: dict[str, Any] | None = None
    """Of one that was made in windows: where they begin, and how much it changes from frame to frame."""


class Results:
    """Collects the answer of one job: pictures in the order in which they are shown, files, and what went wrong."""

    def __init__(
        self,
        params: Params,
        quality: Quality,
        outpath: str | None,
        writes_frames: bool,
        is_api: bool,
        warnings: list[str],
        sound: Sound | None,
        rife: Path | None,
    ) -> None:
        """`outpath`: the WebUI's folder for samples, None to leave no file. `writes_frames`: frames go to ours too.

        `is_api`: whoever asked decodes what arrives, so it may be a video; the page's gallery shows pictures alone.
        `sound`: what is heard with the videos. `rife`: the model that makes frames in between, None for the optical flow. What
        goes wrong is added to `warnings`, which the answer carries.
        """
        self._params = params
        self._quality = quality
        self._folder = paths.of_today(outpath) if outpath else None
        self._writes_frames = writes_frames
        self._is_api = is_api
        self.warnings = warnings
        self._sound = sound
        self._rife = rife
        self.files: list[str] = []
        self.films: list[str] = []
        """Those of the files that the page's gallery cannot show."""

    def deliver(self, processed: Any, videos: Sequence[Video], others: Sequence[Image.Image]) -> None:
        """Saves videos and puts them into the WebUI's answer, in front of `others`.

        Everything in `processed` that runs parallel to its pictures is made to do so again.
        """
        shown = [(picture, video, index) for video in videos for picture, index in self._pictures(video)]
        shown.sort(key=lambda entry: not isinstance(entry[0], Animation))  # animations first: they are what was asked for
        films = [self._film(file, video, [entry[1] for entry in shown]) for video in videos for file in video.films]
        seams = [video.seams for video in videos if video.seams]
        facts = {
            "AnimateDiff files": self.files,
            "AnimateDiff videos": films,
            "AnimateDiff seams": seams,
            "AnimateDiff warnings": self.warnings,
        }
        processed.extra_generation_params = {
            **processed.extra_generation_params,
            **{name: entries for name, entries in facts.items() if entries},
        }
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

    def _film(self, file: str, video: Video, shown: Sequence[Video]) -> dict[str, Any]:
        """What the answer says of a file that the gallery cannot show: programs get a link, the page what its player needs."""
        if self._is_api:
            return {"file": file, "name": Path(file).name, "url": link_to(file)}
        file = str(Path(file).resolve())  # under which the WebUI looks it up
        ui_tempdir.register_tmp_file(shared.demo, file)  # gradio serves it to whoever may see the page
        assert video.clip is not None
        facts = {"frames": len(video.clip.frames), "fps": video.clip.fps, "plays": self._params.loop_number}
        pictures = [index for index, other in enumerate(shown) if other is video]
        return {"file": file, "name": Path(file).name, "pictures": pictures, **facts}

    def _pictures(self, video: Video) -> list[tuple[Image.Image, int]]:
        """Saves one video. Returns what to show of it, with the frame whose infotext belongs to it."""
        self.files += [frame.already_saved_as for frame in video.frames if hasattr(frame, "already_saved_as")]  # by the WebUI
        with self._stem(video) as stem:
            if stem and self._writes_frames and "PNG" in self._params.format:
                self._write_frames(video, stem)
            if stem and "TXT" in self._params.format:
                self._write_file(stem.with_name(stem.name + ".txt"), video.infotexts[0].encode())
            wanted = [name for name in VIDEO_FORMATS if name in self._params.format]
            video.clip = self._clip(video)
            made = {name: animation for name in wanted if (animation := self._encode(video, video.clip, name, stem))}
        shown: list[tuple[Image.Image, int]] = [
            (animation, 0) for name, animation in made.items() if VIDEO_FORMATS[name].is_picture or self._answers(animation)
        ]
        if "Frame" in self._params.format or not made:
            shown += [(frame, index) for index, frame in enumerate(video.frames)]
        return shown or [(video.frames[0], 0)]

    def _answers(self, film: Animation) -> bool:
        """Whether a program gets it as data: also where it wanted a link, if there is no file that one could lead to."""
        return self._is_api and (self._params.video_delivery == "data" or film.already_saved_as is None)

    @contextmanager
    def _stem(self, video: Video) -> Iterator[Path | None]:
        """Where the files of one video go, without suffix; None where nothing is to be saved, or can be."""
        with ExitStack() as claim:
            stem = None
            if self._folder is not None:
                try:
                    stem = claim.enter_context(paths.new_stem(self._folder, str(video.seed), self._params.request_id))
                except OSError as error:
                    self._warn(f"Nothing could be saved in {self._folder}: {error}.")
            yield stem

    def _write_frames(self, video: Video, folder: Path) -> None:
        shared.state.textinfo = "AnimateDiff: saving frames"
        for index, (frame, text) in enumerate(zip(video.frames, video.infotexts)):
            path = folder / f"{index:05}.png"
            try:
                folder.mkdir(exist_ok=True)
                with _whole_or_not_at_all(path):
                    images.save_image_with_geninfo(frame, text, str(path))
            except OSError as error:
                self._warn(f"{len(video.frames) - index} of {len(video.frames)} frames could not be saved: {error}.")
                return
            self.files.append(str(path))

    def _clip(self, video: Video) -> Clip:
        """What is encoded: with frames in between, where those are wanted and can be made."""
        infotext = video.infotexts[0] if shared.opts.enable_pnginfo else ""
        frames, fps = video.frames, self._params.fps
        if self._params.interp != "Off" and any(name in self._params.format for name in VIDEO_FORMATS):
            shared.state.textinfo = "AnimateDiff: making frames in between"
            try:
                rife = Rife(self._rife) if self._rife else None
                frames = interpolated(frames, self._params.interp_x, closed=self._params.loops, rife=rife)
                fps = self._params.shown_fps
            except Exception as error:
                self._warn(f"There are no frames in between: {error}.")
        return Clip(frames, fps, self._params.loop_number, infotext, self._sound)

    def _encode(self, video: Video, clip: Clip, name: str, stem: Path | None) -> Animation | None:
        """Makes and saves the video in one format; None where it could not be made."""
        shared.state.textinfo = f"AnimateDiff: encoding {name}"
        video_format = VIDEO_FORMATS[name]
        try:
            encoded = video_format.encode(clip, self._quality)
        except Exception as error:
            self._warn(f"The {name} could not be made: {error!r}.")
            return None
        if name == "GIF" and self._quality.optimize_gif_gifsicle:
            encoded = self._shrunk(encoded)
        path = stem and stem.with_name(stem.name + video_format.suffix)
        animation = Animation.of(video.frames[0], encoded)
        if path and self._write_file(path, encoded):
            animation.already_saved_as = str(path)
            if not video_format.is_picture:
                video.films.append(str(path))
                self.films.append(str(path))
        elif not (path or video_format.is_picture or self._is_api):
            self._warn(
                f"The {name} was not kept: the page cannot show it, and the settings say not to save it. Choose GIF, WEBP or "
                "APNG too, or switch on saving, of incomplete images where this one was interrupted."
            )
        return animation

    def _shrunk(self, gif: bytes) -> bytes:
        try:
            return gifsicle.shrunk(gif)
        except OSError as error:
            self._warn(f"The GIF could not be made smaller: {error}.")
            return gif

    def _write_file(self, path: Path, content: bytes) -> bool:
        """Whether that could be done."""
        try:
            with _whole_or_not_at_all(path):
                path.write_bytes(content)
        except OSError as error:
            self._warn(f"{path} could not be saved: {error}.")
            return False
        self.files.append(str(path))
        return True

    def _warn(self, text: str) -> None:
        self.warnings.append(f"AnimateDiff: {text}")


@contextmanager
def _whole_or_not_at_all(file: Path) -> Iterator[None]:
    """Takes away what has been written of a file where writing it fails: half a file is worse than none."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            file.unlink(missing_ok=True)
        raise
