"""The seeds of the initial noise of frames."""

import pytest

from motion_module.initial_noise import seeds_of


def test_seeds_of_each_noise_type():
    assert seeds_of("per frame", 7, 5, 2, 1) == seeds_of("mixed", 7, 5, 2, 1) == [7, 8, 9, 10, 11]
    assert seeds_of("constant", 7, 5, 2, 1) == [7] * 5
    assert seeds_of("repeated context", 7, 5, 2, 1) == [7, 8, 7, 8, 7]


@pytest.mark.parametrize(
    ("frames", "window", "advance"), [(40, 16, 4), (33, 16, 12), (16, 16, 12), (9, 16, 12), (20, 5, 3), (7, 1, 1)]
)
def test_freenoise_shuffles_seeds_of_the_window_before(frames, window, advance):
    seeds = seeds_of("FreeNoise", 100, frames, window, advance)
    assert len(seeds) == frames and seeds[:window] == list(range(100, 100 + min(frames, window)))
    for start in range(window, frames, advance):
        part = seeds[start : start + advance]
        before = seeds[start - window : start - window + advance]
        assert sorted(part) == sorted(before) if len(part) == advance else set(part) <= set(before)
    assert seeds == seeds_of("FreeNoise", 100, frames, window, advance)


def test_freenoise_depends_on_the_seed():
    first, other = ([seed - base for seed in seeds_of("FreeNoise", base, 64, 16, 12)] for base in (1, 2))
    assert first != other and first != [frame % 16 for frame in range(64)]
