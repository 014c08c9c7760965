"""Subjects are found, made again and pasted back: with a stand-in for what generates."""

import dataclasses
from itertools import count

import numpy as np
import pytest
from PIL import Image

from animatediff.detailer.boxes import Box, read_box
from animatediff.detailer.detail import Around, detailed
from animatediff.errors import RequestError
from animatediff.request.params import Params
from support.drawn_faces import across, clip, detections, on_an_arc, truth

FRAMES = 24
FOUND = Params(detail="faces", detail_padding=0.25)
DETECTOR = {"find": lambda frame: []}


@pytest.fixture(scope="module")
def frames():
    return [Image.fromarray(frame) for frame in clip([on_an_arc, across], FRAMES)]


@pytest.fixture
def found(monkeypatch):
    """Sets what the detector finds on each frame."""

    def finds(boxes):
        remaining = iter(boxes)
        monkeypatch.setitem(DETECTOR, "find", lambda frame: next(remaining))

    return finds


def inverted(crops, pictures, text):
    return [Image.fromarray(255 - np.asarray(picture)) for picture in pictures]


class Recorder:
    """Makes nothing new, and remembers what it was given."""

    def __init__(self, make=lambda crops, pictures, text: pictures):
        self.given = []
        self._make = make

    def __call__(self, crops, pictures, text):
        self.given.append((crops, pictures, text))
        return self._make(crops, pictures, text)


def run(frames, params=FOUND, make=inverted, *, whole=False, stop=lambda: False):
    told = []
    result = detailed(frames, params, 256, make, Around(lambda: DETECTOR["find"], told.append, told.append, stop), whole=whole)
    shown = next((entry for entry in told if isinstance(entry, list)), [])
    return result, [entry for entry in told if entry is not shown], shown


def test_each_subject_is_one_clip_of_one_size_the_largest_first(frames, found):
    found(detections([on_an_arc, across], FRAMES, seed=2))
    make = Recorder()
    result, told, _ = run(frames, make=make)
    (large, pictures, first), (small, others, second) = make.given
    assert (first, second) == ("face 1 of 2", "face 2 of 2")
    assert large.size > small.size
    assert {picture.size for picture in pictures} == {large.made} and {picture.size for picture in others} == {small.made}
    assert len(pictures) == len(large) and len(others) == len(small)
    assert told[0] == "AnimateDiff: looking for what to detail, frame 1 of 24"
    assert told[-1] == "AnimateDiff: detailing face 2 of 2"
    assert "2 tracks." in result.notes[0]


def test_what_a_detector_in_a_file_finds_is_a_subject(frames, found):
    found(detections([across], FRAMES, seed=2))
    result, told, _ = run(frames, dataclasses.replace(FOUND, detail="hand.pt"))
    assert told[-1] == "AnimateDiff: detailing subject 1 of 1"
    assert result.notes[0].startswith("AnimateDiff: Subjects (hand.pt) were found in ")


def test_a_subject_that_enters_is_made_for_its_own_frames_and_fades_in(frames, found):
    found([[box] if number >= 8 else [] for number, box in enumerate(truth(on_an_arc, FRAMES))])
    make = Recorder(inverted)
    result, *_ = run(frames, make=make)
    (crops, pictures, _), *_ = make.given
    assert (crops.first, len(pictures)) == (8, FRAMES - 8)
    changes = [np.abs(np.asarray(a).astype(int) - np.asarray(b)).mean() for a, b in zip(result.frames, frames)]
    assert changes[:8] == [0] * 8 and 0 < changes[8] < changes[10] < changes[12]


def test_where_prompts_have_keyframes_its_clip_is_as_long_as_the_video(frames, found):
    found([[box] if 8 <= number < 16 else [] for number, box in enumerate(truth(on_an_arc, FRAMES))])
    make = Recorder(inverted)
    result, *_ = run(frames, make=make, whole=True)
    (crops, pictures, _), *_ = make.given
    assert (crops.first, len(pictures)) == (0, FRAMES)
    changed = [a.tobytes() != b.tobytes() for a, b in zip(result.frames, frames)]
    assert changed == [8 <= number < 16 for number in range(FRAMES)]


def test_a_later_subject_is_cut_out_of_what_was_made_before(frames, found):
    boxes = truth(on_an_arc, FRAMES)
    beside = [box._replace(x=box.x + 0.6 * box.width, width=0.8 * box.width, height=0.8 * box.height) for box in boxes]
    found([list(pair) for pair in zip(boxes, beside)])
    make = Recorder(inverted)
    run(frames, make=make)
    (crops, pictures, _) = make.given[1]
    untouched = crops.cut(frames[0], 0)
    assert np.abs(np.asarray(pictures[0]).astype(int) - np.asarray(untouched)).mean() > 5


def test_twice_is_the_same_and_the_given_frames_stay(frames, found):
    before = [frame.tobytes() for frame in frames]
    made = []
    for _ in range(2):
        found(detections([on_an_arc], FRAMES))
        made.append([frame.tobytes() for frame in run(frames)[0].frames])
    assert made[0] == made[1] != before == [frame.tobytes() for frame in frames]


@pytest.mark.parametrize("after", [0, 5])
def test_an_interrupt_while_looking_leaves_the_frames(frames, found, after):
    found(detections([on_an_arc], FRAMES))
    asked = count()
    make = Recorder()
    result, *_ = run(frames, make=make, stop=lambda: next(asked) >= after)
    assert result.frames is frames and make.given == [] and "was interrupted" in result.warnings[0]


def test_an_interrupt_in_the_second_subject_leaves_the_frames(frames, found):
    found(detections([on_an_arc, across], FRAMES))
    make = Recorder(lambda crops, pictures, text: None if text == "face 2 of 2" else inverted(crops, pictures, text))
    result, *_ = run(frames, make=make)
    assert len(make.given) == 2 and result.frames is frames and result.notes == []


def test_at_most_as_many_as_asked_for(frames, found):
    found(detections([on_an_arc, across], FRAMES))
    make = Recorder()
    result, *_ = run(frames, dataclasses.replace(FOUND, detail_most=1), make)
    assert [text for *_, text in make.given] == ["face 1 of 1"]
    assert result.notes[0].endswith("2 tracks, of which the largest 1 were detailed.")


def test_the_tracks_are_shown_as_outlines(frames, found):
    found([[box] for box in truth(on_an_arc, FRAMES)])
    *_, shown = run(frames)
    assert len(shown) == 8
    box, before, after = on_an_arc(0), np.asarray(frames[0]), np.asarray(shown[0])
    rows, columns = np.nonzero((before != after).any(axis=-1))
    assert abs(rows.min() - box.y) <= 3 and abs(columns.max() - box.x - box.width) <= 3
    assert np.array_equal(before[60:120, 60:100], after[60:120, 60:100])


def test_a_clip_of_one_frame(frames, found):
    found([[on_an_arc(0)]])
    result, *_ = run(frames[:1])
    assert result.frames[0].tobytes() != frames[0].tobytes()


@pytest.mark.parametrize("text", ["10,20,30,40", " 10 20 30 40 ", "10; 20; 30; 40", "10.0, 20, 3e1, 40"])
def test_a_box_is_read(text):
    assert read_box(text) == Box(10, 20, 30, 40)


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "0,0,-5,9", "0,0,nan,9", "inf,0,9,9"])
def test_a_box_that_is_none_is_refused(text):
    with pytest.raises(RequestError, match=r"detail_box.*such as 120, 80, 96, 128"):
        read_box(text)
