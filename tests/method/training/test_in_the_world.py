"""What the small world's trainings do otherwise than those of users."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from demo.world.motion import ByMotion, MotionTraining, Phase
from motion_module.training.loop import Training

SCHEDULE = {"straight_in": "sqrt_betas", "first": 0.00085, "last": 0.012}
PHASES = (Phase(30, hidden=1.0), Phase(70, hidden=0.5))


@pytest.fixture
def training(setting, world):
    return MotionTraining(setting(motion_module=str(world / "motion.safetensors"), noise_schedule=SCHEDULE, steps=100), PHASES)


def test_the_loss_is_that_of_the_velocity(training):
    batch = training.batch(0)
    left = training.alphas[batch.times].view(-1, 1, 1, 1, 1)
    noised = left**0.5 * batch.latents + (1 - left) ** 0.5 * batch.noise
    with training.animated.attached(), torch.no_grad():
        loss = training.loss(batch)
        epsilon = training.predict(noised, batch.times, batch.context)
    clean = (noised - (1 - left) ** 0.5 * epsilon) / left**0.5
    velocity = left**0.5 * epsilon - (1 - left) ** 0.5 * clean
    true = left**0.5 * batch.noise - (1 - left) ** 0.5 * batch.latents
    assert torch.isclose(loss, (velocity - true).square().mean(), rtol=1e-3)


def test_times_are_drawn_towards_the_noise_and_from_there_where_clips_are_hidden(training):
    even = torch.cat([Training.batch(training, index).times for index in range(30)]) / 1000
    hidden = torch.cat([training.batch(index).times for index in range(30)])
    assert torch.equal(hidden, (900 + 100 * (1 - (1 - even) ** 2)).long())


def test_as_many_clips_are_hidden_in_their_noise_as_the_phase_says_and_others_are_not(training):
    hidden = []
    for index in range(100):
        plain, batch = Training.batch(training, index), training.batch(index)
        left = training.alphas[batch.times].view(-1, 1, 1, 1, 1)
        noised = left**0.5 * batch.latents + (1 - left) ** 0.5 * batch.noise
        for clip, time in enumerate(batch.times):
            hidden.append((index, torch.allclose(noised[clip], plain.noise[clip], atol=1e-5)))
            if hidden[-1][1]:
                assert time >= 900
            else:
                assert torch.equal(batch.noise[clip], plain.noise[clip])
    assert all(found for index, found in hidden if index < 30)
    assert 0.35 < np.mean([found for index, found in hidden if index >= 30]) < 0.65


def test_an_adapter_sees_all_of_its_stills(setting):
    training = MotionTraining(setting("domain adapter", noise_schedule=SCHEDULE, steps=20), (Phase(20),))
    batches = [training.batch(index) for index in range(20)]
    assert max(batch.times.max() for batch in batches) >= 900
    assert all(torch.equal(batch.noise, Training.batch(training, index).noise) for index, batch in enumerate(batches))


def test_motions_come_as_often_as_the_phase_says():
    captions = ["a star moving left", "a star growing", "a star", "a circle growing", "a star bouncing"]
    examples = [SimpleNamespace(caption=caption) for caption in captions]
    phases = (Phase(50, shares={"growing": 1.0}), Phase(400, shares={"moving left": 3.0, "": 1.0, "spinning": 9.0}))
    order = ByMotion(examples, 2, seed=1, phases=phases)
    first = [place for index in range(50) for place in order.at(index)]
    assert set(first) == {1, 3}
    second = [place for index in range(50, 450) for place in order.at(index)]
    assert set(second) == {0, 2} and 0.7 < np.mean(np.equal(second, 0)) < 0.8
    assert order.at(77) == order.at(77)


def test_the_rate_falls_to_a_hundredth_after_warming_up(training):
    rates = []
    for training.step in range(100):
        rates.append(training.rate() / training.config.learning_rate)
    assert max(rates) == pytest.approx(1, abs=0.02) and rates[-1] == pytest.approx(0.01, abs=0.002)
