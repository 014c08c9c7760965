"""OpenCV's cascades, on drawn faces."""

import numpy as np
import pytest

from animatediff.detailer.boxes import Box
from animatediff.detailer.detectors import CASCADES, detector
from support.drawn_faces import clip


def here(part):
    return Box(150 + 40 * part, 110, 110, 130)


@pytest.fixture(scope="module")
def frame():
    return clip([here], 1)[0]


def test_a_face_is_found_where_it_is(frame):
    (found,) = detector("faces", 0.3)(frame)
    assert found.overlap(here(0)) > 0.5 and np.hypot(*np.subtract(found.centre, here(0).centre)) < 20


def test_large_frames_are_searched_at_a_smaller_size(frame):
    large = frame.repeat(4, axis=0).repeat(4, axis=1)
    (found,) = detector("faces", 0.3)(large)
    assert found.overlap(here(0).scaled(4)) > 0.5


def test_more_confidence_finds_fewer(frame):
    noise = np.random.default_rng(1).normal(0, 1, frame.shape)
    worse = [np.clip(frame + level * noise, 0, 255).astype(np.uint8) for level in range(40, 240, 20)]
    little, much = (sum(len(detector("faces", confidence)(each)) for each in worse) for confidence in (0, 1))
    assert little > much


@pytest.mark.parametrize("kind", CASCADES)
def test_nothing_is_found_on_an_empty_frame(kind):
    assert detector(kind, 0.3)(np.full((240, 320, 3), 90, np.uint8)) == []
