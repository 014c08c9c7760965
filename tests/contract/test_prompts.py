"""Prompts of every form, with each of the WebUI's ways to batch them."""

from __future__ import annotations

import pytest

from support.animation import FRAMES, LONG, animate, difference, frames_of, recording, unet_calls
from support.pictures import mean_difference

APART = pytest.mark.not_on(("Forge", "Neo", "reForge"), "it has no such setting, or one without effect")
TOGETHER = pytest.mark.parametrize("together", [True, pytest.param(False, marks=APART)])
"""Whether the WebUI's setting has the conditions in one call of the UNet. It does where it is left alone."""


def options(**values):
    return {"override_settings": values}


def batched(together):
    return options(**({} if together else {"batch_cond_uncond": False}))


def test_a_negative_prompt_longer_than_the_prompt(host):
    assert len(frames_of(host.txt2img(**animate(), prompt=" ".join(["cat"] * 20), negative_prompt=LONG))) == FRAMES


@APART
@pytest.mark.parametrize("family", ["v1", "v3"])
def test_batching_of_conditions_does_not_change_the_frames(host, family):
    request = {**animate(family), "negative_prompt": "bad"}
    together, apart = (frames_of(host.txt2img(**request, **batched(how))) for how in (True, False))
    assert difference(together, apart) <= 2


def test_an_edited_prompt_gives_neither_of_its_prompts_alone(host):
    request = {**animate(video_length=8), "steps": 8}
    edited = frames_of(host.txt2img(**request, prompt="[cat:dog:0.3]"))
    for unedited in ("cat", "dog"):
        assert difference(edited, frames_of(host.txt2img(**request, prompt=unedited))) > 5


@pytest.mark.parametrize("family", ["v1", "v3"])
@TOGETHER
@pytest.mark.parametrize("negative", ["bad", LONG], ids=["equal", "unequal"])
def test_two_equal_prompt_parts_equal_one(host, family, together, negative):
    request = {**animate(family), "negative_prompt": negative, **batched(together)}
    whole = frames_of(host.txt2img(**request, prompt="a"))
    halves = frames_of(host.txt2img(**request, prompt="a :0.5 AND a :0.5"))
    assert difference(whole, halves) <= 2


def test_the_rows_of_prompt_parts_are_not_mixed_up(host):
    """A part of weight zero must leave no trace. It would, if its rows were taken for frames of the other part."""
    request = {**animate(), "negative_prompt": "bad"}
    alone = frames_of(host.txt2img(**request, prompt="a cat"))
    with_nothing = frames_of(host.txt2img(**request, prompt="a cat AND a dog :0"))
    assert difference(alone, with_nothing) <= 2
    assert mean_difference(alone, frames_of(host.txt2img(**request, prompt="a cat AND a dog :1"))) > 2


@TOGETHER
def test_three_parts_with_a_long_negative_prompt(host, together):
    request = {**animate(), "negative_prompt": LONG}
    before = host.get("/probe/v1/state").json()["options"]
    assert before["batch_cond_uncond"] in (True, None) and not before["pad_cond_uncond"]
    # Three parts need a prompt and a negative prompt of equal length, so they are compared with that. Neo always has it so.
    padded = {} if before["pad_cond_uncond"] is None else {"pad_cond_uncond": True}
    alone = frames_of(host.txt2img(**request, prompt="a cat", **options(**batched(together)["override_settings"], **padded)))
    thirds = "a cat :0.25 AND a cat :0.25 AND a cat :0.5"
    assert difference(alone, frames_of(host.txt2img(**request, prompt=thirds, **batched(together)))) <= 2
    assert host.get("/probe/v1/state").json()["options"] == before


@pytest.mark.parametrize("setting", [{"s_min_uncond": 4.0}, {"skip_early_cond": 0.3}], ids=["NGMS", "skip early CFG"])
def test_steps_without_the_negative_prompt_are_skipped_as_without_the_extension(host, setting):
    request = {"prompt": "a cat", "steps": 6}
    with recording(host) as animated:
        frames_of(host.txt2img(**animate(), **request, **options(**setting)))
    with recording(host) as still:
        assert host.txt2img(**request, batch_size=FRAMES, **options(**setting, return_grid=False)).ok
    rows = [[call["rows"] for call in unet_calls(record["sampler_runs"][0])] for record in (animated, still)]
    assert FRAMES in rows[0] and 2 * FRAMES in rows[0]
    if "skip_early_cond" in setting:  # NGMS depends on sigma, and the sigmas differ
        assert rows[0] == rows[1]


@pytest.mark.webui_only("the embedded host has none of the WebUI's own scripts")
def test_a_script_that_sets_other_prompts_is_refused(host):
    matrix = {"script_name": "prompt matrix", "script_args": [False, False, "positive", "comma", 0]}
    answer = host.txt2img(**animate(), **matrix, prompt="a|b|c")
    assert answer.status_code == 422 and "4 prompts" in answer.json()["detail"]


def test_without_a_number_of_frames_the_context_length_is_used(host):
    assert len(frames_of(host.txt2img(**animate(video_length=0, batch_size=5), steps=1))) == 5
