"""Frames of a source video, told apart by the numbers that are drawn into them: none is lost, doubled or out of place."""

import importlib
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image

from animatediff.request.params import Params
from animatediff.video import ffmpeg, gif
from animatediff.video.clip import Clip, Quality
from motion_module import video_file
from support.stuck_ffmpeg import replace_ffmpeg

ROOT = Path(__file__).resolve().parents[2]
COUNT = 423
BARS = 9
"""Binary digits of a number below 512."""
ENCODERS = {"a.mp4": ffmpeg.encode_mp4, "a.webm": ffmpeg.encode_webm, "a.gif": gif.encode_gif}


@pytest.fixture(scope="module")
def source():
    """Imported with the embedded host's `modules`."""
    sys.path.insert(0, str(ROOT / "demo" / "host" / "webui"))
    yield importlib.import_module("animatediff.request.source_video")
    sys.path.remove(str(ROOT / "demo" / "host" / "webui"))


def numbered(number):
    picture = np.full((32, 8 * BARS, 3), 40, np.uint8)
    for digit in range(BARS):
        picture[:, 8 * digit : 8 * digit + 8] += np.uint8(170 * (number >> digit & 1))
    return Image.fromarray(picture)


def numbers(frames):
    columns = [np.asarray(frame)[16, 4::8, 1] > 125 for frame in frames]
    return [sum(1 << digit for digit, bar in enumerate(bars) if bar) for bars in columns]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    frames = [numbered(number) for number in range(COUNT)]
    for name, encode in ENCODERS.items():
        (folder / name).write_bytes(encode(Clip(frames, 23.976), Quality()))
    (folder / "folder").mkdir()
    for number, frame in enumerate(frames):
        frame.save(folder / "folder" / f"{number}.png")  # 10.png is behind 2.png
    return folder


@pytest.fixture
def read(source, videos, monkeypatch):
    monkeypatch.setitem(source.shared.opts.data, "animatediff_source_folders", str(videos))

    def read(name, **values):
        return source.read(Params(enable=True, video_path=str(videos / name), **values))

    return read


@pytest.mark.parametrize("name", [*ENCODERS, "folder"])
def test_all_frames_are_read_once_and_in_order(read, name):
    found = read(name)
    assert numbers(found.frames) == list(range(COUNT))
    assert all(frame.mode == "RGB" and frame.size == (8 * BARS, 32) for frame in found.frames)


@pytest.mark.parametrize("name", [*ENCODERS, "folder"])
@pytest.mark.parametrize(("start", "stride", "count"), [(0, 1, 16), (400, 1, 23), (7, 5, 0), (422, 9, 1)])
def test_start_stride_and_count_are_exact(read, name, start, stride, count):
    found = read(name, source_start=start, source_stride=stride, video_length=count)
    expected = list(range(start, COUNT, stride))
    assert numbers(found.frames) == (expected[:count] if count else expected)


@pytest.mark.parametrize(("name", "fps", "within"), [("a.mp4", 23.976, 0), ("a.webm", 23.976, 0), ("a.gif", 23.976, 0.01)])
def test_the_speed_is_that_of_the_frames_that_are_taken(read, name, fps, within):
    assert read(name, video_length=2).fps == pytest.approx(fps, abs=within)
    assert read(name, video_length=2, source_stride=4).fps == pytest.approx(fps / 4, abs=within)


def test_a_folder_says_no_speed(read):
    found = read("folder", video_length=2)
    assert found.fps == 0 and found.filled_in(Params(enable=True)).fps == 8


def test_length_and_speed_are_filled_in_where_they_are_open(read):
    found = read("a.mp4", source_start=420)
    filled = found.filled_in(Params(enable=True))
    assert (filled.video_length, filled.fps) == (3, 23.976)
    assert found.filled_in(Params(enable=True, fps=12.0)).fps == 12


@pytest.mark.parametrize("how", ["interrupted", "skipped", "stopping_generation"])
def test_reading_ends_at_the_next_frame_where_nobody_wants_it_any_more(read, source, monkeypatch, how):
    decode, decoded = source.Video.first, []

    def pressed_at_the_fifth(video, most):
        for frame in decode(video, most):
            decoded.append(frame)
            if len(decoded) == 5:
                monkeypatch.setattr(source.shared.state, how, True)
            yield frame

    monkeypatch.setattr(source.Video, "first", pressed_at_the_fifth)
    with pytest.raises(source.RequestError, match=r"Reading a\.mp4 was interrupted at frame 5"):
        read("a.mp4", source_start=400)
    assert len(decoded) == 5


@pytest.mark.parametrize("option", ["showinfo", "image2pipe", "0:a:0"])
def test_a_video_in_which_ffmpeg_gets_stuck_is_refused(source, read, tmp_path, monkeypatch, option):
    replace_ffmpeg(tmp_path, monkeypatch, option)
    for module in (ffmpeg, video_file):
        monkeypatch.setattr(module, "PATIENCE", 1)
    refusal = r"^The source video a\.mp4 cannot be used: ffmpeg made no progress with it for 1 seconds\. Convert it .* file\.$"
    with pytest.raises(source.RequestError, match=refusal):
        read("a.mp4", video_length=2, format=("MP4",))


def test_uploads_may_be_read(source, videos, monkeypatch):
    monkeypatch.setitem(source.shared.opts.data, "animatediff_source_folders", "")
    refused = pytest.raises(source.RequestError, match="outside the folders that may be read")
    with refused:
        source.find(str(videos / "a.mp4"))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(videos.parent))  # in which each upload has a folder of its own
    assert source.find(str(videos / "a.mp4")) == videos / "a.mp4"
    (videos / "list.mp4").write_text("#EXTM3U")
    for name, words in (("list.mp4", "is not a video by its content"), ("gone.mp4", "does not exist")):
        with pytest.raises(source.RequestError, match=f"^The source video '{name}' {words}"):  # without its folder
            source.find(str(videos / name))


def fails_as_if_forbidden(file):
    raise PermissionError(13, "Permission denied", str(file))


def test_the_system_says_why_without_its_numbers_and_folders(source, read, videos, monkeypatch):
    monkeypatch.setattr(source, "is_readable", fails_as_if_forbidden)
    with pytest.raises(source.RequestError, match=r"a\.mp4' cannot be opened: Permission denied: a\.mp4\. Check its name\.$"):
        read("a.mp4")
    monkeypatch.undo()
    monkeypatch.setitem(source.shared.opts.data, "animatediff_source_folders", "")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(videos.parent))
    monkeypatch.setattr(source.Video, "first", lambda video, most: fails_as_if_forbidden(video.path))
    with pytest.raises(source.RequestError) as raised:
        source.read(Params(enable=True, video_path=str(videos / "a.mp4")))
    assert str(raised.value) == "The source video a.mp4 cannot be used: Permission denied: a.mp4."


@pytest.mark.parametrize("name", ["a" * 4096, "/" + "a/" * 2000, "https://" + "a" * 4000, "a\0b"])
def test_a_name_is_shown_shortened(source, name):
    with pytest.raises(source.RequestError) as raised:
        source.find(name)
    assert len(str(raised.value)) < 400 and str(raised.value).startswith("The source video '")


@pytest.mark.parametrize("name", [r"\\host\share\a.mp4", "//host/share/a.mp4", r"\/host/a.mp4", r"\\?\UNC\host\share\a.mp4"])
def test_a_path_to_another_computer_is_refused_before_it_is_looked_at(source, monkeypatch, name):
    monkeypatch.setattr(source.settings, "folders", lambda key: [Path("/videos"), Path("//other/share"), Path("//?/C:/videos")])
    monkeypatch.setattr(source, "Path", lambda path: pytest.fail("the path was looked at"))
    with pytest.raises(source.RequestError, match="lies outside the folders"):
        source.find(name)


def test_a_path_to_a_computer_with_an_allowed_folder_is_looked_at(source, monkeypatch):
    monkeypatch.setattr(source.settings, "folders", lambda key: [Path("//Host/share"), Path("/Host/share")])
    with pytest.raises(source.RequestError, match="does not exist"):
        source.find("//Host/share/a.mp4")


def test_pictures_of_others_in_the_folder_of_uploads_are_not_a_folder_of_frames(source, videos, monkeypatch):
    """The WebUI puts what it shows directly into that folder, and gradio what one user uploads into a folder beneath it."""
    monkeypatch.setitem(source.shared.opts.data, "animatediff_source_folders", "")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(videos / "folder"))
    for folder in (videos / "folder", videos, videos.parent):
        with pytest.raises(source.RequestError, match="outside the folders that may be read"):
            source.find(str(folder))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(videos))
    for folder in (videos / "folder", videos):
        with pytest.raises(source.RequestError, match="outside the folders that may be read"):
            source.find(str(folder))


def test_frames_of_a_folder_that_lead_elsewhere_are_not_read(source, videos, tmp_path, monkeypatch):
    monkeypatch.setitem(source.shared.opts.data, "animatediff_source_folders", str(tmp_path / "mine"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "0.png").symlink_to(videos / "folder" / "0.png")
    with pytest.raises(source.RequestError, match=r"0\.png' lies outside"):
        source.find(str(tmp_path / "mine"))


def test_transparent_frames_lie_on_the_webuis_background(read, source, videos, monkeypatch):
    monkeypatch.setitem(source.shared.opts.data, "img2img_background_color", "#204060")
    (videos / "transparent").mkdir()
    picture = numbered(5).convert("RGBA")
    picture.paste((0, 255, 0, 0), (0, 0, 72, 8))
    picture.save(videos / "transparent" / "0.png")
    (frame,) = read("transparent").frames
    assert frame.getpixel((3, 3)) == (0x20, 0x40, 0x60) and numbers([frame]) == [5]


def test_a_video_that_is_cut_off_is_refused_unless_fewer_frames_are_wanted(read, source, videos):
    content = (videos / "a.webm").read_bytes()
    (videos / "cut.webm").write_bytes(content[: len(content) // 2])
    with pytest.raises(source.RequestError, match=r"cut\.webm cannot be used: it is cut off .* after its first \d+ frames\."):
        read("cut.webm")
    assert numbers(read("cut.webm", video_length=16, source_start=9).frames) == list(range(9, 25))


# --- sound ---


ONSET = 50
"""The number of the frame with which the tone begins."""


@pytest.fixture(scope="module")
def talking(videos):
    """Videos of 25 frames a second whose tone begins with frame 50."""
    pictures = b"".join(numbered(number).tobytes() for number in range(100))
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{8 * BARS}x32", "-r", "25", "-i", "-"]
    tone = ["-f", "lavfi", "-i", f"aevalsrc='0.8*sin(2*PI*1000*t)*gte(t,{ONSET / 25})':s=48000:d=4"]
    coded = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "10", "-c:a", "aac"]
    run(*raw, *tone, *coded, videos / "constant.mp4", stdin=pictures)
    varying = ["-vf", "select='lt(n,30)+not(mod(n,5))'", "-fps_mode", "vfr"]
    run(*raw, *tone, *varying, *coded, videos / "varying.mp4", stdin=pictures)
    run("-display_rotation", "180", "-i", videos / "constant.mp4", "-c", "copy", videos / "turned.mp4")
    later = ["-itsoffset", "0.7", "-i", videos / "constant.mp4", "-i", videos / "constant.mp4", "-map", "0:v", "-map", "1:a"]
    run(*later, "-c", "copy", videos / "late.mp4")
    run("-ss", "0.5", "-i", videos / "constant.mp4", "-c", "copy", videos / "edited.mp4")
    return videos


def run(*arguments, stdin=None):
    subprocess.run([get_ffmpeg_exe(), "-y", "-loglevel", "error", *map(str, arguments)], input=stdin, check=True)


@pytest.mark.parametrize("start", [0, 20])
@pytest.mark.parametrize(
    ("name", "tone_at"), [("constant", 50), ("varying", 50), ("turned", 50), ("edited", 50), ("late", 50 - 0.7 * 25)]
)
def test_the_sound_is_in_step_to_one_frame(talking, read, tmp_path, name, start, tone_at):
    """`tone_at`: the number of the frame that is shown when the tone begins; in `late`, frames are shown 0.7 s later."""
    found = read(f"{name}.mp4", source_start=start, format=("MP4",))
    shown = found.frames if name != "turned" else [frame.rotate(180) for frame in found.frames]
    assert found.fps == 25
    (tmp_path / "made.mp4").write_bytes(ffmpeg.encode_mp4(Clip(found.frames, 25, sound=found.sound), Quality()))
    with av.open(str(tmp_path / "made.mp4")) as video:
        sound = np.concatenate([part.to_ndarray()[0] for part in video.decode(audio=0)])
    onset = np.flatnonzero(np.abs(sound) > 0.2)[0] / 48000
    expected = next(index for index, number in enumerate(numbers(shown)) if number >= tone_at)
    assert onset == pytest.approx(expected / 25, abs=1 / 25)


@pytest.mark.parametrize("name", [*ENCODERS, "folder"])
def test_a_glance_has_the_frames_that_were_chosen(source, read, videos, name):
    counts = []

    def choose(count):
        counts.append(count)
        return [0, 200, COUNT - 1]

    glance = source.glance(Params(enable=True, video_path=str(videos / name)), choose, (200, 100), 60)
    assert counts == [glance.count] and abs(glance.count - COUNT) <= 1
    assert list(zip(glance.pictures, numbers(glance.pictures.values()))) == [(0, 0), (200, 200), (COUNT - 1, COUNT - 1)]


def test_the_pictures_of_a_glance_are_small(source, read, videos):
    glance = source.glance(Params(enable=True, video_path=str(videos / "a.mp4")), lambda count: [0, 9], (36, 36), 60)
    assert [picture.size for picture in glance.pictures.values()] == [(36, 16)] * 2


def test_a_glance_says_why_a_source_cannot_be_used(source, read, videos):
    (videos / "text.mp4").write_text("not a video, by its content")
    for name, words in {"text.mp4": "is not a video by its content", "../elsewhere.mp4": "lies outside the folders"}.items():
        with pytest.raises(source.RequestError, match=words):
            source.glance(Params(enable=True, video_path=str(videos / name)), lambda count: [0], (200, 100), 60)
