"""Reads video files with the ffmpeg program of the package imageio-ffmpeg.

ffmpeg turns frames upright and honours edit lists. The file's content decides on the container, and ffmpeg may open nothing
but this one file: a text could be a playlist, which makes its reader open others.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from threading import Thread
from typing import IO

import numpy as np
from PIL import Image

from .errors import MissingDependency, UnreadableVideo
from .file_signatures import kind_of_video
from .pictures import MOST_PIXELS, Frame, cut_off, flattened, too_large
from .time_limit import TimeLimit

DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""Decoders that do not ignore transparency."""
PATIENCE = 60
"""Seconds that ffmpeg may take for one frame, or for what a file says of itself. A slow machine needs a few."""
PATIENCE_FOR_ALL = 600
"""Seconds that ffmpeg may take to go through a file without giving frames, or to finish one that it writes."""
MOST_AHEAD = 16
"""The most frames that are stored before others that are shown earlier."""
BEFORE_THE_END = 2
"""Seconds in which the last frame is looked for: files state the length of their sound, or round their length up."""
MOST_FPS, USUAL_FPS = 240, 25
"""A rate above the first is the clock of a file that does not tell its rate; the second is used instead."""
SQUARE_PIXELS = "scale=w='round(iw*sar)':h=ih"
CUT_OFF = re.compile(r"partial file|ended prematurely|Packet corrupt|Truncating packet")
UNREADABLE = "it cannot be read, or has no frames. Choose another file"
DECODED = re.compile(r"decoder -> .*? (?:best_effort_ts|pts)_time:(-?\d\S*).*")
"""What ffmpeg says of each frame with the option `-debug_ts`."""
DAMAGED = re.compile(
    r"corrupt decoded frame|Decoding error|Error (?:submitting packet|while decoding|during demuxing)|EBML number"
)
"""What ffmpeg says of faults that can be seen. It also complains of much that every player passes over."""


def ffmpeg_program() -> str:
    """Returns the path of ffmpeg. Raises MissingDependency."""
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        raise MissingDependency(
            "Reading videos needs the package imageio-ffmpeg, which is not installed. Restart the WebUI with an internet "
            "connection, or run `pip install imageio-ffmpeg`."
        ) from None


def input_arguments(file: Path) -> list[str]:
    """Returns the arguments with which ffmpeg reads this file and no other. Raises UnreadableVideo or OSError."""
    with file.open("rb") as stream:
        kind = kind_of_video(stream.read(12))
    if not kind:
        raise UnreadableVideo("its content is not that of a video. Choose another file")
    return ["-protocol_whitelist", "file", "-f", kind, "-i", f"file:{file}"]


@dataclass(frozen=True)
class _Facts:
    """What a video says of itself. `start`: when its first frame is shown, in seconds from the beginning of the file.

    `duration`: of the file, sound included, in seconds; 0 if it does not tell.
    """

    fps: Fraction
    start: float
    duration: float
    decoder: str
    may_be_transparent: bool


class VideoFile:
    """The frames of a video file in the order in which they are shown, at a constant rate."""

    def __init__(self, file: Path) -> None:
        """Raises UnreadableVideo, MissingDependency, or OSError if there is no such file."""
        self._file = file
        self._facts = self._read_facts()
        self.fps, self.start = float(self._facts.fps), self._facts.start

    def frames(self, background: str, most: int | None = None) -> Iterator[Frame]:
        """Yields the frames, or the first of them. Raises UnreadableVideo after them if the file is damaged there."""
        count = 0
        with _ffmpeg(*self._source, *self._shown(), "-") as process:
            for pixels in islice(process.images(PATIENCE), most):
                count += 1
                yield _on_background(pixels, background)
            if count == most:
                process.end()
        is_damaged = DAMAGED.search(process.messages) is not None
        if count == most:
            is_damaged = is_damaged and self._is_damaged_within(count)
        elif CUT_OFF.search(process.messages) or self._is_short:
            raise UnreadableVideo(cut_off(self._before_gap(count)))
        if is_damaged or (count != most and process.failed):
            raise UnreadableVideo("it is damaged: some of its frames cannot be decoded. Download or export it again")

    def frame(self, background: str, index: int) -> Frame | None:
        """Returns one frame, counted from 0, or None if there is none. Raises UnreadableVideo if the file ends too early."""
        with _ffmpeg(*self._source, *self._shown(f"select='eq(n,{index})',"), "-frames:v", "1", "-") as process:
            for pixels in process.images(PATIENCE_FOR_ALL):
                return _on_background(pixels, background)
        for _ in self.frames(background, index + 1):  # it says what is wrong
            pass
        return None

    def stated_count(self) -> tuple[int, bool]:
        """Returns about how many frames there are, by what the file says of itself, and that this is not exact."""
        return max(0, round((self._facts.duration - self.start) * self.fps)), False

    def glimpse(self, background: str, index: int, seconds: float) -> Frame | None:
        """Returns about that frame, or the last if there are fewer, without reading what comes long before it.

        None if nothing is found there. Raises UnreadableVideo, also if ffmpeg takes longer than `seconds` for a frame.
        """
        pixels = "rgba" if self._facts.may_be_transparent else "rgb24"
        output = ["-vf", f"{SQUARE_PIXELS},format={pixels}", "-f", "image2pipe", "-c:v", "pam"]
        for earlier, frames in ((0, ["-frames:v", "1"]), (BEFORE_THE_END, [])):
            time = max(0, self.start + (index - 0.5) / self.fps - earlier)
            found = None
            with _ffmpeg("-ss", f"{time:f}", *self._source, *output, *frames, "-") as process:
                for found in process.images(seconds):  # noqa: B007  # the last one is wanted
                    pass
            if found is not None:
                return _on_background(found, background)
        return None

    def _shown(self, chosen: str = "") -> list[str]:
        """Returns the arguments that give frames at a constant rate as a stream of PAM images. `chosen`: a filter for some."""
        fps = f"{self._facts.fps.numerator}/{self._facts.fps.denominator}"
        constant = f"fps={fps}:start_time={self.start:f},{chosen}setpts=N"  # its clock has a tick for each frame
        pixels = "rgba" if self._facts.may_be_transparent else "rgb24"
        return ["-vf", f"{constant},{SQUARE_PIXELS},format={pixels}", "-r", fps, "-f", "image2pipe", "-c:v", "pam"]

    def _is_damaged_within(self, count: int) -> bool:
        """Returns whether one of the first frames is damaged: ffmpeg decodes ahead of what it writes.

        With one thread, what it says of damage comes in order among what it says of each frame.
        """
        output_arguments = ["-t", f"{self.start + count / self.fps:f}", "-f", "null", "-"]
        said = ["-loglevel", "info", "-nostats", "-debug_ts", "-threads", "1"]
        messages = _messages(PATIENCE_FOR_ALL, *said, *self._source, *output_arguments)
        last = self.start + (count - 1.5) / self.fps
        ends = [frame.end() for frame in DECODED.finditer(messages) if float(frame[1]) > last]
        return DAMAGED.search(messages, 0, *ends[:1]) is not None

    def _before_gap(self, count: int) -> int:
        """Returns how many frames come before the first that is missing: a few may be stored ahead of it."""
        last = f"select='gte(n,{count - MOST_AHEAD})',showinfo"
        messages = _messages(PATIENCE_FOR_ALL, "-loglevel", "info", *self._source, "-vf", last, "-f", "null", "-")
        times = [float(time) for time in re.findall(r"n: *\d+ .*?pts_time:(\d\S*)", messages)]
        gaps = [before for before, after in pairwise(times) if (after - before) * self.fps > 1.5]
        return round((gaps[0] - self.start) * self.fps) + 1 if gaps else count

    @property
    def _source(self) -> list[str]:
        """The first video of the file that is no cover picture, without packets whose end is missing."""
        return ["-fflags", "+discardcorrupt", *self._decoder, *input_arguments(self._file), "-map", "0:V:0"]

    @property
    def _decoder(self) -> list[str]:
        return ["-c:v", self._facts.decoder] if self._facts.decoder else []

    @property
    def _is_short(self) -> bool:
        """Whether an AVI is shorter than it says. ffmpeg does not tell if one is cut off between two frames."""
        with self._file.open("rb") as stream:
            begin = stream.read(8)
        return begin.startswith(b"RIFF") and self._file.stat().st_size < int.from_bytes(begin[4:], "little")

    def _read_facts(self) -> _Facts:
        """Decodes one frame, since ffmpeg tells more of a video that it decodes."""
        first = ["-map", "0:V:0", "-vf", f"{SQUARE_PIXELS},showinfo", "-frames:v", "1", "-f", "null", "-"]
        text = _messages(PATIENCE, "-loglevel", "info", *input_arguments(self._file), *first)
        rate = re.search(r"config in time_base: \S+ frame_rate: (\d+)/(\d+)", text)
        frame = re.search(r"n: *0 .*?pts_time:(\S+).*? fmt:(\w+).*? s:(\d+)x(\d+)", text)
        if not rate or not frame:
            raise UnreadableVideo(UNREADABLE)
        width, height = int(frame[3]), int(frame[4])
        if width * height > MOST_PIXELS:
            raise UnreadableVideo(too_large(width, height))
        fps = Fraction(int(rate[1]), max(1, int(rate[2])))
        length = re.search(r"Duration: (\d+):(\d+):(\d+\.?\d*)", text)
        stream = re.search(r"Stream #0:\d.*Video: (\w+)(?!.*attached pic)", text)
        decoder = DECODERS.get(stream[1], "") if stream and re.search(r"alpha_mode +: 1", text) else ""
        return _Facts(
            fps=fps if 0 < fps <= MOST_FPS else Fraction(USUAL_FPS),
            start=float(frame[1]) if frame[1] != "NOPTS" else 0.0,
            duration=sum(float(part) * unit for part, unit in zip(length.groups(), (3600, 60, 1))) if length else 0.0,
            decoder=decoder,
            may_be_transparent=bool(decoder) or "a" in frame[2].removeprefix("gray"),  # rgba, yuva420p, pal8, …
        )


class _Ffmpeg(Thread):
    """ffmpeg at work. This reads its messages, and keeps the first 32 MB of them: 1.5 kB for each of 20,000 frames."""

    MOST = 1 << 25

    def __init__(self, process: subprocess.Popen[bytes], limit: TimeLimit) -> None:
        super().__init__(daemon=True)
        self._process, self._limit = process, limit
        self._text = bytearray()
        self.failed = False
        self.start()

    def run(self) -> None:
        assert self._process.stderr
        while part := self._process.stderr.read1(1 << 16):  # type: ignore[attr-defined]
            self._text += part[: max(0, self.MOST - len(self._text))]

    def images(self, seconds: float) -> Iterator[Frame]:
        """Yields the images that it writes as PAM. `seconds`: how long it may take for each."""
        assert self._process.stdout
        while True:
            with self._limit.of(seconds):
                image = _pam_image(self._process.stdout)
            if image is None:
                return
            yield image

    def end(self) -> None:
        self._process.kill()

    @property
    def messages(self) -> str:
        """All messages, once it has ended."""
        return self._text.decode(errors="replace")


@contextmanager
def _ffmpeg(*arguments: str) -> Iterator[_Ffmpeg]:
    """Runs ffmpeg, and ends it if its output is not read. Raises UnreadableVideo if it took longer than it may."""
    command = [ffmpeg_program(), "-hide_banner", "-loglevel", "warning", "-nostdin", "-max_error_rate", "0", *arguments]
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe) as process,
        TimeLimit(process) as limit,
    ):
        running = _Ffmpeg(process, limit)
        try:
            yield running
            with limit.of(PATIENCE):
                running.failed = process.wait() != 0
        finally:
            process.kill()
            running.join()
    if limit.exceeded:
        raise UnreadableVideo(no_progress(limit.exceeded))


def _messages(seconds: float, *arguments: str) -> str:
    """Returns what ffmpeg says when it goes through a file. Raises UnreadableVideo if it takes longer than that."""
    with _ffmpeg(*arguments) as process:
        for _ in process.images(seconds):
            pass
    return process.messages


def no_progress(seconds: float) -> str:
    """Returns the text on a file that ffmpeg could not get through."""
    return (
        f"ffmpeg made no progress with it for {seconds:g} seconds. Convert it to MP4 with another program, or choose another "
        "file"
    )


def _on_background(pixels: Frame, background: str) -> Frame:
    return pixels if pixels.shape[-1] == 3 else np.asarray(flattened(Image.fromarray(pixels), background))


def _pam_image(stream: IO[bytes]) -> Frame | None:
    """Returns the next image `(height, width, channels)` of a stream of PAM files, or None. Their headers tell sizes."""
    header = b"".join(iter(partial(_line_of_header, stream), b""))
    sizes = [int(number) for number in re.findall(rb"(?:WIDTH|HEIGHT|DEPTH) (\d+)", header)]
    if len(sizes) < 3:
        return None
    width, height, channels = sizes
    data = stream.read(width * height * channels)
    is_whole = len(data) == width * height * channels
    return np.frombuffer(data, np.uint8).reshape(height, width, channels) if is_whole else None


def _line_of_header(stream: IO[bytes]) -> bytes:
    """Returns the next line; nothing at the end of a header and of the stream."""
    return stream.readline().removesuffix(b"ENDHDR\n")
