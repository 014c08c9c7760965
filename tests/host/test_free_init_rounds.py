"""FreeInit's rounds around a sampler, against two passes written out."""

from types import SimpleNamespace

import pytest
import torch

from animatediff.job.free_init import Rounds
from animatediff.request.params import Params
from motion_module.initial_noise import noise_for_seeds

SHAPE = (6, 4, 4, 8)
LEFT = torch.tensor(0.04)
SEEDS = [5, 6, 7, 8, 9, 10]


def sampled(record):
    """A sampler whose clip is a function of all noise together."""

    def sample(_p, noise, weight, steps, bias):
        record.append((noise, steps))
        return weight * noise + noise.mean(dim=0, keepdim=True) + bias

    return sample


def rounds(interrupted=lambda: False, begins=lambda number: None, **settings):
    params = Params(enable=True, freeinit_enable=True, freeinit_ds=0.5, freeinit_dt=0.25, **settings)
    return Rounds(params, begins, interrupted, lambda: LEFT)


def run(rounds_of, steps=None):
    record = []
    first = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    latents = rounds_of.of(sampled(record))(SimpleNamespace(steps=12, seeds=SEEDS), first, 2.0, steps=steps, bias=1.0)
    return first, latents, record


def gaussian():
    """The definition, frequency by frequency."""
    kept = torch.zeros(6, 4, 8)
    for t in range(6):
        for h in range(4):
            for w in range(8):
                squared = (0.5 / 0.25 * (2 * t / 6 - 1)) ** 2 + (2 * h / 4 - 1) ** 2 + (2 * w / 8 - 1) ** 2
                kept[t, h, w] = torch.exp(torch.tensor(-squared / (2 * 0.5**2)))
    return torch.fft.ifftshift(kept)[:, None]


def test_two_rounds_are_two_passes_written_out():
    first, latents, record = run(rounds(freeinit_iters=2, freeinit_filter="gaussian"))
    sample = sampled([])
    clip = sample(None, first, 2.0, 12, 1.0)
    noised = 0.2 * clip + 0.96**0.5 * first
    fresh, axes = noise_for_seeds(first, SEEDS, 0), (0, 2, 3)
    mixed = torch.fft.fftn(noised, dim=axes) * gaussian() + torch.fft.fftn(fresh, dim=axes) * (1 - gaussian())
    second = torch.fft.ifftn(mixed, dim=axes).real
    torch.testing.assert_close(record[1][0], second)
    torch.testing.assert_close(latents, sample(None, second, 2.0, 12, 1.0))


def test_new_noise_is_another_one_behind_each_round_and_for_each_frame():
    like = torch.zeros(SHAPE)
    one, again, other = noise_for_seeds(like, SEEDS, 0), noise_for_seeds(like, SEEDS, 0), noise_for_seeds(like, SEEDS, 1)
    assert torch.equal(one, again) and not torch.equal(one, other) and not torch.equal(one[0], one[1])
    own = torch.randn(SHAPE[1:], generator=torch.Generator().manual_seed(SEEDS[0]))
    assert not torch.equal(one[0], own)
    assert abs(float(one.std()) - 1) < 0.1


@pytest.mark.parametrize(
    ("fast", "steps", "expected"), [(False, None, [12, 12, 12]), (True, None, [4, 8, 12]), (True, 2, [1, 1, 2])]
)
def test_rounds_take_all_steps_or_more_each_time(fast, steps, expected):
    begun = []
    _, _, record = run(rounds(freeinit_iters=3, freeinit_fast=fast, begins=begun.append), steps)
    assert [taken for _, taken in record] == expected and begun == [0, 1, 2]


def test_an_interrupt_in_a_later_round_returns_the_finished_clip_of_the_round_before():
    """The WebUI's sampler returns pure noise where it is interrupted in its first step."""
    calls = []

    def sample(_p, noise, steps):
        calls.append(noise)
        return noise + len(calls)

    stop = rounds(freeinit_iters=5, interrupted=lambda: len(calls) == 2)
    first = torch.zeros(SHAPE)
    latents = stop.of(sample)(SimpleNamespace(steps=4, seeds=SEEDS), first)
    assert len(calls) == 2 and torch.equal(latents, first + 1)


def test_only_the_last_round_changes_to_the_refiner():
    """Else the rounds after the first would begin on the refiner, with conditions of the base model."""
    seen = []

    def sample(p, noise, steps):
        seen.append(p.refiner_checkpoint_info)
        return noise

    p = SimpleNamespace(steps=4, seeds=SEEDS, refiner_checkpoint_info="refiner")
    rounds(freeinit_iters=3).of(sample)(p, torch.zeros(SHAPE))
    assert seen == [None, None, "refiner"] and p.refiner_checkpoint_info == "refiner"


def test_an_interrupt_ends_all_rounds_with_what_there_is():
    first, latents, record = run(rounds(freeinit_iters=5, interrupted=lambda: True))
    assert len(record) == 1
    torch.testing.assert_close(latents, sampled([])(None, first, 2.0, 12, 1.0))
