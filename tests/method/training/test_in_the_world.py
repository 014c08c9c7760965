"""What the small world's trainings do otherwise than those of users."""

import pytest
import torch

from demo.world.motion import MotionTraining
from motion_module.training.loop import Training

SCHEDULE = {"straight_in": "sqrt_betas", "first": 0.00085, "last": 0.012}


@pytest.fixture
def training(setting, world):
    return MotionTraining(setting(motion_module=str(world / "motion.safetensors"), noise_schedule=SCHEDULE, steps=100))


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


def test_times_are_drawn_towards_the_noise(training):
    even = torch.cat([Training.batch(training, index).times for index in range(40)])
    drawn = torch.cat([training.batch(index).times for index in range(40)])
    assert (drawn >= even).all() and drawn.max() < 1000
    assert (drawn >= 750).float().mean() == (even >= 500).float().mean()


def test_half_of_the_clips_are_hidden_where_noise_is_strongest_and_no_others(training):
    hidden = []
    for index in range(60):
        plain, batch = Training.batch(training, index), training.batch(index)
        left = training.alphas[batch.times].view(-1, 1, 1, 1, 1)
        noised = left**0.5 * batch.latents + (1 - left) ** 0.5 * batch.noise
        for clip, time in enumerate(batch.times):
            if time < 900:
                assert torch.equal(batch.noise[clip], plain.noise[clip])
                continue
            hidden.append(torch.allclose(noised[clip], plain.noise[clip], atol=1e-5))
            assert hidden[-1] or torch.equal(batch.noise[clip], plain.noise[clip])
    assert 0.2 < sum(hidden) / len(hidden) < 0.8 and len(hidden) >= 15


def test_an_adapter_sees_all_of_its_stills(setting):
    training = MotionTraining(setting("domain adapter", noise_schedule=SCHEDULE))
    batches = [training.batch(index) for index in range(20)]
    assert max(batch.times.max() for batch in batches) >= 900
    assert all(torch.equal(batch.noise, Training.batch(training, index).noise) for index, batch in enumerate(batches))


def test_the_rate_falls_to_a_hundredth_after_warming_up(training):
    rates = []
    for training.step in range(100):
        rates.append(training.rate() / training.config.learning_rate)
    assert max(rates) == pytest.approx(1, abs=0.02) and rates[-1] == pytest.approx(0.01, abs=0.002)
