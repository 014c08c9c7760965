"""`make demo`, as a new user runs it: with trained weights, in four styles, and clips that show what the prompt says."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageSequence

from demo.run import PROMPT, STYLES, of_style
from demo.world.judge import read
from demo.world.scenes import Scene
from support.server import REPOSITORY

ASKED = Scene("circle", "red", "blue", "moving left")


@pytest.fixture(scope="module")
def clips(request, tmp_path_factory):
    """The clips by style, and the output of the command."""
    if request.config.getoption("--host") == "webui":
        pytest.skip("the demo is another host, and is tested with it")
    out = tmp_path_factory.mktemp("demo") / "clip.gif"
    command = [sys.executable, "-m", "demo.run", "--steps", "6", "--out", str(out)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {style.name or "plain": Image.open(of_style(out, style)) for style in STYLES}, done.stdout


def frames_of(picture):
    return np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(picture)])


def test_each_style_shows_what_the_prompt_says(clips):
    assert ASKED.caption == PROMPT
    for style, picture in clips[0].items():
        frames = frames_of(picture)
        assert frames.shape == (16, 128, 128, 3)
        reading = read(frames)
        assert all(reading.agrees(ASKED).values()) and reading.style == style, (style, reading)


def test_the_demo_prints_where_each_clip_is(clips):
    pictures, said = clips
    assert all(str(picture.filename) in said for picture in pictures.values())
    assert "16 frames of 128x128" in said
