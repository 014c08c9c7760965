"""Animated GIF."""

from io import BytesIO

import pytest
from PIL import Image, ImageSequence

from animatediff.video.gif import encode_gif, frame_durations


def frames(count):
    return [Image.new("RGB", (16, 12), (index * 7 % 256, 255 - index * 5 % 256, 40)) for index in range(count)]


def read(data):
    return Image.open(BytesIO(data))


@pytest.mark.parametrize("count", [1, 2, 16, 33])
def test_every_frame_is_in_the_file(count):
    assert read(encode_gif(frames(count), 8)).n_frames == count


@pytest.mark.parametrize("fps", [1, 7, 8, 12, 15, 24, 30, 50])
@pytest.mark.parametrize("count", [1, 16, 100])
def test_the_whole_lasts_as_long_as_it_should(count, fps):
    durations = frame_durations(count, fps)
    assert all(duration % 10 == 0 for duration in durations)
    assert sum(durations) == pytest.approx(1000 * count / fps, abs=5)


def test_durations_reach_the_file():
    image = read(encode_gif(frames(24), 24))
    assert sum(frame.info["duration"] for frame in ImageSequence.Iterator(image)) == 1000


@pytest.mark.parametrize(("plays", "again"), [(0, 0), (1, None), (3, 2)])
def test_how_often_it_plays(plays, again):
    assert read(encode_gif(frames(3), 8, plays)).info.get("loop") == again


def test_the_comment_survives_in_any_script():
    comment = "a cat, 猫, кот\nSteps: 4, " + "x" * 2000
    assert read(encode_gif(frames(3), 8, comment=comment)).info["comment"].decode() == comment


def test_transparency_and_palettes_are_flattened():
    images = [frame.convert(mode) for frame, mode in zip(frames(3), ("RGBA", "P", "L"))]
    assert read(encode_gif(images, 8)).n_frames == 3
