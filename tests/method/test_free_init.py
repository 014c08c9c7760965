"""FreeInit's filters and mixture, compared with their definitions."""

import math

import pytest
import torch

from motion_module.free_init import low_pass, with_low_frequencies_of

SHAPE = (6, 4, 5)


def as_defined(kind, spatial, temporal):
    """Returns the response of a filter, computed frequency by frequency."""
    kept = torch.zeros(SHAPE)
    frames, height, width = SHAPE
    for t in range(frames):
        for h in range(height):
            for w in range(width):
                squared = (
                    (spatial / temporal * (2 * t / frames - 1)) ** 2 + (2 * h / height - 1) ** 2 + (2 * w / width - 1) ** 2
                )
                kept[t, h, w] = {
                    "butterworth": 1 / (1 + (squared / spatial**2) ** 4),
                    "gaussian": math.exp(-squared / (2 * spatial**2)),
                    "ideal": float(squared <= 2 * spatial),
                }[kind]
    return kept


@pytest.mark.parametrize("kind", ["butterworth", "gaussian", "ideal"])
@pytest.mark.parametrize(("spatial", "temporal"), [(0.25, 0.25), (0.5, 0.125), (1.0, 1.0)])
def test_filters_are_those_of_their_definitions(kind, spatial, temporal):
    torch.testing.assert_close(low_pass(SHAPE, kind, spatial, temporal), as_defined(kind, spatial, temporal))


def test_the_box_keeps_what_is_around_the_lowest_frequency():
    kept = low_pass((8, 8, 4), "box", 0.5, 0.25)
    inside = torch.zeros(8, 8, 4)
    inside[3:5, 2:6, :] = 1  # two to either side in both directions: the reference uses the height for both
    assert torch.equal(kept, inside)


@pytest.mark.parametrize("kind", ["butterworth", "gaussian", "box", "ideal"])
def test_a_cutoff_of_zero_keeps_nothing(kind):
    assert not low_pass(SHAPE, kind, 0, 0.25).any() and not low_pass(SHAPE, kind, 0.25, 0).any()


def test_all_of_the_clip_or_none_of_it_may_be_taken():
    clip, noise = torch.randn(6, 4, 4, 5), torch.randn(6, 4, 4, 5)
    torch.testing.assert_close(with_low_frequencies_of(clip, noise, torch.ones(SHAPE)), clip)
    torch.testing.assert_close(with_low_frequencies_of(clip, noise, torch.zeros(SHAPE)), noise)


def test_low_frequencies_come_from_the_clip_and_high_ones_from_the_noise():
    """One wave has a period of all frames, the other of two frames."""
    frames = torch.arange(8.0).view(8, 1, 1, 1)
    slow = torch.cos(2 * math.pi * frames / 8).expand(8, 4, 6, 6)
    fast = torch.cos(math.pi * frames).expand(8, 4, 6, 6)
    kept = low_pass((8, 6, 6), "box", 1.0, 0.5)
    torch.testing.assert_close(with_low_frequencies_of(slow + fast, torch.zeros(8, 4, 6, 6), kept), slow)
    torch.testing.assert_close(with_low_frequencies_of(torch.zeros(8, 4, 6, 6), slow + fast, kept), fast)
