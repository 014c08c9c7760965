"""The controls of the motion, through the API: which settings must give equal frames, and which must not."""

from __future__ import annotations

import pytest

from support.animation import animate, difference, frames_of, made_once
from support.pictures import mean_difference

FRAMES, STEPS = 4, 4


@pytest.fixture(scope="module")
def frames(host):
    make = made_once(host.txt2img)

    def run(family="v3", **args):
        return make(**animate(family, video_length=FRAMES, **args), steps=STEPS, negative_prompt="bad")

    return run


@pytest.mark.parametrize("family", ["v1", "v2", "v3"])
def test_effect_zero_switches_the_module_off(frames, family):
    """Includes v1's norms: a module that applies in no step must not change them either."""
    off = frames(family, motion_effect=0)
    assert mean_difference(off, frames(family)) > 3
    assert difference(off, frames(family, motion_rules="down: effect 0; mid: effect 0\nup: effect 0")) == 0
    if family != "v1":
        assert difference(off, frames("v3", motion_effect=0)) == 0


def test_a_range_of_steps_equals_a_rule_that_switches_the_other_steps_off(frames):
    early, late = frames(motion_end=0.25), frames(motion_start=0.25)
    assert difference(early, frames(motion_rules="all 0.25-1: effect 0")) == 0
    assert difference(late, frames(motion_rules="all 0-0.25: effect 0")) == 0
    off, on = frames(motion_effect=0), frames()
    assert min(difference(*pair) for pair in ((early, late), (early, off), (early, on), (late, off), (late, on))) > 1


def test_outside_its_range_v1_does_not_change_the_norms(frames):
    """The module applies only in the last step, so the steps before it must be as without the module."""
    assert difference(frames("v1", motion_end=0.01), frames("v1", motion_rules="all 0.01-1: effect 0")) > 1


def test_scale_and_effect_change_the_frames(frames):
    plain = frames()
    for change in ({"motion_scale": 0}, {"motion_effect": 0.5}, {"motion_rules": "up_3: scale 3"}):
        assert mean_difference(plain, frames(**change)) > 0.2, change
    assert difference(plain, frames(motion_scale=1, motion_effect=1, motion_rules="all: scale 1")) == 0


def test_two_modules_are_blended_or_chained(frames):
    second = {"model_2": "mm_tiny_v2.safetensors"}
    alone, other = frames("v3"), frames("v2")
    assert difference(frames("v3", **second, model_2_weight=0), alone) == 0
    assert difference(frames("v3", **second, model_2_weight=1), other) == 0
    assert difference(frames("v3", **second, model_2_mode="chain", model_2_weight=0), alone) == 0
    blended, chained = frames("v3", **second), frames("v3", **second, model_2_mode="chain", model_2_weight=1)
    for first, another in ((blended, alone), (blended, other), (chained, blended), (chained, alone)):
        assert mean_difference(first, another) > 1


def test_a_window_longer_than_the_positional_encoding_needs_another_mode_of_it(host):
    def ask(**args):
        return host.txt2img(**animate("v1", video_length=26, batch_size=26, **args), steps=1)

    refused = ask()
    assert refused.status_code == 422 and "stretch or extend" in refused.json()["detail"]
    extended, stretched = frames_of(ask(positional_encoding="extend")), frames_of(ask(positional_encoding="stretch"))
    assert len(extended) == len(stretched) == 26
    assert mean_difference(extended, stretched) > 1


def test_stretching_changes_nothing_at_the_trained_length(frames):
    assert difference(frames(positional_encoding="stretch"), frames()) == 0
    assert difference(frames(positional_encoding="extend"), frames()) == 0


def test_a_second_module_of_another_size_is_refused(host):
    answer = host.txt2img(**animate("v3", model_2="mm_sd15_v3.safetensors"), steps=1)
    assert answer.status_code == 422 and "320 channels" in answer.json()["detail"]


def test_first_frame_attention_changes_frames_and_zero_does_not(frames):
    plain, held = frames(), frames(first_frame_attention=1)
    assert mean_difference(plain, held) > 0.2
    assert difference(frames(first_frame_attention=0), plain) == 0
