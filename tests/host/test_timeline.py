"""The HTML of a prompt's keyframes."""

import re

import pytest

from animatediff.page import timeline
from motion_module.prompt_travel import TravelError, read_travel


def segments(prompt, frames, closed=False):
    """Returns each segment: width in frames, text, where its own colour ends and the next begins, whether the two differ."""
    found = re.findall(
        r"<span style='flex-grow: (\d+); --own: (\S+); --next: (\S+); --own-until: (\S+)%; --next-from: (\S+)%' title='[^']*'>"
        r"([^<]*)</span>",
        timeline.strip(read_travel(prompt, frames, closed=closed)),
    )
    return [(int(width), text, float(until), float(begins), own != to) for width, own, to, until, begins, text in found]


def test_a_keyframe_blends_into_the_next_one_after_its_last_frame():
    first, second, third = segments("0: a\n4-7: b\n8: c", 16)
    assert first == (4, "0: a", 25.0, 100.0, True)
    assert second == (4, "4–7: b", 100.0, 100.0, True)
    assert third[:2] == (8, "8: c") and not third[-1]


def test_nothing_changes_before_the_first_keyframe_and_after_the_last_one():
    before, first, last = segments("2: a\n6: b", 8)
    assert before[:2] == (2, "") and before[2] >= 100
    assert first == (4, "2: a", 25.0, 100.0, True) and not last[-1]


def test_a_loop_continues_at_the_start_where_it_was_at_the_end():
    before, _, last = segments("2: a\n6: b", 8, closed=True)
    assert last == (2, "6: b", 50.0, 200.0, True)  # three frames from b to a: one before the end, and two after it
    assert before == (2, "", -50.0, 100.0, True)
    assert [closed for closed in (False, True) if "↻" in timeline.strip(read_travel("2: a\n6: b", 8, closed=closed))] == [True]


@pytest.mark.parametrize("closed", [False, True])
def test_one_keyframe_is_one_colour(closed):
    found = timeline.strip(read_travel("5: a", 8, closed=closed))
    assert len(set(re.findall(r"--(?:own|next): (\S+);", found))) == 1 and "↻" not in found


def test_the_tooltip_is_the_whole_prompt_and_shared_words_are_below():
    found = timeline.strip(read_travel("a cat\n0: asleep\n4: awake\nsharp", 8))
    assert re.findall("title='([^']*)'", found) == ["a cat, asleep, sharp", "a cat, awake, sharp"]
    assert "<span>In all frames:</span> a cat … sharp</div>" in found
    assert "In all frames" not in timeline.strip(read_travel("0: a\n4: b", 8))


HOSTILE = """<img src=x onerror="alert(1)">'"""


def test_a_prompt_is_not_read_as_html():
    with pytest.raises(TravelError) as error:
        read_travel(f"99: {HOSTILE}", 8)
    for found in (timeline.strip(read_travel(f"{HOSTILE}\n0: {HOSTILE}", 8)), timeline.fault(error.value)):
        assert "<img" not in found and "&lt;img src=x onerror=&quot;alert(1)&quot;&gt;&#x27;" in found


def test_a_fault_shows_its_lines_and_its_text():
    with pytest.raises(TravelError) as error:
        read_travel("0-4: a\n4: b\n6: c", 8)
    assert timeline.fault(error.value) == (
        "<div class='ad-timeline-fault'><mark>0-4: a</mark><mark>4: b</mark>"
        "<p>Two keyframes are at frame 4. Remove or move one of them.</p></div>"
    )


def test_notes_are_paragraphs():
    assert timeline.notes([]) == ""
    note = "<p class='ad-timeline-note'>The line “&lt;img&gt;”.</p>"
    assert timeline.notes(["The line “<img>”."] * 2) == 2 * note
