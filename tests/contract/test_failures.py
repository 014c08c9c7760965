"""Errors in the extension's own code: users get a sentence, the log gets the cause, and the host is as it was before."""

from __future__ import annotations

import numpy as np
import pytest

from support.animation import FRAMES, animate, frames_of, info_of
from support.pictures import pictures_of

TRAVEL = {"prompt": "a cat\n0: sleeping\n3: awake"}


def fail_at(host, place):
    host.post("/probe/v1/late-fault", {"at": place}).raise_for_status()


@pytest.mark.parametrize(
    ("place", "doing", "request_"),
    [
        ("start", "AnimateDiff failed before it began", {}),
        ("init", "AnimateDiff failed while preparing the video", {}),
        ("parse", "AnimateDiff failed while reading the prompts", {}),
        ("enter", "AnimateDiff failed while sampling the video", {}),
        ("pass", "AnimateDiff failed while sampling the video", {}),
        ("step", "AnimateDiff failed while sampling the video", TRAVEL),
        ("layer", "AnimateDiff failed while sampling the video", {}),
    ],
)
def test_an_error_of_ours_ends_the_job_in_a_sentence(host, place, doing, request_):
    still = pictures_of(host.txt2img())
    seen = len(host.log_text())
    fail_at(host, place)
    answer = host.txt2img(**animate(format=["GIF"]), **request_)
    assert answer.status_code == 500
    assert answer.json()["detail"] == f"{doing}; the console has the details. Try again, or report them."
    assert "TypeError" not in answer.text and "probe" not in answer.text
    log = host.log_text()[seen:]
    assert doing in log and "TypeError: probe: raw" in log and "Traceback" in log
    assert host.get("/sdapi/v1/progress").json()["textinfo"] is None
    assert np.array_equal(pictures_of(host.txt2img()), still)
    assert len(frames_of(host.txt2img(**animate()))) == FRAMES


def test_an_error_at_delivery_shows_the_frames(host):
    fail_at(host, "deliver")
    answer = host.txt2img(**animate(format=["GIF"]))
    (warning,) = info_of(answer)["extra_generation_params"]["AnimateDiff warnings"]
    assert warning.startswith("AnimateDiff could not finish its video, so the frames are shown; the console has the details")
    assert len(frames_of(answer)) == FRAMES
    assert "TypeError: probe: raw" in host.log_text()


def test_errors_of_others_pass_unchanged(host):
    host.post("/probe/v1/fault", {"step": 2})
    answer = host.txt2img(**animate())
    assert answer.status_code == 500
    said = answer.json()
    assert (said["error"], said.get("errors") or said["message"]) == ("RuntimeError", "probe fault")


def test_after_an_error_in_decoding_no_text_stays_beside_the_progress_bar(host):
    still = pictures_of(host.txt2img())
    fail_at(host, "decode")
    answer = host.txt2img(**animate())
    assert answer.status_code == 500 and "probe: no space left" in answer.text
    assert host.get("/sdapi/v1/progress").json()["textinfo"] is None
    assert np.array_equal(pictures_of(host.txt2img()), still)


def test_nor_does_it_where_a_script_swallows_the_error_of_a_copy(host):
    fail_at(host, "decode")
    answer = host.txt2img(**animate(), script_name="Probe script", script_args=["swallows"])
    assert answer.ok and answer.json()["images"] == []
    assert host.get("/sdapi/v1/progress").json()["textinfo"] is None


def test_an_error_in_a_route_is_answered_with_a_sentence(host):
    fail_at(host, "models")
    answer = host.get("/animatediff/v1/models")
    assert answer.status_code == 500
    assert answer.json()["detail"] == (
        "AnimateDiff failed while answering a request; the console has the details. Try again, or report them."
    )
    assert "TypeError: probe: raw" in host.log_text()
    assert host.get("/animatediff/v1/models").ok
