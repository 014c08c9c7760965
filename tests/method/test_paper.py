"""How the paper's experiments count: intervals, chance, and what is not judged twice."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from demo.paper import makers, report
from demo.paper.experiments import EXPERIMENTS, OURS_SHARED, Row, made_with
from demo.paper.judging import MismatchedVerdicts, Proportion, Verdict, Verdicts, agreeing, agreeing_by_chance, mean, verdict
from demo.world import judge, render, thresholds
from demo.world.judge import Reading
from demo.world.scenes import Scene, held_out_scenes
from demo.world.styles import personalised
from motion_module.checkpoint import published
from motion_module.noise_schedule import ANIMATEDIFF
from motion_module.training.temporal_convolution import TemporalConvolution
from motion_module.training.trained_parts import new_motion_module

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
    assert Proportion(hits, count).interval == pytest.approx((low, high), abs=2e-4)


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
    first = Verdicts(file, "these weights").of(scenes[:2], make)
    every = Verdicts(file, "these weights").of(scenes, make)
    assert every == [*first, *(verdict(scene, render.clip(scene, seed)) for scene, seed in made[2:])]
    assert made == [(scene, seed) for seed, scene in enumerate(scenes)]
    assert Verdicts(file, "these weights").of(scenes[:3], make) == every[:3] and len(made) == 4


def test_a_verdict_that_was_cut_off_is_made_again(tmp_path):
    scenes, file = held_out_scenes(2, seed=0), tmp_path / "row.jsonl"
    first = Verdicts(file, "these weights").of(scenes, render.clip)
    whole = file.read_bytes()
    for cut in (len(whole) - 9, 5):
        file.write_bytes(whole[:cut])
        assert Verdicts(file, "these weights").of(scenes, render.clip) == first
        assert file.read_bytes() == whole


def test_verdicts_of_other_weights_or_other_prompts_are_not_taken_for_these(tmp_path):
    scenes = held_out_scenes(2, seed=0)
    Verdicts(tmp_path / "row.jsonl", "these weights").of(scenes, render.clip)
    with pytest.raises(MismatchedVerdicts, match=r"row\.jsonl is of other weights"):
        Verdicts(tmp_path / "row.jsonl", "those weights")
    with pytest.raises(MismatchedVerdicts, match=r"row\.jsonl is of other prompts"):
        Verdicts(tmp_path / "row.jsonl", "these weights").of(scenes[::-1], render.clip)


def test_what_clips_are_made_with_is_told_apart_by_contents_and_recipe(tmp_path):
    (tmp_path / "a").write_bytes(b"weights")
    (tmp_path / "b").write_bytes(b"weights")
    assert made_with(tmp_path / "a", {"x": 1, "y": 2}) == made_with(tmp_path / "b", {"y": 2, "x": 1})
    assert made_with(tmp_path / "a", {"x": 1}) != made_with(tmp_path / "a", {"x": 2}) != made_with(tmp_path / "a")
    (tmp_path / "b").write_bytes(b"other weights")
    assert made_with(tmp_path / "a") != made_with(tmp_path / "b")


def test_chance_is_agreement_with_the_captions_of_all_other_clips():
    scenes = held_out_scenes(24, seed=1)
    judged = [seen(scene) for scene in scenes]
    assert agreeing(judged, "shape").value == 1
    alike = [one.shape == other.shape for one in scenes for other in scenes if one is not other]
    by_chance = agreeing_by_chance(judged, "shape")
    assert by_chance.value == pytest.approx(np.mean(alike)) and by_chance.count == 24


def test_every_row_has_verdicts_of_its_own_and_prompts_that_no_training_saw(tmp_path):
    digests = {}
    for experiment in EXPERIMENTS.values():
        for row in experiment(tmp_path):
            assert digests.setdefault(row.file, row.made_with) == row.made_with, row.file
            assert all(scene.held_out for scene in row.scenes), row.name
    clips = {file: digest for file, digest in digests.items() if not file.startswith(("drawn", "coded"))}
    assert len(set(clips.values())) == len(clips)
    assert not list(tmp_path.iterdir()), "nothing is trained before it is needed"


def of_models(ours, frames, zero):
    methods = {"ours": ours, "frame by frame": frames, "Text2Video-Zero": zero}
    return [(Row(f"plain, {method}", method, "", render.clip, [], method=method), judged) for method, judged in methods.items()]


def test_claims_say_what_was_reached_and_what_was_not():
    scenes = held_out_scenes(60, seed=2)
    still = [seen(scene, motion="none", flicker=9 + index % 2) for index, scene in enumerate(scenes[:40])]
    good = [seen(scene, flicker=1 + index % 3) for index, scene in enumerate(scenes)]
    lines = report.claims(of_models(good, still, still)).splitlines()
    assert len(lines) == 2 + 3 + len(thresholds.CHANCE) + 2
    assert not [line for line in lines if "not reached" in line]
    jumpy = [seen(scene, style="ink", motion="none", flicker=9.1 + index % 3) for index, scene in enumerate(scenes)]
    missed = [line for line in report.claims(of_models(jumpy, good, still)).splitlines() if "not reached" in line]
    assert len(missed) == 4, "motion, style, the frames' motion, smoothness"


def test_claims_are_made_apart_for_each_noise():
    scenes = held_out_scenes(60, seed=2)
    still, good = [seen(scene, motion="none", flicker=9) for scene in scenes], [seen(scene) for scene in scenes]
    rows = [*of_models(good, still, still), (Row("shared", "shared", "", render.clip, [], method=OURS_SHARED), still)]
    lines = [line for line in report.claims(rows).splitlines() if ": motion |" in line and "frame by frame" not in line]
    assert [line.split(" | ")[0] for line in lines] == ["| plain, ours: motion", "| shared: motion"]
    assert ["not reached" in line for line in lines] == [False, True]


def test_a_table_holds_ours_against_captions_of_others_too():
    judged = [seen(scene) for scene in held_out_scenes(12, seed=3)]
    text = report.table(of_models(judged, judged, judged))
    assert text.count("captions shuffled") == 1 and "| plain, ours | 12 | 100 % (76–100)" in text


@pytest.mark.parametrize("method", ["frame by frame", "Text2Video-Zero", "temporal convolution", "ours"])
def test_each_method_makes_clips_on_the_small_worlds_base(tmp_path, monkeypatch, method):
    monkeypatch.setattr(makers, "STEPS", 10)
    model = personalised(tmp_path, "plain")
    if method == "temporal convolution":
        module = new_motion_module(model.unet, render.FRAMES)
        module.layers = torch.nn.ModuleDict({place: TemporalConvolution(width) for place, width in module.channels.items()})
        clip = makers.animated(model, module, ANIMATEDIFF, RED.caption, makers.noise_of(3, render.FRAMES))
    elif method == "ours":
        module, file = new_motion_module(model.unet, render.FRAMES), tmp_path / "motion.safetensors"
        save_file({key: tensor.half() for key, tensor in published(module, module.state_dict()).items()}, file)
        clip = makers.WithMotion(file)(model, RED.caption, seed=3)
    else:
        clip = {"frame by frame": makers.frame_by_frame, "Text2Video-Zero": makers.zero_shot}[method](model, RED.caption, 3)
    assert clip.shape == (render.FRAMES, render.SIDE, render.SIDE, 3)
    reading = judge.read(clip[:1])
    assert (reading.colour, reading.background) == ("red", "blue")


def test_shared_noise_makes_all_frames_alike_before_anything_is_learned(tmp_path, monkeypatch):
    monkeypatch.setattr(makers, "STEPS", 2)
    model, file = personalised(tmp_path, "plain"), tmp_path / "motion.safetensors"
    module = new_motion_module(model.unet, render.FRAMES)
    save_file({key: tensor.half() for key, tensor in published(module, module.state_dict()).items()}, file)
    own = makers.WithMotion(file)(model, RED.caption, seed=3)
    shared = makers.WithMotion(file, noise=makers.shared_noise_of)(model, RED.caption, seed=3)
    assert np.abs(shared - shared[:1].astype(int)).max() <= 1 < np.abs(own - own[:1].astype(int)).max()
    assert np.abs(shared[0] - own[0].astype(int)).max() <= 1, "the first frame begins with the same noise"


def test_a_contact_sheet_shows_the_first_and_the_last_frame_of_each_clip(tmp_path):
    from PIL import Image

    rows = [Row(f"row {index}", "row", "", render.clip, []) for index in range(2)]
    report.contact_sheet(rows, RED, 3, tmp_path / "sheet.png")
    picture = np.asarray(Image.open(tmp_path / "sheet.png"))
    clip = render.clip(RED, 3)
    assert picture.shape == (256, report.LABEL + report.SHOWN * 128, 3)
    assert np.array_equal(picture[128:, report.LABEL : report.LABEL + 128], clip[0])
    assert np.array_equal(picture[:128, -128:], clip[-1])
