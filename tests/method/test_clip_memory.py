"""What grows with a clip's length, counted on tensors without contents."""

from functools import cache

import clip_memory
import pytest
import torch

pytestmark = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 9), reason="tensors of a second device need torch 2.9"
)
most_alive = cache(clip_memory.most_alive)
SHARED, WAITING = "share attention", "share attention, waiting in RAM"


def test_frames_that_wait_in_ram_leave_the_card_to_those_that_do_not():
    (few, few_waiting), (many, many_waiting) = (most_alive(frames, 256, WAITING) for frames in (64, 256))
    assert many <= 1.3 * few, "four times the frames"
    assert few_waiting > 0.5 and many_waiting == pytest.approx(4 * few_waiting, rel=0.01)
    assert most_alive(64, 256, SHARED)[0] > few + few_waiting / 2, "else they lie on the card"


def test_windows_over_whole_frames_take_what_one_takes():
    assert most_alive(64, 256, "blend whole frames")[0] < 1.1 * most_alive(16, 256, "no windows")[0]


def test_a_pass_takes_no_more_where_layers_are_wide():
    """64 frames of 512×512 have a quarter of the positions at the level of 640 channels, and would be done in one pass."""
    assert most_alive(64, 512, WAITING)[0] < 1.7
