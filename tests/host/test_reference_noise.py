"""The noise of reference units, in windows."""

from types import ModuleType

import pytest
import torch

from animatediff.controlnet import reference_noise
from motion_module.windowed_unet import Part

CONTROLNET = """
class UnetHook:
    def hook(self):
        pass


def predict_q_sample(model, latents, timesteps, noise=None):
    return latents + noise
"""
FIRST, SECOND = torch.tensor([0, 1, 4, 5]), torch.tensor([1, 2, 5, 6])
"""The rows of two windows, of a prompt's four frames and a negative prompt's."""


@pytest.fixture
def controlnet():
    module = ModuleType("hook")
    exec(CONTROLNET, vars(module))
    return module


def test_each_unit_draws_once_for_all_windows_of_a_call_as_it_does_in_a_plain_batch(controlnet):
    torch.manual_seed(3)
    of_first_unit, of_second_unit = (torch.randn_like(torch.zeros(8, 4, 2, 2)) for _ in range(2))
    torch.manual_seed(3)
    before, around = controlnet.predict_q_sample, reference_noise.begin_call(controlnet.UnetHook())
    for chosen in (FIRST, SECOND):
        with around(Part(8, chosen, chosen[:2])):
            for drawn in (of_first_unit, of_second_unit):
                latents = torch.ones(4, 4, 2, 2)
                found = controlnet.predict_q_sample(None, latents, None)
                torch.testing.assert_close(found, 1 + drawn[chosen], rtol=0, atol=0)
    assert controlnet.predict_q_sample is before


def test_the_next_call_draws_anew(controlnet):
    found = []
    for _ in range(2):
        with reference_noise.begin_call(controlnet.UnetHook())(Part(8, FIRST, FIRST[:2])):
            found.append(controlnet.predict_q_sample(None, torch.zeros(4, 4, 2, 2), None))
    assert not torch.equal(*found)


def test_a_controlnet_without_that_function_is_left_alone():
    with reference_noise.begin_call(object())(Part(8, FIRST, FIRST[:2])):
        pass
