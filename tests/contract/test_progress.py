"""What the user sees while a video is made: the phase, and an animated preview."""

from __future__ import annotations

import base64
import io
import re
import threading
import time

import pytest
from PIL import Image, ImageSequence

from support.animation import animate


@pytest.fixture
def previews(host):
    """Switches on previews at every step, by a method that needs no download."""
    with host.settings(show_progress_type="Approx cheap", show_progress_every_n_steps=1):
        yield


def watched(host, **request):
    """Returns the phases that were reported during a request, in order, and all previews."""
    phases, pictures = [], []
    job = threading.Thread(target=lambda: host.txt2img(**request))
    job.start()
    while job.is_alive():
        answer = host.get("/sdapi/v1/progress").json()
        phases.append(answer["textinfo"])
        if answer["current_image"]:
            pictures.append(Image.open(io.BytesIO(base64.b64decode(answer["current_image"]))))
        time.sleep(0.02)
    job.join()
    return list(dict.fromkeys(filter(None, phases))), pictures


def test_the_preview_is_animated_with_a_few_frames(host, previews):
    _, pictures = watched(host, **animate(video_length=8, fps=8, format=["GIF"]), steps=10)
    moving = [picture for picture in pictures if getattr(picture, "n_frames", 1) > 1]
    assert moving, f"{len(pictures)} previews, none of which moves"
    picture = moving[0]
    assert picture.format == "PNG" and picture.n_frames == 4
    assert {frame.info["duration"] for frame in ImageSequence.Iterator(picture)} == {250}, "every second frame at 8 fps"


def test_the_preview_of_a_long_clip_has_no_more_frames(host, previews):
    """Four frames take 200 seconds at 0.02 fps, which a PNG could not say."""
    _, pictures = watched(host, **animate(video_length=32, format=["GIF"], fps=0.02), steps=4)
    longest = max(pictures, key=lambda picture: getattr(picture, "n_frames", 1))
    assert longest.n_frames == 8 and longest.info["duration"] == 1000


def test_each_phase_is_reported(host):
    phases, _ = watched(host, **animate(video_length=16, format=["GIF", "MP4"]), steps=12)
    steps = [int(match[1]) for phase in phases if (match := re.fullmatch(r"AnimateDiff: step (\d+) of 12", phase))]
    assert len(steps) >= 5 and steps == sorted(steps) and steps[-1] <= 12
    for words in ("AnimateDiff: decoding frames", "AnimateDiff: encoding MP4"):
        assert words in phases[-4:], phases


def test_a_single_image_has_no_phases_and_no_animated_preview(host, previews):
    host.txt2img(**animate(video_length=2, format=["GIF"]), steps=1)
    assert not host.get("/sdapi/v1/progress").json()["textinfo"], "reported between generations"
    phases, pictures = watched(host, steps=10, batch_size=2)
    assert not any("AnimateDiff" in phase for phase in phases)
    assert all(getattr(picture, "n_frames", 1) == 1 for picture in pictures)
