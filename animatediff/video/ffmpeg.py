"""Writes MP4 and WebM with the ffmpeg program of the package imageio-ffmpeg, and reads what they hold besides frames."""

from __future__ import annotations

import errno
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from motion_module.errors import MissingDependency, UnreadableVideo
from motion_module.time_limit import TimeLimit
from motion_module.video_file import PATIENCE, PATIENCE_FOR_ALL, ffmpeg_program, input_arguments, no_progress
from motion_module.video_reader import Video

from .clip import Clip, Quality

VP9_CRF = 30
COLOURS = (
    # Frames are full-range sRGB; players assume that video is limited-range BT.709.
    "-vf", "scale=in_range=pc:out_range=tv:out_color_matrix=bt709",
    "-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "iec61966-2-1",
)  # fmt: skip
SOUND = ("-ac", "2")
"""Stereo: not every surround layout fits both formats or plays in every browser."""


@cache
def problem() -> str:
    """Returns why ffmpeg cannot be used; empty if it can."""
    try:
        ffmpeg_program()
    except MissingDependency:
        return "the package imageio-ffmpeg is missing; restart the WebUI with an internet connection, and it is installed"
    return ""


def encode_mp4(clip: Clip, quality: Quality) -> bytes:
    """Returns an H.264 MP4 that browsers and editors play: 4:2:0 pixels, and the index in front (faststart)."""
    choices = {"-preset": quality.mp4_preset, "-tune": quality.mp4_tune}
    options = ["-crf", str(quality.mp4_crf), "-movflags", "+faststart"]
    options += [word for option, value in choices.items() if value for word in (option, value)]
    return _encode(clip, ".mp4", "libx264", options, "aac")


def encode_webm(clip: Clip, _quality: Quality) -> bytes:
    """Returns a VP9 WebM of constant quality."""
    options = ["-crf", str(VP9_CRF), "-b:v", "0", "-row-mt", "1", "-cpu-used", "4"]
    return _encode(clip, ".webm", "libvpx-vp9", options, "libopus")


def has_sound(path: Path) -> bool:
    """Returns whether a video has sound that can be decoded. Raises TimeoutError if ffmpeg cannot get through it."""
    try:
        _output(path, "-map", "0:a:0", "-frames:a", "1", "-f", "null", "-")
    except TimeoutError:
        raise
    except OSError:
        return False
    return True


def read_infotext(path: Path) -> str:
    """Returns the infotext of a video; empty if it has none. Raises OSError if the file cannot be read."""
    text = _output(path, "-f", "ffmetadata", "-").decode(errors="replace")
    comment = re.search(r"^comment=((?:\\.|[^\\\n])*)", text, re.MULTILINE | re.IGNORECASE | re.DOTALL)
    return re.sub(r"\\(.)", r"\1", comment[1], flags=re.DOTALL) if comment else ""


def read_frame(path: Path, index: int) -> Image.Image:
    """Returns one frame of a video, counted from 0. Raises OSError if there is no such frame."""
    try:
        frame = Video(path).frame(index)
    except (MissingDependency, UnreadableVideo) as error:
        raise OSError(str(error)) from None
    if frame is None:
        raise OSError(f"{path.name} has no frame {index}")
    return Image.fromarray(frame)


def _output(path: Path, *arguments: str) -> bytes:
    """Returns what ffmpeg tells of a file. Raises OSError, which does not tell in which folder the file lies."""
    if reason := problem():
        raise OSError(reason)
    try:
        source = input_arguments(path)
    except UnreadableVideo as error:
        raise OSError(str(error)) from None
    command = [ffmpeg_program(), "-hide_banner", "-loglevel", "error", "-nostdin", *source, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise TimeoutError(no_progress(PATIENCE)) from None
    if done.returncode:
        raise OSError(f"ffmpeg failed: {done.stderr.decode(errors='replace').replace(str(path), path.name).strip()[:1000]}")
    return done.stdout


def _encode(clip: Clip, suffix: str, codec: str, options: list[str], sound_codec: str) -> bytes:
    """Encodes a clip. Raises OSError with ffmpeg's message if it fails."""
    frames = [_even(frame) for frame in clip.rgb]
    width, height = frames[0].size
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(clip.fps), "-i", "-"]
    with tempfile.TemporaryDirectory() as folder:
        file, log, metadata = (Path(folder, name) for name in ("clip" + suffix, "log", "metadata"))
        metadata.write_bytes(_metadata(clip.infotext))
        source += ["-f", "ffmetadata", "-i", str(metadata), *_sound(clip), "-map", "0:v", "-map_metadata", "1"]
        target = ["-c:v", codec, "-pix_fmt", "yuv420p", *COLOURS, *options, *SOUND, "-c:a", sound_codec, str(file)]
        command = [ffmpeg_program(), "-hide_banner", "-loglevel", "error", *source, *target]
        with (
            log.open("wb") as errors,
            _broken_pipe_ignored(),  # also when leaving `Popen` closes its input; the log says why ffmpeg ended
            subprocess.Popen(command, stdin=subprocess.PIPE, stderr=errors) as process,
            TimeLimit(process) as limit,  # ffmpeg also reads the sound of a video that anyone may have made
        ):
            assert process.stdin
            for frame in frames:
                with limit.of(PATIENCE_FOR_ALL):
                    process.stdin.write(frame.tobytes())
            with limit.of(PATIENCE_FOR_ALL):
                process.stdin.close()
                process.wait()
        if limit.exceeded:
            raise OSError(f"ffmpeg made no progress for {limit.exceeded:g} seconds")
        if process.returncode:
            raise OSError(f"ffmpeg failed: {log.read_text(errors='replace').strip()[:1000]}")
        return file.read_bytes()


def _sound(clip: Clip) -> list[str]:
    """Returns the arguments for ffmpeg's third input: the sound, for as long as the clip plays once."""
    if clip.sound is None:
        return []
    seconds = len(clip.frames) / clip.fps
    return ["-ss", f"{clip.sound.start:f}", "-t", f"{seconds:f}", *input_arguments(clip.sound.file), "-map", "2:a:0"]


@contextmanager
def _broken_pipe_ignored() -> Iterator[None]:
    """Suppresses the error of writing to a process that has ended: EPIPE, or EINVAL on Windows."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EINVAL):
            raise


def _metadata(comment: str) -> bytes:
    """Returns the content of an ffmpeg metadata file: a long prompt would not fit on a command line."""
    escaped = re.sub(r"[=;#\\\n]", lambda match: "\\" + match[0], comment)
    return f";FFMETADATA1\n{f'comment={escaped}' if comment else ''}\n".encode()


def _even(frame: Image.Image) -> Image.Image:
    """Returns the frame with even sides, which these codecs need, by repeating the last row or column."""
    width, height = frame.size
    if width % 2 == height % 2 == 0:
        return frame
    pixels = np.asarray(frame)
    return Image.fromarray(np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))
