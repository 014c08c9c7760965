"""Prompt travel: its syntax, and the interpolation between keyframes."""

import math
import time

import pytest
import torch

from motion_module.prompt_travel import Keyframe, TravelError, between, read_travel


def keyframes(prompt, frames=16):
    travel = read_travel(prompt, frames)
    return [(keyframe.first, keyframe.last, travel.prompt_at(keyframe)) for keyframe in travel.keyframes]


@pytest.mark.parametrize(
    "prompt", ["a cat", "a cat\na dog", "16:9 photo", "12:30 on a clock", "(cat:1.2)", "[a:b:0.5]", "", "cat 3: x"]
)
def test_a_prompt_without_keyframes_is_none(prompt):
    assert read_travel(prompt, 16) is None


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("0: a\n8: b", [(0, 0, "a"), (8, 8, "b")]),
        ("8: b\n0: a", [(0, 0, "a"), (8, 8, "b")]),
        ("0:a\n8 :b", [(0, 0, "a"), (8, 8, "b")]),
        ("0: a\r\n8: b\r\n", [(0, 0, "a"), (8, 8, "b")]),
        ("  0: a \n\n\n 8: b", [(0, 0, "a"), (8, 8, "b")]),
        ("0%: a\n50%: b\n100%: c", [(0, 0, "a"), (8, 8, "b"), (15, 15, "c")]),
        ("33.3 %: a", [(5, 5, "a")]),
        ("0: a\n-1: b", [(0, 0, "a"), (15, 15, "b")]),
        ("0-4: a\n8 - -1: b", [(0, 4, "a"), (8, 15, "b")]),
        ("50%-100%: b", [(8, 15, "b")]),
        ("x\ny,\n0: a\n8: b\nz\nw", [(0, 0, "x, y, a, z, w"), (8, 8, "x, y, b, z, w")]),
        ("0: a\nmore\n8: b", [(0, 0, "a, more"), (8, 8, "b")]),
        ("x\n0:\n8: b", [(0, 0, "x"), (8, 8, "x, b")]),
        ("0: a [b:c:0.5] (d:1.2)\n8: e AND f", [(0, 0, "a [b:c:0.5] (d:1.2)"), (8, 8, "e AND f")]),
    ],
)
def test_keyframes_may_be_written_in_several_ways(prompt, expected):
    assert keyframes(prompt) == expected


def test_lines_outside_of_keyframes_are_for_all_frames():
    travel = read_travel("x\ny\n0: a\nmore\n8: b\nz", 16)
    assert (travel.head, travel.tail) == ("x, y", "z")
    assert travel.keyframes == (Keyframe(0, 0, "a, more"), Keyframe(8, 8, "b"))


def test_the_example_of_sd_webui_animatediff_is_read_the_same():
    prompt = "1girl, yoimiya (genshin impact), origen, line, comet, wink, Masterpiece\n0: closed mouth\n8: open mouth\nsmile"
    head = "1girl, yoimiya (genshin impact), origen, line, comet, wink, Masterpiece"
    assert keyframes(prompt) == [(0, 0, f"{head}, closed mouth, smile"), (8, 8, f"{head}, open mouth, smile")]


@pytest.mark.parametrize(
    ("prompt", "words", "lines"),
    [
        ("0: a\n16: b", ["“16: b”", "numbered 0 to 15"], ("16: b",)),
        ("-17: a", ["“-17: a”", "0 to 15"], ("-17: a",)),
        ("101%: a", ["101%"], ("101%: a",)),
        ("x\n 8-4: a\ny", ["ends at frame 4", "starts at frame 8"], ("8-4: a",)),
        ("0: a\n0: b", ["Two keyframes", "frame 0"], ("0: a", "0: b")),
        ("0-8: a\n8: b", ["Two keyframes", "frame 8"], ("0-8: a", "8: b")),
        ("0: a\n100%: b\n15: c", ["Two keyframes", "frame 15"], ("100%: b", "15: c")),
        ("24: a", ["“24: a”", "0 to 15"], ("24: a",)),
        ("1990: a\n0: b", ["“1990: a”", "0 to 15"], ("1990: a",)),
        ("1990%: a", ["“1990%: a”", "0 to 15"], ("1990%: a",)),
    ],
)
def test_wrong_keyframes_are_reported(prompt, words, lines):
    with pytest.raises(TravelError) as error:
        read_travel(prompt, 16)
    assert all(word in str(error.value) for word in words), error.value
    assert error.value.lines == lines


def test_frames_between_keyframes_have_weights_of_both():
    travel = read_travel("2: a\n6-8: b\n10: c", 12)
    assert travel.texts() == [*"aaaaaabbbbcc"]
    assert travel.sources() == [
        (2, 2, 0), (2, 2, 0), (2, 2, 0), (2, 6, 1 / 4), (2, 6, 2 / 4), (2, 6, 3 / 4),
        (6, 6, 0), (6, 6, 0), (6, 6, 0), (6, 10, 1 / 2), (10, 10, 0), (10, 10, 0),
    ]  # fmt: skip


def test_in_a_closed_travel_the_last_keyframe_blends_into_the_first():
    travel = read_travel("2: a\n8: b", 12, closed=True)
    assert travel.sources() == [
        (8, 2, 4 / 6), (8, 2, 5 / 6), (2, 2, 0), *((2, 8, k / 6) for k in range(1, 6)),
        (8, 8, 0), *((8, 2, k / 6) for k in range(1, 4)),
    ]  # fmt: skip
    assert travel.texts() == [*"bbaaaaaabbbb"]


@pytest.mark.parametrize("position", ["{}", "-{}", "{}%", "0-{}", "{}.5%"])
def test_a_number_of_thousands_of_digits_is_outside_of_the_video(position):
    with pytest.raises(TravelError, match="is outside the video, whose frames are numbered 0 to 15") as error:
        read_travel(f"0: a\n{position.format('9' * 4400)}: x", 16)
    assert len(str(error.value)) < 300


def test_thousands_of_keyframes_take_no_longer_than_their_frames():
    started = time.process_time()
    travel = read_travel("\n".join(f"{3 * index}: word {index}" for index in range(3000)), 10_000)
    texts, sources = travel.texts(), travel.sources()
    assert time.process_time() - started < 2  # 53 s where each frame looks at each keyframe
    assert (texts[8999], texts[9999]) == ("word 2999", "word 2999") and sources[4] == (3, 6, 1 / 3)


@pytest.mark.parametrize("closed", [False, True])
def test_a_single_keyframe_is_for_all_frames(closed):
    travel = read_travel("5: a", 8, closed=closed)
    assert travel.texts() == ["a"] * 8 and travel.sources() == [(5, 5, 0)] * 8
    assert travel.keyframes == (Keyframe(5, 5, "a"),)


def test_at_a_keyframe_a_condition_is_that_of_its_prompt_to_the_bit():
    conditions = torch.randn(5, 3, 4).half()
    for how in ("slerp", "lerp"):
        assert torch.equal(between(conditions, [(4, 2, 0.0), (1, 1, 0.0)], how), conditions[[4, 1]])


def test_half_way_a_condition_is_the_mean_or_lies_on_the_arc():
    conditions = torch.tensor([[[2.0, 0.0]], [[0.0, 2.0]]])
    assert between(conditions, [(0, 1, 0.5)], "lerp").tolist() == [[[1.0, 1.0]]]
    torch.testing.assert_close(between(conditions, [(0, 1, 0.5)]), torch.full((1, 1, 2), math.sqrt(2)))
    third = between(conditions, [(0, 1, 1 / 3)])
    torch.testing.assert_close(third, torch.tensor([[[2 * math.cos(math.pi / 6), 2 * math.sin(math.pi / 6)]]]))


def test_nearly_equal_or_opposite_conditions_are_interpolated_linearly():
    for other in ([[2.0, 1e-4]], [[-2.0, 0.0]], [[0.0, 0.0]]):
        conditions = torch.tensor([[[2.0, 0.0]], other])
        mixed = between(conditions, [(0, 1, 0.5)])
        assert mixed.isfinite().all()
    torch.testing.assert_close(between(torch.tensor([[2.0, 0.0], [2.0, 1e-4]]), [(0, 1, 0.5)]), torch.tensor([[2.0, 5e-5]]))
