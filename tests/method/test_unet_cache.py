"""The cache of UNet calls: every kind of sampler gives the same result when it is resumed."""

import copy
from contextlib import nullcontext
from itertools import pairwise

import pytest
import torch
from torch import nn

from motion_module import unet_cache
from motion_module.unet_cache import UNetCache

STEPS = 8
SIGMAS = torch.linspace(10, 0.1, STEPS + 1)


def ancestral(model, x):
    """A sampler that adds new noise in each step."""
    for sigma, following in pairwise(SIGMAS):
        x = model(x, sigma) + following * torch.randn_like(x)
    return x


def second_order(model, x):
    """A sampler with two calls in each step."""
    for sigma, following in pairwise(SIGMAS):
        slope = (x - model(x, sigma)) / sigma
        tried = x + slope * (following - sigma)
        x = x + (slope + (tried - model(tried, following)) / following) / 2 * (following - sigma)
    return x


def multistep(model, x):
    """A sampler that uses the previous result and adds noise."""
    before = None
    for sigma, following in pairwise(SIGMAS):
        found = model(x, sigma)
        ahead = found if before is None else 1.5 * found - 0.5 * before
        x = following / sigma * x + (1 - following / sigma) * ahead + 0.1 * torch.randn_like(x)
        before = found
    return x


class CutOff(BaseException):
    """Simulates a kill, which no `except Exception` catches."""


class Model(nn.Module):
    """A nonlinear function of its arguments. After `most` calls it is killed."""

    def __init__(self, most=1000, weight=0.3):
        super().__init__()
        self.calls, self.most, self.weight = 0, most, weight

    def forward(self, x, t, c_crossattn):
        if self.calls == self.most:
            raise CutOff
        self.calls += 1
        return torch.tanh(self.weight * x + c_crossattn[0].mean() / (1 + t.view(-1, 1, 1, 1)))


@pytest.fixture
def start():
    return torch.randn(3, 4, 6, 5, generator=torch.Generator().manual_seed(0)) * SIGMAS[0]


def sampled(sampler, start, model, cache=None, context=0.5):
    torch.manual_seed(1)

    def denoise(x, sigma):
        return model(x, sigma.expand(len(x)), c_crossattn=[torch.full((1, 2), context)])

    with cache.applied_to(model) if cache else nullcontext():
        return sampler(denoise, start)


def cut_off(folder, start, sampler=ancestral, calls=5):
    with pytest.raises(CutOff):
        sampled(sampler, start, Model(most=calls), UNetCache(folder, lambda: "somewhere"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([1, 23], [12, 3]),
        (["ab", "c"], ["a", "bc"]),
        ([1, "23"], ["1", 23]),
        ([True], ["True"]),
        ([[1], 2], [[1, 2]]),
        ([[], []], [[[]]]),
        ({"a": 1, "b": 2}, {"a": 12, "b": 2}),
        ({"a": {"b": 1}}, {"a": {}, "b": 1}),
        ({"a": 1}, [["a", 1]]),
        (torch.zeros(2), torch.zeros(2, 1)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int32)),
        ([torch.zeros(1), torch.zeros(2)], [torch.zeros(2), torch.zeros(1)]),
        ([torch.tensor([1, 2], dtype=torch.uint8), 3], [torch.tensor([1], dtype=torch.uint8), 23]),
        (None, "None"),
    ],
)
def test_different_arguments_have_different_names(one, other):
    assert unet_cache._digest(one) != unet_cache._digest(other)
    assert unet_cache._digest(one) == unet_cache._digest(copy.deepcopy(one))


@pytest.mark.parametrize("sampler", [ancestral, second_order, multistep])
def test_a_resumed_sampler_gives_the_same_result(sampler, start, tmp_path):
    whole = Model()
    expected = sampled(sampler, start, whole)
    cut_off(tmp_path, start, sampler)
    assert len(list(tmp_path.iterdir())) == 5
    model, cache = Model(), UNetCache(tmp_path, lambda: f"call {model.calls}")
    assert torch.equal(sampled(sampler, start, model, cache), expected)
    assert model.calls == whole.calls - 5 + 1, "the first call is made again"
    assert cache.resumed_after == "call 1" and not cache.outdated and "forward" not in vars(model)


def test_a_sampler_can_be_interrupted_several_times(start, tmp_path):
    expected = sampled(multistep, start, Model())
    for calls in (2, 3, 2):
        cut_off(tmp_path, start, multistep, calls)
    assert len(list(tmp_path.iterdir())) == 2 + 2 + 1
    assert torch.equal(sampled(multistep, start, Model(), UNetCache(tmp_path, str)), expected)


def test_a_complete_cache_needs_one_call(start, tmp_path):
    sampled(second_order, start, Model(), UNetCache(tmp_path, str))
    model = Model()
    cache = UNetCache(tmp_path, str)
    sampled(second_order, start, model, cache)
    assert model.calls == 1 and cache.resumed_after is not None


@pytest.mark.parametrize("asked", ["noise", "conditions"])
def test_other_arguments_give_other_results(asked, start, tmp_path):
    cut_off(tmp_path, start)
    context, other = (0.5, start + 0.01) if asked == "noise" else (0.6, start)
    model, cache = Model(), UNetCache(tmp_path, str)
    assert torch.equal(sampled(ancestral, other, model, cache, context), sampled(ancestral, other, Model(), context=context))
    assert model.calls == STEPS and cache.resumed_after is None
    assert len(list(tmp_path.iterdir())) == STEPS, "those of the other noise are deleted"


def test_results_of_another_model_are_not_used(start, tmp_path):
    cut_off(tmp_path, start)
    model, cache = Model(weight=0.31), UNetCache(tmp_path, str)
    expected = sampled(ancestral, start, Model(weight=0.31))
    assert torch.equal(sampled(ancestral, start, model, cache), expected)
    assert cache.outdated and cache.resumed_after is None and model.calls == STEPS


def test_results_that_differ_by_rounding_are_used(start, tmp_path):
    """The results are then those of the cache, from which the sampler continued."""
    expected = sampled(ancestral, start, Model())
    cut_off(tmp_path, start, calls=STEPS - 1)
    cache = UNetCache(tmp_path, str)
    again = sampled(ancestral, start, Model(weight=0.3 + 1e-6), cache)
    assert cache.resumed_after is not None and torch.allclose(again, expected, atol=1e-5)


@pytest.mark.parametrize("left", [0, 20, -1])
def test_calls_after_a_damaged_file_are_made_again(left, start, tmp_path):
    expected = sampled(multistep, start, Model())
    cut_off(tmp_path, start, multistep, calls=2)
    first_two = set(tmp_path.iterdir())
    cut_off(tmp_path, start, multistep, calls=2)
    (third,) = set(tmp_path.iterdir()) - first_two
    cut_off(tmp_path, start, multistep, calls=3)
    third.write_bytes(third.read_bytes()[:left])
    model = Model()
    assert torch.equal(sampled(multistep, start, model, UNetCache(tmp_path, str)), expected)
    assert model.calls == STEPS - 2 + 1


def test_a_full_disk_does_not_stop_sampling(start, tmp_path, monkeypatch):
    def half(_tensors, file, _metadata):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    cache = UNetCache(tmp_path, str)
    monkeypatch.setattr("motion_module.unet_cache.save_file", half)
    assert torch.equal(sampled(multistep, start, Model(), cache), sampled(multistep, start, Model()))
    assert "No space left" in cache.problem and not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_every_dtype_is_restored(kind, tmp_path):
    class Halving(nn.Module):
        def forward(self, x):
            return x / 3

    x, again = torch.arange(8, dtype=kind), torch.arange(8, 16, dtype=kind)
    for _ in range(2):
        model = Halving()
        with UNetCache(tmp_path, str).applied_to(model):
            answers = model(x), model(again)
    assert torch.equal(answers[0], x / 3) and torch.equal(answers[1], again / 3) and answers[1].dtype == kind


def test_the_context_is_part_of_the_hash(tmp_path, start):
    """For example a refiner: the first calls are the same for every refiner."""

    def refined(later, most=1000, folder=None):
        torch.manual_seed(1)
        model = Model(most)
        cache = UNetCache(folder, str, lambda: model.weight).applied_to(model) if folder else nullcontext()

        def denoise(x, sigma):
            model.weight = 0.3 if sigma > SIGMAS[3] else later
            return model(x, sigma.expand(len(x)), c_crossattn=[torch.zeros(1, 2)])

        with cache:
            return ancestral(denoise, start), model.calls

    with pytest.raises(CutOff):
        refined(0.9, most=6, folder=tmp_path)
    found, calls = refined(0.5, folder=tmp_path)
    assert torch.equal(found, refined(0.5)[0]) and calls == 1 + STEPS - 3


def test_the_cache_is_deleted_when_the_disk_is_full(tmp_path, start, monkeypatch):
    cache = UNetCache(tmp_path, lambda: "somewhere")
    real, calls = unet_cache.save_file, []

    def save(*given):
        calls.append(given)
        if len(calls) == 3:
            raise OSError("no space left")
        real(*given)

    monkeypatch.setattr(unet_cache, "save_file", save)
    sampled(ancestral, start, Model(), cache)
    assert "no space" in str(cache.problem) and not list(tmp_path.iterdir()) and len(calls) == 3
