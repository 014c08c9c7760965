"""Numbers for each frame, written as keyframes."""

from time import perf_counter

import pytest

from motion_module.frame_schedule import read_schedule
from motion_module.prompt_travel import TravelError


def values(text, frames, **how):
    return read_schedule(text, frames, **how).values


def test_between_keyframes_numbers_lie_on_a_line_and_outside_they_are_held():
    assert values("4: 1\n8: 0.5", 12) == (1, 1, 1, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.5, 0.5, 0.5)


def test_ranges_hold_and_frames_may_be_percentages_or_counted_from_the_end():
    assert values("0: 1.0\n2-4: 0.5\n100%: 1", 9) == (1, 0.75, 0.5, 0.5, 0.5, 0.625, 0.75, 0.875, 1)
    assert values("0%: 0\n50%: 2\n-1: 0", 5) == values("0: 0, 2: 2, 4: 0", 5) == (0, 1, 2, 1, 0)


def test_a_number_of_many_digits_is_refused_at_once():
    began = perf_counter()
    with pytest.raises(TravelError, match="cannot be read"):
        values(f"0: {'1' * 40_000}x", 4)
    assert perf_counter() - began < 1


def test_a_closed_loop_goes_on_from_the_last_keyframe_to_the_first():
    assert values("0: 0\n4: 1", 8, closed=True) == (0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25)
    assert values("2: 0\n6: 1", 8, closed=True) == (0.5, 0.25, 0, 0.25, 0.5, 0.75, 1, 0.75)


@pytest.mark.parametrize(
    "text",
    [
        "0: -1, 2: 1",
        "2: 1; 0: -1",
        "0:-1\n2:1",
        "0 = -1\n\n2 = +1.0,",
        '{"0": "-1", "2": 1}',
        "0:(-1.0), 2:(1.0)",
        "0：−1，2：1",
        "- 0: -1\n- 2: 1.",
        "\ufeff0: -1\u200b\r\n2: 1\r\n",
    ],
)
def test_other_ways_to_write_the_same(text):
    assert values(text, 4) == (-1, 0, 1, 1)


def test_no_number_is_a_time_of_day():
    """As words of a prompt, “0: 30” and “0:12” are none of a keyframe."""
    assert values("0: 30", 2) == values("0:30", 2) == (30, 30)


@pytest.mark.parametrize("text", ["", "  \n "])
def test_nothing_is_no_schedule(text):
    assert read_schedule(text, 4) is None


@pytest.mark.parametrize(
    ("text", "words", "lines"),
    [
        ("0.8", ["“0.8” cannot be read", "8: 0.5"], ("0.8",)),
        ("0: a cat", ["“0: a cat” cannot be read"], ("0: a cat",)),
        ("0: 1\n4:", ["“4:” cannot be read"], ("4:",)),
        ("0: 1,5", ["“5” cannot be read"], ("5",)),
        ("0: 1, 0.5: 2", ["“0.5: 2” cannot be read"], ("0.5: 2",)),
        ("0: nan", ["“0: nan” cannot be read"], ("0: nan",)),
        ("0: 1e3", ["“0: 1e3” cannot be read"], ("0: 1e3",)),
        (f"0: 1{'0' * 400}", ["cannot be read"], (f"0: 1{'0' * 75}…",)),
        (",", ["“,” has no keyframe", "8: 0.5"], (",",)),
        ("0: 1\n16: 2", ["“16: 2” is outside the video", "0 to 15", "video_length"], ("16: 2",)),
        ("110%: 2", ["“110%: 2” is outside the video"], ("110%: 2",)),
        ("8-4: 1", ["“8-4: 1” ends at frame 4, before it starts"], ("8-4: 1",)),
        ("0-8: 1\n50%: 2", ["Two keyframes are at frame 8"], ("0-8: 1", "50%: 2")),
    ],
)
def test_what_cannot_be_read_is_named_with_what_to_do(text, words, lines):
    with pytest.raises(TravelError) as error:
        read_schedule(text, 16)
    assert all(word in str(error.value) for word in words)
    assert error.value.lines == lines
