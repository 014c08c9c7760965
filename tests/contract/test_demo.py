"""`make demo`, as a new user runs it: with trained weights, in four styles, and clips that show what the prompt says."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageSequence

from demo.run import PICTURE_SEED, PICTURES, PROMPT, STYLES, named, of_style
from demo.world import render
from demo.world.judge import read
from demo.world.scenes import Scene
from support.server import REPOSITORY

ASKED = Scene("circle", "red", "blue", "moving left")


@pytest.fixture(scope="module")
def clips(request, tmp_path_factory):
    """The clips by style, the one between pictures, and the output of the command."""
    if request.config.getoption("--host") == "webui":
        pytest.skip("the demo is another host, and is tested with it")
    out = tmp_path_factory.mktemp("demo") / "clip.gif"
    command = [sys.executable, "-m", "demo.run", "--steps", "6", "--out", str(out)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    by_style = {style.name or "plain": Image.open(of_style(out, style)) for style in STYLES}
    return by_style, Image.open(named(out, PICTURES)), done.stdout


def frames_of(picture):
    return np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(picture)])


def test_each_style_shows_what_the_prompt_says(clips):
    assert ASKED.caption == PROMPT
    for style, picture in clips[0].items():
        frames = frames_of(picture)
        assert frames.shape == (16, 128, 128, 3)
        reading = read(frames)
        assert all(reading.agrees(ASKED).values()) and reading.style == style, (style, reading)


def test_a_clip_begins_and_ends_with_the_given_pictures(clips):
    frames, drawn = frames_of(clips[1]), render.clip(ASKED, PICTURE_SEED)
    assert all(read(frames).agrees(ASKED).values())
    off = {
        name: np.abs(clip[[0, -1]].astype(np.float32) - drawn[[0, -1]]).mean() for name, clip in by_name(clips, frames).items()
    }
    assert off["between"] < 6 and min(off["plain"], off["reversed"]) > 1.5 * off["between"], off


def by_name(clips, frames):
    return {"between": frames, "plain": frames_of(clips[0]["plain"]), "reversed": frames[::-1]}


def test_the_demo_prints_where_each_clip_is(clips):
    by_style, between, said = clips
    assert all(str(picture.filename) in said for picture in (*by_style.values(), between))
    assert "16 frames of 128x128" in said
