"""Clips that begin and end with given images."""

import pytest
import torch

from motion_module.init_frames import between, faded, faded_between, free, mixed, shares, shares_of


def numbers(tensor):
    return [round(value, 6) for value in tensor.tolist()]


def test_an_image_fades_by_power_and_scale():
    assert numbers(faded(5, 1, 4)) == [1, 0.75, 0.5, 0.25, 0]
    assert numbers(faded(5, 2, 4)) == [1, 0.75, 0, 0, 0]


def test_two_images_fade_into_each_other_with_a_sum_of_at_most_one():
    """Frame 1 has weights of 0.9 and 0.7, which are divided by their sum. The first and last frames have one image alone."""
    of_first, of_last = faded_between(4, (1, 10), (1, 10 / 1.5))
    assert numbers(of_first) == [1, round(0.9 / 1.6, 6), round(0.8 / 1.65, 6), 0]
    assert numbers(of_last) == [0, round(0.7 / 1.6, 6), round(0.85 / 1.65, 6), 1]


def test_noise_has_the_rest_of_the_weight():
    first, last, noise = (torch.full((1, 1, 1, 1), value) for value in (1.0, 10.0, 100.0))
    parts = torch.tensor([1.0, 0.5, 0.0]), torch.tensor([0.0, 0.2, 0.0])
    found = mixed(first, parts[0], last, parts[1], noise.expand(3, 1, 1, 1))
    assert numbers(found.flatten()) == [1, 0.5 + 2 + 30, 100]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"reach": 0}, [1, 1, 1, 1, 1]),
        ({"reach": 1}, [0, 0.25, 0.5, 0.75, 1]),
        ({"reach": 0.5}, [0, 0.5, 1, 1, 1]),
        ({"reach": 0.01}, [0, 1, 1, 1, 1]),
        ({"reach": 1, "last": True}, [0, 0.25, 0.5, 0.25, 0]),
        ({"reach": 1, "closed": True}, [0, 0.25, 0.5, 0.5, 0.25]),
        ({"reach": 1, "last": True, "closed": True}, [0, 0.25, 0.5, 0.25, 0]),
    ],
)
def test_strength_grows_with_the_distance_from_given_images(arguments, expected):
    assert numbers(shares(5, **arguments)) == expected


def test_a_frame_is_denoised_in_its_fraction_of_the_steps():
    """In eight steps, the frames are denoised in none, two, five (5.6 rounded down) and all."""
    taken = sum(free(torch.tensor([0.0, 0.25, 0.7, 1.0]), step / 8).long() for step in range(8))
    assert taken.tolist() == [0, 2, 5, 8]


def test_two_images_are_interpolated_linearly():
    found = between(torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 3.0), 4)
    assert numbers(found.flatten()) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("more", "taken"), [(1, [0, 1, 2, 4, 6, 7]), (-1, [0, 0, 0, 2, 4, 5])], ids=["by sigmas", "by timesteps"]
)
def test_a_frame_takes_as_many_steps_as_if_all_had_its_strength(more, taken):
    """Of eight steps, a strength of 0.05 takes none, of 0.75 six: and one more with the WebUI's samplers by sigmas."""
    strengths = (0.0, 0.05, 0.125, 0.375, 0.625, 0.75)
    found = shares_of(strengths, 8, more)
    steps = taken[-1]
    assert sum(free(found, step / steps).long() for step in range(steps)).tolist() == taken
