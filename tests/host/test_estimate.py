"""What earlier clips say of the next one."""

import pytest

from animatediff.estimate import Run, Size, memory, seconds, spoken

SMALL, LARGE = Size(16, 512, 512, 20), Size(16, 768, 768, 20)


def test_nothing_is_known_at_first():
    assert seconds([], SMALL) is None and memory([], SMALL) is None


def test_the_same_again_takes_as_long():
    assert seconds([Run("cpu", SMALL, 60.0), Run("cpu", LARGE, 200.0)], SMALL) == pytest.approx(60)
    assert seconds([Run("cpu", SMALL, 60.0), Run("cpu", LARGE, 200.0)], LARGE) == pytest.approx(200)


def test_the_latest_of_equals_counts():
    assert seconds([Run("cpu", SMALL, 60.0), Run("cpu", SMALL, 30.0)], SMALL) == pytest.approx(30)


@pytest.mark.parametrize(
    ("wanted", "times"),
    [
        (Size(32, 512, 512, 20), 2),
        (Size(16, 512, 512, 30), 1.5),
        (Size(16, 1024, 512, 20), 2),
        (Size(16, 512, 512, 20, videos=3), 3),
    ],
)
def test_time_goes_with_frames_pixels_steps_and_videos(wanted, times):
    assert seconds([Run("gpu", SMALL, 60.0)], wanted) == pytest.approx(60 * times)


def test_memory_is_a_straight_line_through_what_was_measured():
    """4 GB for the models and 3 GB for 16 frames of 512 pixels."""
    runs = [Run("gpu", size, 1.0, round(4e9 + 3e9 * size.pixels / SMALL.pixels)) for size in (SMALL, LARGE)]
    assert memory(runs, Size(32, 512, 512, 20)) == pytest.approx(10e9)
    assert memory(runs[:1], SMALL) is None, "one size says nothing of another"
    assert memory([Run("cpu", SMALL, 1.0), Run("cpu", LARGE, 1.0)], SMALL) is None


def test_memory_goes_with_the_frames_of_a_window():
    runs = [Run("gpu", size, 1.0, round(4e9 + 3e9 * size.pixels / SMALL.pixels)) for size in (SMALL, LARGE)]
    assert memory(runs, Size(64, 512, 512, 20, at_once=16)) == pytest.approx(7e9)
    assert seconds(runs[:1], Size(64, 512, 512, 20, at_once=16)) == pytest.approx(4)


@pytest.mark.parametrize(
    ("duration", "words"), [(0.2, "1 s"), (42.4, "42 s"), (60, "1 min 0 s"), (99, "1 min 30 s"), (3700, "1 h 1 min")]
)
def test_durations_are_said_as_people_do(duration, words):
    assert spoken(duration) == words
