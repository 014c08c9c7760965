"""MP4 and WebM, written and read, through the ffmpeg that the package imageio-ffmpeg brings along."""

from __future__ import annotations

import errno
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from .clip import Clip, Quality

VP9_CRF = 30
FROM_VIDEO_COLOURS = "scale=in_range=tv:out_range=pc:in_color_matrix=bt709"
COLOURS = (
    # Frames are full-range sRGB; players take video for narrow-range BT.709.
    "-vf", "scale=in_range=pc:out_range=tv:out_color_matrix=bt709",
    "-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "iec61966-2-1",
)  # fmt: skip

SOUND = ("-ac", "2")
"""Two channels: not every arrangement of more can be in both formats, nor be heard in every browser."""


@cache
def problem() -> str:
    """Why no video can be encoded here; empty where it can."""
    try:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        return "the package imageio-ffmpeg is missing; the WebUI installs it for AnimateDiff when it starts with a network"
    return ""


def encode_mp4(clip: Clip, quality: Quality) -> bytes:
    """H.264, in the pixel format and the order of parts that browsers and editors take."""
    choices = {"-preset": quality.mp4_preset, "-tune": quality.mp4_tune}
    options = ["-crf", str(quality.mp4_crf), "-movflags", "+faststart"]
    options += [word for option, value in choices.items() if value for word in (option, value)]
    return _encode(clip, ".mp4", "libx264", options, "aac")


def encode_webm(clip: Clip, _quality: Quality) -> bytes:
    """VP9 at a constant quality."""
    options = ["-crf", str(VP9_CRF), "-b:v", "0", "-row-mt", "1", "-cpu-used", "4"]
    return _encode(clip, ".webm", "libvpx-vp9", options, "libopus")


def has_sound(path: Path) -> bool:
    """Whether a video has sound that can be decoded."""
    try:
        _output("-i", f"file:{path}", "-map", "0:a:0", "-frames:a", "1", "-f", "null", "-")
    except OSError:
        return False
    return True


def read_infotext(path: Path) -> str:
    """How a video was made, as its file says; empty where it does not. Raises OSError where it cannot be read."""
    text = _output("-i", f"file:{path}", "-f", "ffmetadata", "-").decode(errors="replace")
    comment = re.search(r"^comment=((?:\\.|[^\\\n])*)", text, re.MULTILINE | re.IGNORECASE | re.DOTALL)
    return re.sub(r"\\(.)", r"\1", comment[1], flags=re.DOTALL) if comment else ""


def read_frame(path: Path, index: int) -> Image.Image:
    """One frame of a video, counted from 0. Raises OSError where there is no such frame."""
    colours = f"select=eq(n\\,{index}),{FROM_VIDEO_COLOURS},format=rgb24"
    data = _output("-i", f"file:{path}", "-vf", colours, "-frames:v", "1", "-f", "image2pipe", "-c:v", "png", "-")
    if not data:
        raise OSError(f"{path.name} has no frame {index}")
    return Image.open(BytesIO(data))


def _output(*arguments: str) -> bytes:
    """What ffmpeg writes. Raises OSError, with its own words, where it fails."""
    if reason := problem():
        raise OSError(reason)
    from imageio_ffmpeg import get_ffmpeg_exe

    command = [get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-nostdin", *arguments]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise OSError(f"ffmpeg failed: {done.stderr.decode(errors='replace').strip()[:1000]}")
    return done.stdout


def _encode(clip: Clip, suffix: str, codec: str, options: list[str], sound_codec: str) -> bytes:
    """Raises OSError, with ffmpeg's own words, where it fails."""
    from imageio_ffmpeg import get_ffmpeg_exe

    frames = [_even(frame) for frame in clip.rgb]
    width, height = frames[0].size
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(clip.fps), "-i", "-"]
    with tempfile.TemporaryDirectory() as folder:
        file, log, metadata = (Path(folder, name) for name in ("clip" + suffix, "log", "metadata"))
        metadata.write_bytes(_metadata(clip.infotext))
        source += ["-f", "ffmetadata", "-i", str(metadata), *_sound(clip), "-map", "0:v", "-map_metadata", "1"]
        target = ["-c:v", codec, "-pix_fmt", "yuv420p", *COLOURS, *options, *SOUND, "-c:a", sound_codec, str(file)]
        command = [get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", *source, *target]
        with (
            log.open("wb") as errors,
            _ended_early(),  # also as its input is closed: its log says why
            subprocess.Popen(command, stdin=subprocess.PIPE, stderr=errors) as process,
        ):
            assert process.stdin
            for frame in frames:
                process.stdin.write(frame.tobytes())
        if process.returncode:
            raise OSError(f"ffmpeg failed: {log.read_text(errors='replace').strip()[:1000]}")
        return file.read_bytes()


def _sound(clip: Clip) -> list[str]:
    """The third input: of its file what is heard while the clip plays once."""
    if clip.sound is None:
        return []
    lasts = len(clip.frames) / clip.fps
    return ["-ss", f"{clip.sound.start:f}", "-t", f"{lasts:f}", "-i", f"file:{clip.sound.file}", "-map", "2:a:0"]


@contextmanager
def _ended_early() -> Iterator[None]:
    """Suppresses what writing to a process that has ended raises: EPIPE, on Windows EINVAL."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EINVAL):
            raise


def _metadata(comment: str) -> bytes:
    """A metadata file for ffmpeg: a command line has not room for every prompt."""
    escaped = re.sub(r"[=;#\\\n]", lambda match: "\\" + match[0], comment)
    return f";FFMETADATA1\n{f'comment={escaped}' if comment else ''}\n".encode()


def _even(frame: Image.Image) -> Image.Image:
    """With even sides, which these codecs need: the last row or column is shown twice."""
    width, height = frame.size
    if width % 2 == height % 2 == 0:
        return frame
    pixels = np.asarray(frame)
    return Image.fromarray(np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))
