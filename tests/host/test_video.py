"""Video files, read back: MP4, WebM, GIF and APNG with PyAV, which wrote none of them; GIF, APNG and WebP also with Pillow."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, replace
from io import BytesIO

import av
import numpy as np
import pytest
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import ExifTags, Image, ImageSequence

from animatediff.video import ffmpeg, gifsicle
from animatediff.video.clip import DIFFUSION, DITHERINGS, NO_DITHERING, PATTERN, Clip, Quality, Sound
from animatediff.video.formats import VIDEO_FORMATS
from animatediff.video.gif import encode_gif
from animatediff.video.pillow import frame_durations
from support.stuck_ffmpeg import replace_ffmpeg

TOLERANCE = {"GIF": 12, "WEBP": 8, "APNG": 0, "MP4": 6, "WEBM": 6}
"""The largest mean difference of a frame, in levels of 255."""
AWKWARD = 'a cat, "猫": 🐱 (кот:1.2)\nNegative prompt: x\nSteps: 4, Model: "a, b"'


@dataclass
class Decoded:
    frames: list[np.ndarray]
    milliseconds: float
    infotext: str


def frames(count, width=48, height=32):
    """A gradient with a square that moves across it."""
    row, column = np.mgrid[:height, :width]
    background = np.stack([column * 200 // width, row * 200 // height, np.full_like(row, 90)], -1).astype(np.uint8)
    pictures = []
    for index in range(count):
        picture = background.copy()
        left = (index * 3) % (width - 8)
        picture[8:16, left : left + 8] = (250, 60, 40)
        pictures.append(Image.fromarray(picture))
    return pictures


def decode(name, data):
    return decode_picture(data) if VIDEO_FORMATS[name].is_picture else decode_video(data)


def decode_picture(data):
    image = Image.open(BytesIO(data))
    pictures, milliseconds = [], 0
    for frame in ImageSequence.Iterator(image):
        frame.load()
        pictures.append(np.asarray(frame.convert("RGB")))
        milliseconds += frame.info.get("duration", 0)
    return Decoded(pictures, milliseconds, infotext_of_picture(image))


def infotext_of_picture(image):
    if comment := image.info.get("comment"):
        return comment.decode()
    if text := image.info.get("parameters"):
        return text
    comment = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment, b"UNICODE\0")
    return comment.removeprefix(b"UNICODE\0").decode("utf-16-be")


def decode_video(data):
    with av.open(BytesIO(data)) as container:
        stream = container.streams.video[0]
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        milliseconds = 1000 * container.duration / av.time_base
        metadata = {key.lower(): value for key, value in container.metadata.items()}
    return Decoded(pictures, milliseconds, metadata.get("comment", ""))


@pytest.mark.parametrize("fps", [8, 24, 30, 60])
@pytest.mark.parametrize("count", [1, 2, 16, 33])
@pytest.mark.parametrize("name", VIDEO_FORMATS)
def test_frames_duration_and_size_are_right(name, count, fps):
    pictures = frames(count)
    decoded = decode(name, VIDEO_FORMATS[name].encode(Clip(pictures, fps), Quality()))
    assert len(decoded.frames) == count
    for picture, frame in zip(pictures, decoded.frames):
        assert frame.shape == (32, 48, 3)
        assert np.abs(np.asarray(picture).astype(int) - frame).mean() <= TOLERANCE[name]
    if not (VIDEO_FORMATS[name].is_picture and count == 1):  # a still image has no duration
        assert decoded.milliseconds == pytest.approx(1000 * count / fps, abs=5)


@pytest.mark.parametrize("fps", [8, 24, 30, 60])
@pytest.mark.parametrize("count", [1, 2, 16, 33])
@pytest.mark.parametrize("name", ["GIF", "APNG"])
def test_pyav_reads_what_pillow_writes(name, count, fps):
    """Without WebP, since PyAV has no decoder for animated WebP."""
    pictures = frames(count)
    data = VIDEO_FORMATS[name].encode(Clip(pictures, fps), Quality())
    with av.open(BytesIO(data), format=name.lower()) as container:
        decoded = list(container.decode(video=0))
    assert len(decoded) == count
    for picture, frame in zip(pictures, decoded):
        pixels = frame.to_ndarray(format="rgb24")
        assert np.abs(np.asarray(picture).astype(int) - pixels).mean() <= TOLERANCE[name]
    seconds = float((decoded[-1].pts + decoded[-1].duration) * decoded[-1].time_base)
    assert seconds == pytest.approx(count / fps, abs=0.005 + 1e-9)


@pytest.mark.parametrize(
    "text",
    [AWKWARD, "x, " * 3333 + "end", "a=b;c#\\d\n" * 20_000 + "end", ""],
    ids=["awkward", "10,000 characters", "200,000 characters", "none"],
)
@pytest.mark.parametrize("name", VIDEO_FORMATS)
def test_the_infotext_survives(name, text):
    assert decode(name, VIDEO_FORMATS[name].encode(Clip(frames(3), 8, infotext=text), Quality())).infotext == text


# --- sound ---


@pytest.fixture(scope="module")
def two_seconds(tmp_path_factory):
    """A file with only sound: AC-3 in 5.1 channels, as on a DVD."""
    file = tmp_path_factory.mktemp("sound") / "a, 'b'.mkv"
    layout = ["-af", "aformat=channel_layouts=5.1(side)", "-c:a", "ac3"]
    command = [get_ffmpeg_exe(), "-loglevel", "error", "-f", "lavfi", "-i", "sine=440:d=2:sample_rate=48000", *layout]
    subprocess.run([*command, str(file)], check=True)
    return file


def heard(data):
    """The seconds of sound, and the set of its numbers of channels; 0 and an empty set if there is no sound."""
    with av.open(BytesIO(data)) as container:
        parts = list(container.decode(audio=0)) if container.streams.audio else []
    return sum(part.samples / part.sample_rate for part in parts), {len(part.layout.channels) for part in parts}


@pytest.mark.parametrize(("start", "expected"), [(0, 1.5), (0.25, 1.5), (1.5, 0.5)])
@pytest.mark.parametrize("name", ["MP4", "WEBM"])
def test_sound_ends_with_the_frames_or_with_its_own_end(two_seconds, name, start, expected):
    data = VIDEO_FORMATS[name].encode(Clip(frames(12), 8, sound=Sound(two_seconds, start)), Quality())
    seconds, channels = heard(data)
    assert seconds == pytest.approx(expected, abs=0.035) and channels == {2}  # a frame of AC-3 and one of the new codec
    assert len(decode(name, data).frames) == 12


@pytest.mark.parametrize("name", ["MP4", "WEBM"])
def test_a_video_that_starts_after_the_end_of_the_sound_is_silent(two_seconds, name):
    data = VIDEO_FORMATS[name].encode(Clip(frames(12), 8, sound=Sound(two_seconds, 5)), Quality())
    assert heard(data)[0] == 0 and len(decode(name, data).frames) == 12


def test_sound_is_detected(two_seconds, tmp_path):
    silent = tmp_path / "silent.mp4"
    silent.write_bytes(VIDEO_FORMATS["MP4"].encode(Clip(frames(3), 8), Quality()))
    assert ffmpeg.has_sound(two_seconds) and not ffmpeg.has_sound(silent) and not ffmpeg.has_sound(tmp_path / "gone.mp4")


@pytest.mark.parametrize("text", [AWKWARD, "", "\\=\n;" * 9])
@pytest.mark.parametrize("name", ["MP4", "WEBM"])
def test_infotext_and_frames_of_videos_are_read_back(name, text, tmp_path):
    pictures = frames(4, 47, 31)
    file = tmp_path / "a %d [b], c'd"
    file.write_bytes(VIDEO_FORMATS[name].encode(Clip(pictures, 24, infotext=text), Quality()))
    assert ffmpeg.read_infotext(file) == text
    for index, picture in enumerate(pictures):
        frame = np.asarray(ffmpeg.read_frame(file, index))[:31, :47]
        assert np.abs(frame.astype(int) - np.asarray(picture)).mean() <= TOLERANCE[name]
    with pytest.raises(OSError, match="has no frame 4"):
        ffmpeg.read_frame(file, 4)


def test_a_file_that_is_no_video_is_named_without_its_folder(tmp_path):
    (tmp_path / "no.mp4").write_bytes(b"no video")
    with pytest.raises(OSError, match="not that of a video"):
        ffmpeg.read_infotext(tmp_path / "no.mp4")
    (tmp_path / "no.mp4").write_bytes(b"\0\0\0\x20ftypisom" + bytes(20))
    with pytest.raises(OSError, match=r"ffmpeg failed: (.|\n)*Invalid data") as raised:
        ffmpeg.read_infotext(tmp_path / "no.mp4")
    assert "no.mp4" in str(raised.value) and str(tmp_path) not in str(raised.value)


@pytest.mark.parametrize("content", [b"no video", b"#EXTM3U\n", b""])
def test_what_does_not_begin_like_a_video_is_not_given_to_ffmpeg(tmp_path, content):
    (tmp_path / "no.mp4").write_bytes(content)
    for read in (ffmpeg.read_infotext, lambda file: ffmpeg.read_frame(file, 0)):
        with pytest.raises(OSError, match=r"not that of a video|cannot be read"):
            read(tmp_path / "no.mp4")
    assert not ffmpeg.has_sound(tmp_path / "no.mp4")


def test_ffmpeg_opens_a_video_as_what_it_begins_like_and_no_other_file(tmp_path):
    for name, format_name, container in (("a.webm", "MP4", "mov"), ("a.mp4", "WEBM", "matroska")):
        file = tmp_path / name
        file.write_bytes(VIDEO_FORMATS[format_name].encode(Clip(frames(2), 8), Quality()))
        assert ffmpeg.input_arguments(file) == ["-protocol_whitelist", "file", "-f", container, "-i", f"file:{file}"]
        assert ffmpeg.read_frame(file, 1).size[0] > 1


@pytest.mark.parametrize("name", VIDEO_FORMATS)
def test_transparency_and_palettes_are_flattened(name):
    pictures = [frame.convert(mode) for frame, mode in zip(frames(3), ("RGBA", "P", "L"))]
    assert len(decode(name, VIDEO_FORMATS[name].encode(Clip(pictures, 8), Quality())).frames) == 3


@pytest.mark.parametrize("name", ["MP4", "WEBM"])
def test_odd_sides_are_made_even_by_repeating_the_last_row_and_column(name):
    pictures = frames(3, width=47, height=31)
    decoded = decode(name, VIDEO_FORMATS[name].encode(Clip(pictures, 8), Quality()))
    assert {frame.shape for frame in decoded.frames} == {(32, 48, 3)}
    assert np.abs(np.asarray(pictures[1]).astype(int) - decoded.frames[1][:31, :47]).mean() <= TOLERANCE[name]


def test_mp4_has_a_codec_that_browsers_play_and_its_index_in_front():
    data = VIDEO_FORMATS["MP4"].encode(Clip(frames(16), 8), Quality())
    with av.open(BytesIO(data)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
    assert data.index(b"moov") < data.index(b"mdat"), "playback can start before the whole file has arrived"


@pytest.mark.parametrize(
    "changes", [{"mp4_crf": 45}, {"mp4_preset": "ultrafast"}, {"mp4_tune": "grain"}], ids=lambda changes: next(iter(changes))
)
def test_the_mp4_settings_reach_the_encoder(changes):
    clip = Clip(frames(16, 128, 128), 8)
    encode = VIDEO_FORMATS["MP4"].encode
    assert encode(clip, Quality()) == encode(clip, Quality())
    assert encode(clip, replace(Quality(), **changes)) != encode(clip, Quality())


def test_webp_can_be_lossless():
    pictures = frames(4)
    decoded = decode("WEBP", VIDEO_FORMATS["WEBP"].encode(Clip(pictures, 8), Quality(webp_lossless=True)))
    assert all(np.array_equal(np.asarray(picture), frame) for picture, frame in zip(pictures, decoded.frames))


def test_still_areas_do_not_shimmer_in_a_gif():
    decoded = decode("GIF", VIDEO_FORMATS["GIF"].encode(Clip(frames(8), 8), Quality()))
    assert all(np.array_equal(frame[20:], decoded.frames[0][20:]) for frame in decoded.frames)


def test_a_failing_encoder_says_why():
    with pytest.raises(OSError, match="no-such-preset"):
        VIDEO_FORMATS["MP4"].encode(Clip(frames(8, 512, 512), 8), Quality(mp4_preset="no-such-preset"))


@pytest.fixture
def stuck(tmp_path, monkeypatch, two_seconds):
    """ffmpeg that gets stuck in everything it does."""
    replace_ffmpeg(tmp_path, monkeypatch)
    monkeypatch.setattr(ffmpeg, "PATIENCE", 0.5)
    monkeypatch.setattr(ffmpeg, "PATIENCE_FOR_ALL", 0.5)


def test_an_encoder_that_gets_stuck_is_ended(stuck):
    for count, size in ((1, 16), (9, 512)):  # stuck at the end; stuck in the middle, since a pipe holds less than these frames
        with pytest.raises(OSError, match=r"^ffmpeg made no progress for 0\.5 seconds$"):
            VIDEO_FORMATS["MP4"].encode(Clip(frames(count, size, size), 8), Quality())


def test_a_file_in_which_ffmpeg_gets_stuck_is_not_taken_for_one_without_sound(stuck, two_seconds):
    for look in (ffmpeg.has_sound, ffmpeg.read_infotext):
        with pytest.raises(TimeoutError, match=r"^ffmpeg made no progress with it for 0\.5 seconds\. Convert it"):
            look(two_seconds)


def test_without_ffmpeg_the_reason_is_given(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
    ffmpeg.problem.cache_clear()
    try:
        assert "imageio-ffmpeg is missing" in VIDEO_FORMATS["MP4"].problem()
    finally:
        ffmpeg.problem.cache_clear()


@pytest.mark.parametrize("fps", [1, 7, 8, 12, 15, 24, 30, 50])
@pytest.mark.parametrize("count", [1, 16, 100])
def test_the_duration_of_a_gif_is_right(count, fps):
    durations = frame_durations(count, fps, 10)
    assert all(duration % 10 == 0 for duration in durations)
    assert sum(durations) == pytest.approx(1000 * count / fps, abs=5)


@pytest.mark.parametrize(("plays", "again"), [(0, 0), (1, None), (3, 2)])
def test_how_many_times_a_gif_plays(plays, again):
    assert Image.open(BytesIO(VIDEO_FORMATS["GIF"].encode(Clip(frames(3), 8, plays), Quality()))).info.get("loop") == again


@pytest.mark.parametrize("name", ["WEBP", "APNG"])
@pytest.mark.parametrize("plays", [0, 1, 3])
def test_how_many_times_webp_and_apng_play(name, plays):
    assert Image.open(BytesIO(VIDEO_FORMATS[name].encode(Clip(frames(3), 8, plays), Quality()))).info["loop"] == plays


def gradient():
    """An image `(128, 128, 3)` of many more colours than 256."""
    rows, columns = np.indices((128, 128))
    return np.stack([2 * columns, 2 * rows, rows + columns], -1).astype(np.uint8)


def test_each_dithering_has_its_effect():
    """Error diffusion keeps the mean of a neighbourhood best; the pattern breaks up the bands that appear without dithering."""
    clip = Clip([Image.fromarray(gradient()), Image.fromarray(gradient()[::-1])], 8)

    def neighbourhoods(pixels):
        return pixels.reshape(16, 8, 16, 8, 3).mean((1, 3))

    error, bands = {}, {}
    for how in DITHERINGS:
        made = np.asarray(decode("GIF", encode_gif(clip, Quality(gif_dithering=how))).frames[0], float)
        error[how] = np.abs(neighbourhoods(made) - neighbourhoods(gradient())).mean()
        bands[how] = (np.diff(made, axis=1) == 0).all(-1).mean()
    assert error[DIFFUSION] < 0.5 * error[NO_DITHERING], error
    assert bands[PATTERN] < 0.5 * bands[NO_DITHERING], bands


def put_on_path(monkeypatch, folder, script):
    program = folder / "gifsicle"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_gifsicle_is_called_to_make_gifs_smaller(monkeypatch, tmp_path):
    put_on_path(monkeypatch, tmp_path, f'echo "$@" > {tmp_path}/arguments; cat')
    assert gifsicle.optimized(b"GIF89a...") == b"GIF89a..."
    assert "--optimize=3" in (tmp_path / "arguments").read_text()


def test_gifsicle_says_why_it_fails(monkeypatch, tmp_path):
    put_on_path(monkeypatch, tmp_path, "echo not a GIF >&2; exit 1")
    with pytest.raises(OSError, match="gifsicle failed: not a GIF"):
        gifsicle.optimized(b"x")


def test_a_missing_gifsicle_is_reported(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match="not installed"):
        gifsicle.optimized(b"x")


@pytest.mark.skipif(not shutil.which("gifsicle"), reason="GIFSICLE IS NOT INSTALLED")
def test_the_real_gifsicle_keeps_frames_delays_and_infotext():
    whole = encode_gif(Clip(frames(16, 96, 96), 24, infotext=AWKWARD), Quality())
    small = gifsicle.optimized(whole)
    before, after = decode("GIF", whole), decode("GIF", small)
    assert len(small) < len(whole)
    assert np.array_equal(before.frames, after.frames)
    assert (after.milliseconds, after.infotext) == (before.milliseconds, AWKWARD)
