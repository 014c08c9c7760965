"""Frames of a source video, told apart by the numbers that are drawn into them: none is lost, doubled or out of place."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from animatediff.request.params import Params
from animatediff.video import ffmpeg, gif
from animatediff.video.clip import Clip, Quality

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
    with pytest.raises(source.RequestError, match=r"Reading a\.mp4 was interrupted at its frame 5"):
        read("a.mp4", source_start=400)
    assert len(decoded) == 5


def test_uploads_may_be_read(source, videos, monkeypatch):
    monkeypatch.setitem(source.shared.opts.data, "animatediff_source_folders", "")
    refused = pytest.raises(source.RequestError, match="outside the folders that may be read")
    with refused:
        source.find(str(videos / "a.mp4"))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(videos))
    assert source.find(str(videos / "a.mp4")) == videos / "a.mp4"


def test_frames_of_a_folder_that_lead_elsewhere_are_not_read(source, videos, tmp_path, monkeypatch):
    monkeypatch.setitem(source.shared.opts.data, "animatediff_source_folders", str(tmp_path / "mine"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "0.png").symlink_to(videos / "folder" / "0.png")
    with pytest.raises(source.RequestError, match=r"0\.png' lies outside"):
        source.find(str(tmp_path / "mine"))
