"""What Dynamic Prompts has made of the rows of a batch becomes videos."""

from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
FRAMES = 2


@pytest.fixture
def dynamic_prompts(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "demo" / "host" / "webui"))  # for its `modules`
    from animatediff.job import dynamic_prompts

    return dynamic_prompts


def given(
    prompts,
    seeds,
    *,
    enabled=True,
    prompt="{a|b|c}",
    combinatorial=False,
    jinja=False,
    no_images=False,
    subseed_strength=0,
    n_iter=1,
):
    """Returns a `p` whose rows Dynamic Prompts has filled. All negative prompts are the same."""
    values = [enabled, combinatorial, *[None] * 11, jinja, no_images]
    script = SimpleNamespace(title=lambda: "Dynamic Prompts v2.17.1", args_from=0, args_to=len(values))
    return SimpleNamespace(
        scripts=SimpleNamespace(alwayson_scripts=[script]),
        script_args=tuple(values),
        prompt=prompt,
        all_prompts=list(prompts),
        all_negative_prompts=["low" for _ in prompts],
        all_seeds=list(seeds),
        all_subseeds=[seed + 100 for seed in seeds],
        subseed_strength=subseed_strength,
        n_iter=n_iter,
    )


VIDEOS = {
    "combinations": (given("abc", [1, 2, 3], combinatorial=True, n_iter=2), "aabbcc", [1, 2, 3, 4, 5, 6]),
    "as many combinations as frames": (given("ab", [1, 2], combinatorial=True), "aabb", [1, 2, 3, 4]),
    "combinations with one seed": (given("abc", [1, 1, 1], combinatorial=True, n_iter=2), "aabbcc", [1, 2, 1, 2, 1, 2]),
    "combinations, twice": (given("abab", [1, 1, 2, 2], combinatorial=True, n_iter=2), "aabbaabb", [1, 2, 1, 2, 3, 4, 3, 4]),
    "combinations that were left alone": (given("xx", [1, 2], combinatorial=True), "xx", [1, 2]),
    "a template of two prompts": (given("abab", [1, 2, 3, 4], jinja=True, n_iter=2), "aabb", [1, 2, 3, 4]),
    "a template of one": (given("abcd", [1, 2, 3, 4], jinja=True, n_iter=2), "aabb", [1, 2, 3, 4]),
    "random": (given("abcd", [1, 2, 3, 4], n_iter=2), "abcd", [1, 2, 3, 4]),
    "random with one seed": (given("aaaa", [1, 1, 1, 1], n_iter=2), "aaaa", [1, 2, 1, 2]),
    "random with variations": (given("aaaa", [1, 1, 1, 1], subseed_strength=0.5, n_iter=2), "aaaa", [1, 1, 1, 1]),
    "beside a list of prompts": (given("ab", [7, 7], prompt=["a", "b"]), "ab", [7, 7]),
    "switched off": (given("ab", [7, 7], enabled=False, combinatorial=True), "ab", [7, 7]),
}


@pytest.mark.parametrize("name", VIDEOS)
def test_each_prompt_has_a_video_and_each_frame_a_seed(dynamic_prompts, name):
    p, prompts, seeds = VIDEOS[name]
    dynamic_prompts.make_videos(p, FRAMES)
    assert "".join(p.all_prompts) == prompts
    assert p.all_seeds == seeds
    assert p.all_negative_prompts == ["low"] * len(prompts)
    assert len(p.all_prompts) == len(p.all_subseeds) == FRAMES * p.n_iter


def test_variations_differ_by_their_own_seeds(dynamic_prompts):
    p = given("ab", [1, 1], combinatorial=True, subseed_strength=0.5)
    p.all_subseeds = [5, 6]
    dynamic_prompts.make_videos(p, FRAMES)
    assert (p.all_seeds, p.all_subseeds) == ([1, 1, 1, 1], [5, 6, 7, 8])


REFUSED = {
    "set not to generate images": given("a", [1], combinatorial=True, no_images=True, n_iter=3),
    "cannot read the prompt: Expected '}'": given(["Expected '}'"], [1]),
    "cannot read the prompt: Unknown tag": given(["Unknown tag"], [1], jinja=True),
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_is_no_video_is_refused(dynamic_prompts, said):
    with pytest.raises(dynamic_prompts.AnimateDiffError, match=said):
        dynamic_prompts.make_videos(REFUSED[said], FRAMES)


def test_a_template_of_more_prompts_than_frames_has_a_negative_prompt_for_each(dynamic_prompts):
    p = given("abcabc", [1, 2, 3, 4, 5, 6], jinja=True)
    p.all_negative_prompts = ["low"] * FRAMES
    dynamic_prompts.make_videos(p, FRAMES)
    assert p.all_negative_prompts == ["low"] * 3 * FRAMES


def test_an_error_in_a_template_is_none_of_its_combinations(dynamic_prompts):
    p = given(["expected token"], [1], jinja=True, combinatorial=True)
    with pytest.raises(dynamic_prompts.AnimateDiffError, match="cannot read the prompt: expected token"):
        dynamic_prompts.make_videos(p, FRAMES)
