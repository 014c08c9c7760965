"""Masks of a clip: how folders and videos of them are read, and what they cover together."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from animatediff.errors import RequestError
from animatediff.video import ffmpeg, gif
from animatediff.video.clip import Clip, Quality

ROOT = Path(__file__).resolve().parents[2]
COUNT = 6


@pytest.fixture(scope="module")
def masks():
    """The module, imported with the embedded host's `modules`."""
    sys.path.insert(0, str(ROOT / "demo" / "host" / "webui"))
    yield importlib.import_module("animatediff.request.masks")
    sys.path.remove(str(ROOT / "demo" / "host" / "webui"))


@pytest.fixture
def read(masks, tmp_path, monkeypatch):
    monkeypatch.setitem(masks.shared.opts.data, "animatediff_source_folders", str(tmp_path))
    return lambda name: masks.read(str(tmp_path / name))


def circles():
    found = []
    for index in range(COUNT):
        found.append(Image.new("L", (96, 64)))
        ImageDraw.Draw(found[-1]).ellipse((4 + 10 * index, 8, 30 + 10 * index, 50), fill=255)
    return found


def save(pictures, folder):
    folder.mkdir()
    for index, picture in enumerate(pictures):
        picture.save(folder / f"{index}.png")


@pytest.mark.parametrize("mode", ["L", "RGB", "1", "P", "LA"])
def test_white_is_the_mask_of_pictures_without_transparency(read, tmp_path, mode):
    save([circle.convert(mode) for circle in circles()], tmp_path / "folder")
    for found, circle in zip(read("folder"), circles(), strict=True):
        assert found.mode == "L"
        np.testing.assert_array_equal(found, circle)


def test_levels_between_are_kept(read, tmp_path):
    levels = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    save([levels], tmp_path / "folder")
    np.testing.assert_array_equal(read("folder")[0], levels)


@pytest.mark.parametrize("colour", ["black", "white", "#10e080"])
def test_what_is_opaque_is_the_mask_of_a_picture_with_transparency(read, tmp_path, colour):
    transparent = []
    for circle in circles():
        transparent.append(Image.new("RGBA", circle.size, colour))
        transparent[-1].putalpha(circle)
    save(transparent, tmp_path / "folder")
    for found, circle in zip(read("folder"), circles(), strict=True):
        np.testing.assert_array_equal(found, circle)


def test_alpha_is_rounded_as_the_webui_does(read, tmp_path):
    picture = Image.new("RGBA", (256, 4))
    picture.putalpha(Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (4, 1))))
    save([picture], tmp_path / "folder")
    np.testing.assert_array_equal(np.asarray(read("folder")[0])[0], np.where(np.arange(256) > 128, 255, 0))


def test_one_picture_is_one_mask(read, tmp_path):
    circles()[0].save(tmp_path / "one.png")
    assert len(read("one.png")) == 1


@pytest.mark.parametrize("suffix", ["mp4", "webm", "gif"])
def test_a_video_has_pure_black_and_white(read, tmp_path, suffix):
    """An MP4 leaves grey around edges, and the WebUI crops to all that is not black."""
    encode = {"mp4": ffmpeg.encode_mp4, "webm": ffmpeg.encode_webm, "gif": gif.encode_gif}[suffix]
    (tmp_path / f"a.{suffix}").write_bytes(encode(Clip([circle.convert("RGB") for circle in circles()], 8), Quality()))
    for found, circle in zip(read(f"a.{suffix}"), circles(), strict=True):
        found, circle = np.asarray(found), np.asarray(circle)
        edges = np.asarray(Image.fromarray(circle).resize((24, 16), Image.Resampling.BOX).resize((96, 64), 0))
        np.testing.assert_array_equal(found[edges == 0], 0)
        np.testing.assert_array_equal(found[edges == 255], 255)
        assert ((found > 127) != (circle > 127)).mean() < 0.01


def test_together_they_cover_what_one_of_them_covers(masks):
    together = np.max([np.asarray(circle) for circle in circles()], axis=0)
    np.testing.assert_array_equal(masks.union(circles(), inverted=False), together)
    inverted = [Image.fromarray(255 - np.asarray(circle)) for circle in circles()]
    np.testing.assert_array_equal(masks.union(inverted, inverted=True), 255 - together)


def test_reading_ends_where_nobody_wants_it_any_more(masks, read, tmp_path, monkeypatch):
    save(circles(), tmp_path / "folder")
    monkeypatch.setattr(masks.shared.state, "interrupted", True)
    with pytest.raises(RequestError, match="interrupted at mask 1"):
        read("folder")


def test_a_damaged_mask_is_named(read, tmp_path):
    save(circles(), tmp_path / "folder")
    (tmp_path / "folder" / "3.png").write_bytes((tmp_path / "folder" / "3.png").read_bytes()[:60])
    with pytest.raises(RequestError, match=r"folder or video of masks \(mask_path\), folder, cannot be used: 3\.png"):
        read("folder")


def see_through(alpha):
    return Image.merge("RGBA", [Image.new("L", alpha.size)] * 3 + [alpha])


def test_the_first_mask_decides_whether_all_are_read_by_transparency(read, tmp_path):
    circle, everything = circles()[0], Image.new("L", (96, 64), 255)
    save([see_through(circle), see_through(everything)], tmp_path / "folder")
    first, second = read("folder")
    np.testing.assert_array_equal(first, circle)
    np.testing.assert_array_equal(second, everything)
    save([see_through(everything), see_through(circle)], tmp_path / "other")
    with pytest.raises(RequestError, match="mask 2 is transparent somewhere, but the masks before it are not"):
        read("other")
