"""Which frames of a source video the page shows, and how they are marked."""

import re

import pytest
from PIL import Image

from animatediff.page.source_strip import MOST, Used, strip


def figures(used, fps=10.0, is_exact=True):
    """Returns what is below each thumbnail, whether it is used, and its marks."""
    pictures = {frame: Image.new("RGB", (320, 180)) for frame in used.shown()}
    found = re.findall(r"<figure class='([^']*)'>.*?</?figcaption>", strip(used, pictures, fps, is_exact=is_exact))
    marks = re.findall(r"<figure.*?>.*?<img[^>]*>(.*?)<figcaption>(.*?) ", strip(used, pictures, fps, is_exact=is_exact))
    return [
        (number, is_used == "ad-source-used", re.findall("<b>(.*?)</b>", mark)) for is_used, (mark, number) in zip(found, marks)
    ]


def test_every_nth_frame_of_a_short_source_is_marked():
    assert figures(Used(8, 1, 3, 0)) == [
        ("0", False, []),
        ("1", True, ["first"]),
        ("2", False, []),
        ("3", False, []),
        ("4", True, []),
        ("5", False, []),
        ("6", False, []),
        ("7", True, ["last"]),
    ]


@pytest.mark.parametrize(("start", "stride", "wanted"), [(0, 1, 0), (10, 4, 16), (37, 7, 3), (999, 1, 1), (0, 500, 0)])
def test_of_a_long_source_used_frames_are_shown_where_there_are_any(start, stride, wanted):
    used = Used(1000, start, stride, wanted)
    shown = used.shown()
    first, last = used.frames[0], used.frames[-1]
    assert shown == sorted(set(shown)) and {first, last} <= set(shown) <= set(range(1000)) and len(shown) <= MOST + 2
    assert [frame for frame in shown if first <= frame <= last and frame not in used.frames] == []
    assert {0, 999} <= set(shown) | set(range(first, first + stride)) | set(range(last, last + stride))


def test_a_source_shorter_than_what_is_skipped_shows_itself_without_marks():
    used = Used(50, 60, 1, 0)
    assert len(figures(used)) == MOST and not any(is_used for _, is_used, _ in figures(used))
    assert "<span>Frames used:</span> 0 · <span>Frames of the source:</span> 50" in strip(used, {}, 10, is_exact=True)


def test_fewer_frames_than_wanted_are_said():
    assert "Fewer than Number of frames" in strip(Used(50, 0, 4, 16), {}, 10, is_exact=True)
    assert "Fewer than Number of frames" not in strip(Used(50, 0, 3, 16), {}, 10, is_exact=True)


def test_a_stated_number_is_called_about():
    assert [number for number, *_ in figures(Used(4, 0, 1, 0), is_exact=False)] == ["0", "1", "2", "≈3"]
    assert "<span>Frames of the source, about:</span> 4" in strip(Used(4, 0, 1, 0), {}, 0, is_exact=False)


def test_times_are_those_of_the_source():
    html = strip(Used(40_000, 0, 1, 0), {35_995: Image.new("RGB", (4, 4))}, 10, is_exact=True)
    assert "35995 <small>59:59.50</small>" in html and "· 0:00.00–1:06:39.90 ·" in html
    assert "<small>" not in strip(Used(40, 0, 1, 0), {3: Image.new("RGB", (4, 4))}, 0, is_exact=True)


def test_a_source_that_does_not_tell_its_length_shows_its_first_frame():
    used = Used(0, 5, 1, 0)
    assert used.shown() == [0]
    assert "does not tell how many frames" in strip(used, {0: Image.new("RGB", (4, 4))}, 10, is_exact=False)
