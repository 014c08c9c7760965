"""A GPU with too little memory: the clip is made with less in memory at once, or the job ends in a sentence."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest

from support.animation import FRAMES, animate, difference, frames_of, info_of
from support.pictures import pictures_of

WAITED = (
    "The GPU had too little memory for all frames at once, so that they waited in RAM, which is slower. Set a smaller "
    "width and height, or a smaller Context length (batch_size), to avoid it."
)
IN_VAIN = "The GPU has too little memory for this video, even with frames that wait in RAM. Set a smaller width and height"
LONG = {"video_length": 6, "batch_size": 4, "overlap": 1}


@contextmanager
def memory_for(host, rows):
    """While open, the UNet has memory for some rows. `animate` makes calls of 8 rows, or of 12 in LONG.

    Afterwards no unfinished video is left: one that ended for lack of memory could be resumed.
    """
    host.post("/probe/v1/full-memory", {"rows": rows}).raise_for_status()
    try:
        yield
    finally:
        host.post("/probe/v1/full-memory", {}).raise_for_status()
        for video in host.get("/animatediff/v1/unfinished").json():
            host.delete(f"/animatediff/v1/unfinished/{video['key']}")


def warnings_of(answer):
    return info_of(answer)["extra_generation_params"].get("AnimateDiff warnings", [])


@pytest.mark.parametrize(
    "args",
    [{}, {**LONG, "context_mode": "whole UNet"}, {**LONG, "context_mode": "motion attention"}, {"speed": "Fast"}],
    ids=["one window", "whole UNet", "motion attention", "Fast"],
)
def test_frames_wait_in_ram_and_are_the_same(host, args):
    request = {**animate(**args), "negative_prompt": "bad", "steps": 10 if "speed" in args else 3}
    still, expected = pictures_of(host.txt2img()), host.txt2img(**request)
    assert WAITED not in warnings_of(expected)
    with memory_for(host, 2):
        made = host.txt2img(**request)
    assert difference(frames_of(made), frames_of(expected)) <= 1
    assert WAITED in warnings_of(made)
    np.testing.assert_array_equal(pictures_of(host.txt2img()), still)


@pytest.mark.parametrize(
    ("args", "rows", "expected"),
    [
        ({}, 0, f"{IN_VAIN}, or a smaller Context length (batch_size)."),
        (
            {**LONG, "context_mode": "motion attention"},
            0,
            f"{IN_VAIN}, or a smaller Context length (batch_size), or Windows apply to (context_mode) to “whole UNet”.",
        ),
        (
            {"first_frame_attention": 0.5},
            2,
            f"{IN_VAIN.replace(', even with frames that wait in RAM', '')}, or a smaller Context length (batch_size).",
        ),
    ],
    ids=["nothing helps", "nothing but windows helps", "frames belong together"],
)
def test_otherwise_the_job_ends_in_a_sentence(host, args, rows, expected):
    still = pictures_of(host.txt2img())
    with memory_for(host, rows):
        answer = host.txt2img(**animate(**args))
    assert answer.status_code == 500 and answer.json()["detail"] == expected
    np.testing.assert_array_equal(pictures_of(host.txt2img()), still)
    assert len(frames_of(host.txt2img(**animate()))) == FRAMES


def test_the_lack_of_memory_of_a_plain_picture_passes_unchanged(host):
    with memory_for(host, 0):
        answer = host.txt2img()
    assert answer.status_code == 500 and "AnimateDiff" not in answer.text and "(probe)" in answer.text
