"""Which lines of a prompt are keyframes, and what is said of those that only look like one."""

import time

import pytest

from motion_module.keyframe_lines import near_misses
from motion_module.prompt_travel import TravelError, read_travel

ALIKE, INSIDE = "looks like a keyframe, but is read as words", "in its middle, which is read as words"


def keyframes(prompt, frames=16):
    travel = read_travel(prompt, frames)
    return travel and [(keyframe.first, keyframe.last, travel.prompt_at(keyframe)) for keyframe in travel.keyframes]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ('the girl dancing\n"0":  "white dress",\n"5" : "red dress",', [(0, 0, "the girl dancing, white dress"),
                                                                        (5, 5, "the girl dancing, red dress")]),
        ('{\n"0": "a rose bud",\n"8": "a rose in bloom"\n}', [(0, 0, "a rose bud"), (8, 8, "a rose in bloom")]),
        ('{"0": "a", "8": "the \\"b\\""}', [(0, 0, "a"), (8, 8, 'the "b"')]),
        ("{0: \"a\",\n8: \"b\"}", [(0, 0, "a"), (8, 8, "b")]),
        ("'0': 'a',\n“8”: “b”", [(0, 0, "a"), (8, 8, "b")]),
        ("0:1girl, smile\n8:1boy", [(0, 0, "1girl, smile"), (8, 8, "1boy")]),
        ("0：eyes closed\n８：eyes open", [(0, 0, "eyes closed"), (8, 8, "eyes open")]),
        ("0= a\n8 = b", [(0, 0, "a"), (8, 8, "b")]),
        ("- 0: a\n* 8: b\n• 9: c", [(0, 0, "a"), (8, 8, "b"), (9, 9, "c")]),
        ("0–7: a\n8 — 100％: b", [(0, 7, "a"), (8, 15, "b")]),
        ("\ufeff0: a\n\u200b8: b\u200b", [(0, 0, "a"), (8, 8, "b")]),
        ("a cat,\n0: asleep,\n8: awake,\nsharp", [(0, 0, "a cat, asleep, sharp"), (8, 8, "a cat, awake, sharp")]),
        ("0: 1990, cars\n8: 2077, neon", [(0, 0, "1990, cars"), (8, 8, "2077, neon")]),
        ("a cat 0: asleep\n8: awake", [(0, 0, "a cat, asleep"), (8, 8, "a cat, awake")]),
        ("16:9 photo\n0: a\n12:30", [(0, 0, "16:9 photo, a, 12:30")]),
        ("0: 3 girls\n8: 2 girls", [(0, 0, "3 girls"), (8, 8, "2 girls")]),
        ('0: the "a" and "b"', [(0, 0, 'the "a" and "b"')]),
    ],
)  # fmt: skip
def test_what_can_only_be_meant_as_keyframes_is_read(prompt, expected):
    assert keyframes(prompt) == expected and near_misses(prompt, 16) == []


@pytest.mark.parametrize(
    "prompt",
    ["a cat", "16:9", "12:30", "12:30pm, rain", "4:3 photo\n0: a", "cat 3: x", "Fallout 4: wasteland", "(cat:1.2)", "[a:b:8]",
     "1girl: a", "3d render: x", "1 girl\n2 dogs", "1. one item", "a\n0: at 8: 30 pm", "#8", "0:30 on a clock", "{", ""],
)  # fmt: skip
def test_nothing_is_said_of_other_words(prompt):
    assert near_misses(prompt, 16) == []


@pytest.mark.parametrize(
    ("prompt", "shown", "why"),
    [
        ("8: 30 pm", "8: 30 pm", ALIKE),
        ("16: 9, photo", "16: 9, photo", ALIKE),
        ("(0: smile:1.2)\n8: b", "(0: smile:1.2)", ALIKE),
        ("frame 0: a\nframe 8: b", "frame 0: a” (and 1 more)", ALIKE),
        ("0.5: a", "0.5: a", ALIKE),
        ("0 to 7: a", "0 to 7: a", ALIKE),
        ("0,8: a", "0,8: a", ALIKE),
        ("0) a\n8) b", "0) a” (and 1 more)", ALIKE),
        ("0 -> a\n8 -> b", "0 -> a” (and 1 more)", ALIKE),
        ('"0: a"', '"0: a"', ALIKE),
        ("0:4 girls", "0:4 girls", ALIKE),
        ("0: one girl\n8:2 girls", "8:2 girls", ALIKE),
        ("0: smile, 8: frown", "0: smile, 8: frown", f"“8:” {INSIDE}"),
        ("a cat in a garden 0: sleeping 8: awake sharp", "a cat in a garden 0: sleeping 8: awake sharp", f"“0:” {INSIDE}"),
        ("0: a\\n8: b", "0: a\\n8: b", f"“8:” {INSIDE}"),
        ("0: a<br>8: b", "0: a<br>8: b", f"“8:” {INSIDE}"),
        ("to 0: a\n0%: b", "to 0: a", f"“0:” {INSIDE}"),
        ("4: a 50%: b", "4: a 50%: b", f"“50%:” {INSIDE}"),
        ("1990: retro style", "1990: retro style", "as words of the prompt, since the video's frames are numbered 0 to 15"),
    ],
)  # fmt: skip
def test_what_looks_like_a_keyframe_and_is_none_is_said(prompt, shown, why):
    (sentence,) = near_misses(prompt, 16)
    assert sentence.startswith(f"The line “{shown}") and why in sentence


def test_a_year_is_a_keyframe_where_the_video_is_long_enough():
    assert read_travel("1990: retro style", 1990) is None and near_misses("1990: retro style", 1990)
    assert keyframes("1990: retro style", 1991) == [(1990, 1990, "retro style")] and not near_misses("1990: a", 1991)


def test_a_time_of_day_with_blanks_is_no_keyframe():
    assert read_travel("8: 30 pm", 16) is read_travel("12: 30 a.m. sun", 16) is read_travel("16: 9", 24) is None


@pytest.mark.parametrize(
    "prompt",
    ["9" * 10**5, "0" * 10**5 + ":x", "0" + " " * 10**5 + "a", "0: " * 10**4, "8:" * 10**5, '"' * 10**5, "{" + " " * 10**5,
     '0: "' + "\\" * 10**5, "x" + " 0" * 10**5 + "\n1: a", "a 0: b\n" * 2000 + "5: x", "(1: a)\n" * 3000, "8\n" * 10**4],
    ids=lambda prompt: repr(prompt[:8]),
)  # fmt: skip
def test_no_prompt_takes_long_to_read(prompt):
    started = time.process_time()
    try:
        read_travel(prompt, 16)
    except TravelError as error:
        assert len(str(error)) < 400
    assert sum(map(len, near_misses(prompt, 16))) < 1200
    assert time.process_time() - started < 4


def test_blanks_are_read_in_linear_time():
    before = time.process_time()
    assert near_misses("x 0" + " " * 200_000 + "y", 16) == []
    assert time.process_time() - before < 3
