"""Words that others add to a prompt with keyframes."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motion_module.added_words import apart
from motion_module.prompt_travel import read_travel


@pytest.mark.parametrize(
    ("written", "text", "expected"),
    [
        ("0: a\n8: b", "oil, 0: a\n8: b, sharp", "oil, \n0: a\n8: b\n, sharp"),
        ("0: a\nmore\n8: b", "0: a, x\nmore\nadded\ny, 8: b", "0: a\nmore\n8: b\n, x\nadded\ny,"),
        ("0: a\n8: b\nend", "0: a\n8: b, x\nend", "0: a\n8: b\n, x\nend"),
        ("0: __colour__\n8: b", "x, 0: red\n8: b", "x, \n0: red\n8: b"),
        ("0: __colour__\nmore __colour__\n8: b", "0: red\nmore red\nx\n8: b", "0: red\nmore red\nx\n8: b"),
        ("x\n0: a\n10: b\ny", "x 0: a 10: b y", "x \n0: a\n10: b\n y"),
        ("0: a # note\n8: b", "0: a \n8: b", "0: a \n8: b"),
        ("0: a\n8: b", "0: a\n12: b", "0: a\n12: b"),
        ("0: a\n8: b", "0: another\n8: b", "0: another\n8: b"),
        ("0: a", "10: 0: a", "10: \n0: a"),
        ("a", "a, b", "a, b"),
    ],
)
def test_added_words_get_lines_of_their_own(written, text, expected):
    assert apart(text, written) == expected
    assert apart(expected, expected) == expected


@pytest.mark.parametrize(
    ("written", "styles", "text", "expected"),
    [
        ("0: __c__", [("", ", x")], "0: red, x", "0: red\n, x"),
        ("0: __c__", [("p ", " q"), ("", ", x")], "p 0: red q, x", "p \n0: red\n q\n, x"),
        ("a cat", [("", ", 0: a\n8: b"), ("", ", x")], "a cat, 0: a\n8: b, x", "a cat\n, 0: a\n8: b\n, x"),
        ("0: a", [("{red|blue}, ", "")], "red, 0: a", "red, \n0: a"),
        ("a cat", [("", ", x")], "a cat, x", "a cat, x"),
    ],
)
def test_what_styles_add_is_known_exactly(written, styles, text, expected):
    assert apart(text, written, styles) == expected


WORDS = st.lists(
    st.sampled_from(["cat", "(dog:1.2)", "[a:b:0.5]", "16:9", "1girl", "AND", "BREAK", "x"]), min_size=1, max_size=3
)
WORDS = WORDS.map(" ".join)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_words_that_others_add_around_and_between_keyframes_are_for_all_frames_and_destroy_none(data):
    numbers = sorted(data.draw(st.sets(st.integers(0, 15), min_size=1, max_size=5), "frames"))
    form = data.draw(st.sampled_from(["{}: {}", "{}:{}", "{} = {}", '"{}": "{}",', "- {}: {}"]), "form")
    lines = [form.format(number, f"k{number} {data.draw(WORDS)}") for number in numbers]
    head, tail = (data.draw(st.just("") | WORDS, part) for part in ("head", "tail"))
    line_end = data.draw(st.sampled_from(["\n", "\r\n", "\n\n"]))
    written = line_end.join([*[head] * bool(head), *lines, *[tail] * bool(tail)])
    added, text = [], written
    for number, line in enumerate(lines):
        for before in (True, False):
            if data.draw(st.booleans()):
                added.append(f"new{len(added)}")
                between = data.draw(st.sampled_from([", ", " ", "\n"]))
                with_words = f"{added[-1]}{between}{line}" if before else f"{line}{between}{added[-1]}"
                text = text.replace(line, with_words, 1) if line not in lines[:number] else text
    own, made = read_travel(written, 16), read_travel(apart(text, written), 16)
    assert [(k.first, k.last, k.text) for k in made.keyframes] == [(k.first, k.last, k.text) for k in own.keyframes]
    shared = f"{made.head} {made.tail}"
    assert all(word in shared for word in added) and head in made.head and tail in made.tail


def test_a_long_prompt_is_set_apart_at_once():
    written = "\n".join(f"{index}: word {index}" for index in range(3000))
    started = time.process_time()
    assert apart(f"oil, {written}, sharp", written) == f"oil, \n{written}\n, sharp"
    assert apart(written.replace("word", "a"), written) == written.replace("word", "a")
    assert time.process_time() - started < 3
