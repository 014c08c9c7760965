"""What becomes of the WebUI's prompts and conditions."""

from types import SimpleNamespace

import pytest
import torch

from animatediff.job import prompt_travel
from motion_module.prompt_travel import TravelError, between


def test_each_frame_gets_the_prompt_of_its_keyframe_in_both_passes():
    text = "x\n0: a\n2: b"
    p = SimpleNamespace(prompts=[text] * 4, negative_prompts=["bad"] * 4, hr_prompts=[text] * 4, hr_negative_prompts=None)
    travels = prompt_travel.follow(p, 4, closed=False)
    assert p.prompts == p.hr_prompts == ["x, a", "x, a", "x, b", "x, b"] and p.negative_prompts == ["bad"] * 4
    assert set(travels) == {"prompts", "hr_prompts"}


def test_prompts_that_are_given_for_each_frame_are_left_alone():
    p = SimpleNamespace(prompts=["0: a", "0: b"], negative_prompts=["", ""])
    assert prompt_travel.follow(p, 2, closed=False) == {} and p.prompts == ["0: a", "0: b"]


def test_a_keyframe_behind_the_end_is_refused():
    with pytest.raises(TravelError, match="“4: b”"):
        prompt_travel.follow(SimpleNamespace(prompts=["0: a\n4: b"] * 4, negative_prompts=[""] * 4), 4, closed=False)


@pytest.mark.parametrize("hires", [False, True])
def test_in_each_step_conditions_are_mixed_part_by_part(hires):
    p = SimpleNamespace(prompts=["0: a\n3: b"] * 4, negative_prompts=["c\n0: d\n3: e"] * 4)
    p.hr_prompts, p.hr_negative_prompts = ["f"] * 4, ["g"] * 4
    travels = prompt_travel.follow(p, 4, closed=False)
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
    travels = prompt_travel.follow(SimpleNamespace(prompts=["0: a\n3: b"] * 4, negative_prompts=[""] * 4), 4, closed=False)
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
