"""Noise schedules, compared with the definitions of DDPM computed step by step."""

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

from motion_module.families import FAMILIES
from motion_module.noise_schedule import ANIMATEDIFF, STABLE_DIFFUSION, to_zero_terminal_snr


def test_animatediffs_schedule_is_linear_in_beta():
    signal = 1.0
    for step in range(1000):
        signal *= 1 - (0.00085 + (0.012 - 0.00085) * step / 999)
        assert ANIMATEDIFF.alphas_cumprod()[step].item() == pytest.approx(signal, rel=1e-6)


def test_stable_diffusions_schedule_is_linear_in_the_root_of_beta():
    signal = 1.0
    for step in range(1000):
        signal *= 1 - (0.00085**0.5 + (0.012**0.5 - 0.00085**0.5) * step / 999) ** 2
        assert STABLE_DIFFUSION.alphas_cumprod()[step].item() == pytest.approx(signal, rel=1e-6)


def test_the_largest_sigma_of_stable_diffusion_is_the_well_known_one():
    assert STABLE_DIFFUSION.sigmas()[-1].item() == pytest.approx(14.6146, abs=1e-3)
    assert ANIMATEDIFF.sigmas()[-1].item() > 20  # noisier at the end, as in the paper


@pytest.mark.parametrize(("key", "last"), [("xl-beta", 0.020), ("hotshot", 0.012)])
def test_both_families_for_sdxl_are_linear_in_the_root_of_beta(key, last):
    """guoyww/AnimateDiff, branch sdxl: `scaled_linear` of diffusers, to 0.020. HotShot-XL trains with SDXL's own scheduler."""
    found = FAMILIES[key].schedule.alphas_cumprod().double()
    betas = (0.00085**0.5 + (last**0.5 - 0.00085**0.5) * torch.arange(1000, dtype=torch.float64) / 999) ** 2
    torch.testing.assert_close(found, (1 - betas).cumprod(0), rtol=2e-5, atol=0)


@pytest.mark.parametrize("schedule", [ANIMATEDIFF, STABLE_DIFFUSION])
def test_zero_terminal_snr_is_that_of_diffusers(schedule):
    alphas = schedule.alphas_cumprod()
    previous = torch.cat([torch.ones(1, dtype=torch.float64), alphas[:-1].double()])
    theirs = (1 - rescale_zero_terminal_snr(1 - alphas.double() / previous)).cumprod(0)
    ours = to_zero_terminal_snr(alphas)
    assert theirs[-1] == 0 < ours[-1] < 1e-7
    torch.testing.assert_close(ours[:-1].double(), theirs[:-1], rtol=1e-4, atol=1e-7)


def test_each_table_is_a_new_tensor():
    first = ANIMATEDIFF.alphas_cumprod()
    first.zero_()
    assert torch.all(ANIMATEDIFF.alphas_cumprod() > 0)
