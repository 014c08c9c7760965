"""What becomes of the WebUI's prompts and conditions."""

from types import SimpleNamespace

import pytest
import torch

from animatediff.controlnet import marks
from animatediff.job import added_words, prompt_travel
from motion_module.prompt_travel import TravelError, between


def test_each_frame_gets_the_prompt_of_its_keyframe_in_both_passes():
    text = "x\n0: a\n2: b"
    p = SimpleNamespace(prompts=[text] * 4, negative_prompts=["bad"] * 4, hr_prompts=[text] * 4, hr_negative_prompts=None)
    travels, warnings = prompt_travel.follow(p, 4, closed=False)
    assert warnings == []
    assert p.prompts == p.hr_prompts == ["x, a", "x, a", "x, b", "x, b"] and p.negative_prompts == ["bad"] * 4
    assert set(travels) == {"prompts", "hr_prompts"}


def test_prompts_that_are_given_for_each_frame_are_left_alone_and_keyframes_in_them_are_said():
    p = SimpleNamespace(prompts=["0: a", "0: b"], negative_prompts=["c", "d"])
    travels, (warning,) = prompt_travel.follow(p, 2, closed=False)
    assert travels == {} and p.prompts == ["0: a", "0: b"] and "a prompt of its own" in warning


def test_what_looks_like_a_keyframe_is_said_of_every_prompt():
    text = "a cat in a garden 0: sleeping 8: awake"
    p = SimpleNamespace(prompts=["a"] * 2, negative_prompts=[text] * 2, hr_negative_prompts=["frame 0: a"] * 2)
    travels, (first, second) = prompt_travel.follow(p, 2, closed=False)
    assert travels == {} and p.negative_prompts == [text] * 2
    assert first.startswith(f"AnimateDiff: The line “{text}” has “0:” in its middle") and "“frame 0: a” looks like" in second


class Styles:
    """As the WebUI applies styles: they replace `{prompt}`, or come after it."""

    def apply_styles_to_prompt(self, prompt, names):
        for name in names:
            prompt = name.replace("{prompt}", prompt) if "{prompt}" in name else ", ".join(filter(None, (prompt.strip(), name)))
        return prompt

    apply_negative_styles_to_prompt = apply_styles_to_prompt


def prompts_of_frames(prompt, styles, change=lambda text: text, later=lambda text: text, frames=9):
    """Returns the prompts of a video's frames, and the one for its infotext."""
    p = SimpleNamespace(prompt=prompt, negative_prompt="", styles=styles, iteration=0, batch_size=frames)
    written = added_words.as_written(p)
    p.all_prompts = [change(Styles().apply_styles_to_prompt(prompt, styles))] * frames
    added_words.set_apart(p, written, Styles())
    p.prompts, p.negative_prompts, p.all_negative_prompts = [later(text) for text in p.all_prompts], [""], [""]
    added_words.set_apart_in_rows(p)
    prompt_travel.follow(p, frames, closed=False)
    return p.prompts, p.all_prompts[0]


STYLED = [
    ("0: a\n8: b", ["sharp"], "a, sharp", "b, sharp"),
    ("0: a\n8: b", ["oil, {prompt}, sharp", "blue"], "oil, a, sharp, blue", "oil, b, sharp, blue"),
    ("a cat", ["0: a\n8: b", "sharp"], "a cat, a, sharp", "a cat, b, sharp"),
    ('{\n"0": "a",\n"8": "b"\n}', ["oil, {prompt}"], "oil, a", "oil, b"),
]


@pytest.mark.parametrize(("prompt", "styles", "first", "last"), STYLED)
def test_the_words_of_styles_are_for_all_frames_also_of_a_video_from_the_infotext(prompt, styles, first, last):
    found, infotext = prompts_of_frames(prompt, styles)
    assert found == [first] * 8 + [last]
    assert prompts_of_frames(infotext, []) == (found, infotext)


def test_without_added_words_a_prompt_stays_as_written():
    for prompt, styles in (("x\n0: a\n8: b", []), ("a cat", ["sharp"]), ("16:9", ["oil, {prompt}"])):
        assert prompts_of_frames(prompt, styles)[1] == Styles().apply_styles_to_prompt(prompt, styles)


def test_words_that_scripts_add_are_for_all_frames_where_wildcards_change_keyframes_too():
    drawn = lambda text: f"masterpiece, {text}".replace("__colour__", "red")  # noqa: E731
    found, _ = prompts_of_frames("0: __colour__ a\n8: b __colour__", ["sharp"], drawn, lambda text: f"{text}, trigger")
    assert found == ["masterpiece, red a, sharp, trigger"] * 8 + ["masterpiece, b red, sharp, trigger"]


def test_line_ends_that_a_script_takes_away_are_put_back():
    found, _ = prompts_of_frames("x\n0: a\nmore\n8: b", [], lambda text: text.replace("\n", " "))
    assert found == ["x, a, more"] * 8 + ["x, b"]


def test_a_keyframe_behind_the_end_is_refused():
    with pytest.raises(TravelError, match="“4: b”"):
        prompt_travel.follow(SimpleNamespace(prompts=["0: a\n4: b"] * 4, negative_prompts=[""] * 4), 4, closed=False)


@pytest.mark.parametrize("hires", [False, True])
def test_in_each_step_conditions_are_mixed_part_by_part(hires):
    p = SimpleNamespace(prompts=["0: a\n3: b"] * 4, negative_prompts=["c\n0: d\n3: e"] * 4)
    p.hr_prompts, p.hr_negative_prompts = ["f"] * 4, ["g"] * 4
    travels, _ = prompt_travel.follow(p, 4, closed=False)
    rows, negative = torch.randn(8, 3, 2), torch.randn(4, 3, 2)  # two parts of each of four frames
    params = SimpleNamespace(text_cond=rows.clone(), text_uncond=negative.clone())
    prompt_travel.mix(travels, params, 2, "lerp", hires=hires)
    if hires:
        assert torch.equal(params.text_cond, rows) and torch.equal(params.text_uncond, negative)
        return
    sources = [(0, 0, 0.0), (0, 3, 1 / 3), (0, 3, 2 / 3), (3, 3, 0.0)]
    for part in (0, 1):
        torch.testing.assert_close(params.text_cond[part::2], between(rows[part::2], sources, "lerp"))
    torch.testing.assert_close(params.text_uncond, between(negative, sources, "lerp"))
    assert torch.equal(params.text_cond[:2], rows[:2]) and torch.equal(params.text_cond[-2:], rows[-2:])


class WithShape(dict):
    """As the WebUI holds conditions of SDXL."""


@pytest.mark.parametrize("how", ["lerp", "slerp"])
def test_of_sdxl_the_pooled_vector_is_mixed_too_and_sizes_behind_it_stay(how):
    travels, _ = prompt_travel.follow(SimpleNamespace(prompts=["0: a\n3: b"] * 4, negative_prompts=[""] * 4), 4, closed=False)
    tokens, pooled, sizes = torch.randn(8, 3, 2), torch.randn(8, 5), torch.randn(4).expand(8, 4)
    params = SimpleNamespace(text_cond=WithShape(crossattn=tokens.clone(), vector=torch.cat([pooled, sizes], dim=1)))
    prompt_travel.mix(travels, params, 2, how, hires=False)
    assert type(params.text_cond) is WithShape
    sources = [(0, 0, 0.0), (0, 3, 1 / 3), (0, 3, 2 / 3), (3, 3, 0.0)]
    for part in (0, 1):
        torch.testing.assert_close(params.text_cond["crossattn"][part::2], between(tokens[part::2], sources, how))
        torch.testing.assert_close(params.text_cond["vector"][part::2, :5], between(pooled[part::2], sources, how))
    assert torch.equal(params.text_cond["vector"][:, 5:], sizes)


def test_a_script_that_draws_a_prompt_for_each_row_gives_one_to_each_video():
    p = SimpleNamespace(prompt="a __colour__ cat", negative_prompt=["n", "m"], all_prompts=[*"abcd"], all_hr_prompts=[*"efgh"])
    p.all_negative_prompts = [*"nmnm"]
    prompt_travel.one_prompt_for_each_video(p, 2)
    assert p.all_prompts == [*"aacc"] and p.all_hr_prompts == [*"eegg"] and p.all_negative_prompts == [*"nmnm"]


def test_negative_prompts_of_several_lengths_are_made_as_long_as_the_longest():
    entry = lambda length: SimpleEntry(9, torch.arange(length * 2.0).view(length, 2))  # noqa: E731
    short, long = [entry(2)], [entry(2), entry(3)]
    made = prompt_travel.of_one_length([short, long])
    assert [[len(entry.cond) for entry in schedule] for schedule in made] == [[3], [3, 3]]
    assert made[0][0].cond.tolist() == [[0, 1], [2, 3], [2, 3]] and made[0][0].end_at_step == 9
    same = [short, short]
    assert prompt_travel.of_one_length(same) is same


class SimpleEntry:
    def __init__(self, end_at_step, cond):
        self.end_at_step, self.cond = end_at_step, cond


def test_of_sdxl_only_the_tokens_of_negative_prompts_are_stretched():
    entry = lambda length: SimpleEntry(9, {"crossattn": torch.ones(length, 2), "vector": torch.ones(5)})  # noqa: E731
    (short,), (long,) = prompt_travel.of_one_length([[entry(2)], [entry(3)]])
    assert len(short.cond["crossattn"]) == len(long.cond["crossattn"]) == 3 and len(short.cond["vector"]) == 5


def test_marks_of_controlnet_can_be_taken_away():
    words = torch.randn(2, 5, 8)
    mark = torch.tensor([marks.MARK, -marks.MARK]).view(2, 1, 1).expand(2, 1, 8)
    assert torch.equal(marks.removed(torch.cat([mark, words], dim=1)), words)
    assert torch.equal(marks.removed(words), words)
