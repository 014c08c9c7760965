"""AnimateLCM's timesteps in a WebUI whose LCM sampler is one of k-diffusion's, such as Neo's."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from animatediff.job.samplers import original_steps

SIGMAS = torch.arange(1.0, 1001.0)


class Sampler:
    """The WebUI's: its schedule comes from the model's wrapper."""

    def __init__(self, funcname):
        self.funcname = funcname
        self.model_wrap = SimpleNamespace(sigmas=SIGMAS, get_sigmas=lambda n: torch.linspace(900, 0, n + 1))

    def get_sigmas(self, p, steps):
        return self.model_wrap.get_sigmas(steps)


@pytest.fixture
def k_diffusion(monkeypatch):
    module = ModuleType("modules.sd_samplers_kdiffusion")
    module.KDiffusionSampler = Sampler
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delitem(sys.modules, "modules.sd_samplers_lcm", raising=False)
    return module


def levels(k_diffusion, funcname, steps):
    sampler = k_diffusion.KDiffusionSampler(funcname)
    own = sampler.model_wrap.get_sigmas
    found = sampler.get_sigmas(None, steps).tolist()
    assert sampler.model_wrap.get_sigmas is own
    return found


@pytest.mark.parametrize(
    ("original", "steps", "timesteps"),
    [(100, 4, [999, 749, 499, 249]), (100, 6, [999, 839, 669, 499, 339, 169]), (200, 2, [999, 499])],
)
def test_lcm_is_sampled_at_the_authors_timesteps(k_diffusion, original, steps, timesteps):
    before = levels(k_diffusion, "sample_lcm", steps)
    with original_steps(original, alphas_of=None):
        assert levels(k_diffusion, "sample_lcm", steps) == [*SIGMAS[timesteps].tolist(), 0]
    assert levels(k_diffusion, "sample_lcm", steps) == before and k_diffusion.KDiffusionSampler is Sampler


def test_other_samplers_and_modules_keep_the_webuis_timesteps(k_diffusion):
    own = levels(k_diffusion, "sample_euler", 4)
    with original_steps(100, alphas_of=None):
        assert levels(k_diffusion, "sample_euler", 4) == own
    with original_steps(0, alphas_of=None):
        assert levels(k_diffusion, "sample_lcm", 4) == own
