"""How the paper's experiments count: intervals, chance, and what is not judged twice."""

import json

import numpy as np
import pytest

from demo.paper import report
from demo.paper.experiments import Row
from demo.paper.judging import Part, Verdict, mean, part, shuffled, verdict, verdicts
from demo.world import render, thresholds
from demo.world.judge import Reading
from demo.world.scenes import Scene, held_out_scenes

RED = Scene("circle", "red", "blue", "moving left")


def seen(scene, style="plain", flicker=1.0, **other):
    words = {word: other.get(word, getattr(scene, word)) for word in ("shape", "colour", "background", "motion")}
    return Verdict(scene, Reading(**words, style=style, watermark=False), flicker)


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    # statsmodels.stats.proportion.proportion_confint(hits, count, method="wilson")
    [(0, 60, 0.0, 0.0602), (54, 60, 0.7985, 0.9534), (60, 60, 0.9398, 1.0), (184, 200, 0.8742, 0.9502)],
)
def test_intervals_are_those_of_wilson(hits, count, low, high):
    assert Part(hits, count).interval == pytest.approx((low, high), abs=2e-4)


def test_a_mean_comes_with_its_standard_error():
    assert (found := mean([1.0, 2.0, 3.0, 4.0])).value == 2.5
    assert found.reach == pytest.approx(1.96 * np.std([1, 2, 3, 4], ddof=1) / 2)


def test_what_was_judged_is_not_made_again_and_the_rest_is(tmp_path):
    made = []

    def make(scene, seed):
        made.append((scene, seed))
        return render.clip(scene, seed)

    scenes = held_out_scenes(4, seed=0)
    file = tmp_path / "verdicts" / "row.jsonl"
    first = verdicts(file, make, scenes[:2])
    assert verdicts(file, make, scenes) == [*first, *(verdict(scene, render.clip(scene, seed)) for scene, seed in made[2:])]
    assert made == [(scene, seed) for seed, scene in enumerate(scenes)]
    assert verdicts(file, make, scenes[:3]) == verdicts(file, make, scenes)[:3] and len(made) == 4
    assert len([json.loads(line) for line in file.read_text().splitlines()]) == 4


def test_shuffled_captions_are_those_of_other_clips_each_once():
    judged = [seen(scene) for scene in held_out_scenes(24, seed=1)]
    other = shuffled(judged)
    assert sorted(map(repr, (v.scene for v in other))) == sorted(map(repr, (v.scene for v in judged)))
    assert {repr(v.reading) for v in other} == {repr(v.reading) for v in judged}
    assert part(v.agrees("shape") for v in other).value < 0.6 < part(v.agrees("shape") for v in judged).value == 1.0


def of_models(ours, frames, zero):
    scenes = [ours[0].scene]
    methods = {"ours": ours, "frame by frame": frames, "Text2Video-Zero": zero}
    return [
        (Row(f"plain, {name}", f"plain-{name.replace(' ', '-').lower()}", render.clip, scenes), judged)
        for name, judged in methods.items()
    ]


def test_claims_say_what_was_reached_and_what_was_not():
    scenes = held_out_scenes(60, seed=2)
    still = [seen(scene, motion="none", flicker=9 + index % 2) for index, scene in enumerate(scenes)]
    good = [seen(scene, flicker=1 + index % 2) for index, scene in enumerate(scenes)]
    lines = report.claims(of_models(good, still, still)).splitlines()
    assert len(lines) == 2 + 3 + len(thresholds.CHANCE) + 2
    assert not [line for line in lines if "not reached" in line]
    jumpy = [seen(scene, style="ink", motion="none", flicker=9 + index % 2) for index, scene in enumerate(scenes)]
    missed = [line for line in report.claims(of_models(jumpy, good, still)).splitlines() if "not reached" in line]
    assert len(missed) == 4, "motion, style, the frames' motion, smoothness"


def test_a_table_holds_ours_against_captions_of_others_too():
    judged = [seen(scene) for scene in held_out_scenes(12, seed=3)]
    text = report.table(of_models(judged, judged, judged))
    assert text.count("captions shuffled") == 1 and "| plain, ours | 12 | 100 % (76–100)" in text


def test_a_contact_sheet_shows_the_first_and_the_last_frame_of_each_clip(tmp_path):
    from PIL import Image

    rows = [Row(f"row {index}", "row", render.clip, []) for index in range(2)]
    report.contact_sheet(rows, RED, 3, tmp_path / "sheet.png")
    picture = np.asarray(Image.open(tmp_path / "sheet.png"))
    clip = render.clip(RED, 3)
    assert picture.shape == (256, report.LABEL + report.SHOWN * 128, 3)
    assert np.array_equal(picture[128:, report.LABEL : report.LABEL + 128], clip[0])
    assert np.array_equal(picture[:128, -128:], clip[-1])
