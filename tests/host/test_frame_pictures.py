"""Which frame each picture of a request is for."""

import pytest
from PIL import Image

from animatediff.errors import RequestError
from animatediff.request.frame_pictures import FramePicture, SparseAsked, placed, read_frames
from animatediff.request.reading import read_mapping
from support.pictures import encode, gradient

NAME = "Frames of the pictures (sparse_frames)"


@pytest.mark.parametrize(
    ("said", "listed", "expected"),
    [
        ([None], [], [0]),
        ([None, None], [], [0, 15]),
        ([None] * 4, [], [0, 5, 10, 15]),
        ([None] * 16, [], list(range(16))),
        ([None, None, None], [0, 8, -1], [0, 8, 15]),
        ([None, 4, None], [-16, 7], [0, 4, 7]),
        ([3], [], [3]),
        ([-1, 0], [], [15, 0]),
    ],
)
def test_pictures_are_for_frames(said, listed, expected):
    assert placed(said, listed, 16, NAME) == expected


@pytest.mark.parametrize(
    ("said", "listed", "words"),
    [
        ([None], [16], "for frame 16, but the 16 frames of the video have the numbers from 0"),
        ([-17], [], "for frame -17"),
        ([None, None], [3], "has 1 numbers, but 2 pictures need one"),
        ([1], [3], "has 1 numbers, but 0 pictures need one"),
        ([None, 15], [-1], "Two pictures for SparseCtrl are for frame 15"),
    ],
)
def test_what_cannot_be_is_refused(said, listed, words):
    with pytest.raises(RequestError) as caught:
        placed(said, listed, 16, NAME)
    assert words in str(caught.value)


@pytest.mark.parametrize("text", ["0, 8,-1", "0 8 -1", " 0;8 ; -1 ", "+0,8\n-1"])
def test_numbers_are_read_as_they_are_written(text):
    assert read_frames(NAME, text) == [0, 8, -1]
    assert read_frames(NAME, "") == []


def test_a_request_gives_pictures_in_several_ways():
    picture, text = Image.new("RGB", (8, 8)), encode(gradient())
    given = [text, picture, {"frame": 4, "image": text}, {"path": "/a.png", "frame": -1}]
    params, _ = read_mapping({"enable": True, "sparse_ctrl": "s.ckpt", "sparse_pictures": given, "sparse_strength": 0.5})
    (asked,) = params.sparse_asked
    assert [one.frame for one in asked.pictures] == [None, None, 4, -1]
    assert asked.pictures[0].image.size == asked.pictures[2].image.size and asked.pictures[1].image is picture
    assert (asked.pictures[3].path, asked.strength) == ("/a.png", 0.5)
    alone, _ = read_mapping({"enable": True, "sparse_ctrl": "s.ckpt", "sparse_pictures": text})
    assert len(alone.sparse_asked[0].pictures) == 1


def test_a_request_may_have_several_models():
    more = {"sparse_ctrl": "t.ckpt", "sparse_pictures": [{"path": "/b.png", "frame": 2}], "sparse_end": 0.5}
    params, _ = read_mapping({"enable": True, "sparse_ctrl": "s.ckpt", "sparse_more": [more]})
    assert [asked.model for asked in params.sparse_asked] == ["s.ckpt", "t.ckpt"]
    assert params.sparse_asked[1] == SparseAsked("t.ckpt", (FramePicture(path="/b.png", frame=2),), end=0.5)
    assert read_mapping({"enable": True, "sparse_pictures": []})[0].sparse_asked == ()
