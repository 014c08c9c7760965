"""The record of motion layers: what is a video, and what a batch of stills."""

from types import SimpleNamespace

import pytest
import torch

from animatediff.job.acting import Acting, steps_of
from motion_module.row_layout import RowLayout

FRAMES = 6
WHOLE = RowLayout(FRAMES, 2 * FRAMES)


def window(*frames):
    return RowLayout(len(frames), 2 * len(frames), frame_numbers=torch.tensor([frames, frames]))


def sampler(total_steps=4, **more):
    return SimpleNamespace(
        model_wrap_cfg=SimpleNamespace(total_steps=total_steps, init_latent=more.pop("init_latent", None)), **more
    )


def hindrance(*steps, interrupted=False, runs=1):
    """Each step is a list of the layouts that motion layers are called with."""
    acting = Acting(FRAMES)
    for _ in range(runs):
        acting.begin_run(sampler())
        for layouts in steps:
            acting.begin_step()
            for layout in layouts:
                acting.acted(layout)
    return acting.hindrance(interrupted)


@pytest.mark.parametrize(
    "steps",
    [
        [[WHOLE]] * 3,
        [[WHOLE] * 40],
        [[window(0, 1, 2, 3), window(2, 3, 4, 5)]],
        [[RowLayout(FRAMES, FRAMES)] * 2],
    ],
)
def test_every_frame_in_every_step_is_a_video(steps):
    assert hindrance(*steps) == ""
    assert hindrance(*steps, runs=3) == ""


@pytest.mark.parametrize(
    ("steps", "without"),
    [
        ([[]], "1 of 1"),
        ([[WHOLE], [], [WHOLE]], "1 of 3"),
        ([[WHOLE], [window(0, 1, 2, 3)]], "1 of 2"),
        ([[], []], "2 of 2"),
    ],
)
def test_a_step_that_lacks_a_frame_is_a_hindrance(steps, without):
    assert hindrance(*steps) == f"The motion module did not act on every frame in {without} sampling steps."


def test_an_interrupt_excuses_only_the_last_step():
    assert hindrance([WHOLE], [window(0, 1, 2, 3)], interrupted=True) == ""
    assert hindrance(interrupted=True) == ""
    assert "1 of 3" in hindrance([WHOLE], [], [], interrupted=True)


def test_a_run_without_steps_is_a_hindrance_unless_the_sampler_takes_none():
    for timesteps, text in ((sampler(1, get_timesteps=None), ""), (sampler(2, get_timesteps=None), "A sampler ran without")):
        acting = Acting(FRAMES)
        acting.begin_run(timesteps)
        assert acting.hindrance(False).startswith(text) and bool(acting.hindrance(False)) == bool(text)
    assert Acting(FRAMES).hindrance(False) == "A sampler ran without the motion module."


def test_a_call_that_is_read_from_disk_counts():
    acting = Acting(FRAMES)
    acting.begin_run(sampler())
    acting.begin_step()
    acting.acted_before()
    assert acting.hindrance(False) == ""


def test_each_video_is_judged_by_itself():
    acting = Acting(FRAMES)
    acting.begin_step()
    assert acting.hindrance(False)
    acting.begin()
    acting.begin_step()
    acting.acted(WHOLE)
    assert acting.hindrance(False) == ""


def test_samplers_by_timesteps_take_fewer_steps_than_they_announce():
    assert steps_of(sampler(4)) == 4
    assert steps_of(sampler(4, get_timesteps=None)) == 3
    assert steps_of(sampler(4, get_timesteps=None, init_latent=0)) == 2
    assert steps_of(object()) == 1


def test_samplers_of_the_second_order_call_once_in_their_last_step():
    assert steps_of(sampler(8, config=SimpleNamespace(options={"second_order": True}))) == 7
    assert steps_of(sampler(8, config=SimpleNamespace(options={}))) == 8
