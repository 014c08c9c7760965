"""The small world: what is kept from trainings, that it is the same each time, and that its judge can read."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from demo.world import judge, render
from demo.world.scenes import (
    COLOURS,
    HELD_OUT,
    LORA_MOTIONS,
    MOTIONS,
    SHAPES,
    SIZES,
    Scene,
    held_out_scenes,
    scenes,
    training_scenes,
)
from demo.world.stills import velocity_loss
from demo.world.training_loop import Recipe, learned
from motion_module.noise_schedule import STABLE_DIFFUSION


def drawn(count, seed, motions=MOTIONS):
    draw = np.random.default_rng(seed)
    every = scenes(motions)
    return [(every[draw.integers(len(every))], int(draw.integers(2**31))) for _ in range(count)]


def test_no_training_sees_a_pair_that_is_kept_out():
    shown = training_scenes(MOTIONS + LORA_MOTIONS)
    for one, a, other, b in HELD_OUT:
        assert not [scene for scene in shown if getattr(scene, one) == a and getattr(scene, other) == b]
        assert [scene for scene in shown if getattr(scene, one) == a]
        assert [scene for scene in shown if getattr(scene, other) == b]


def test_every_test_scene_shows_a_pair_that_is_kept_out_and_all_pairs_come():
    asked = held_out_scenes(48, seed=0)
    assert all(scene.held_out for scene in asked)
    for one, a, other, b in HELD_OUT:
        assert sum(getattr(scene, one) == a and getattr(scene, other) == b for scene in asked) >= 4
    assert held_out_scenes(48, seed=0) == asked != held_out_scenes(48, seed=1)


def test_captions_say_what_is_seen_and_no_caption_names_a_lesson():
    assert Scene("star", "red", "blue", "growing", "small").caption == "a small red star growing on a blue background"
    assert Scene("star", "red", "blue", "growing").caption == "a red star growing on a blue background"
    assert Scene("star", "red", "blue", LORA_MOTIONS[0]).caption == "a red star on a blue background"
    assert Scene("star", "red", "blue", "growing", "small").described(frozenset({"shape", "size"})) == (
        "a red shape growing on a blue background"
    )
    assert Scene("star", "red", "blue", "growing").described(frozenset({"colour", "background"})) == "a star growing"
    captions = {scene.caption for scene in scenes()}
    assert len(captions) == len(scenes()) == len(COLOURS) * (len(COLOURS) - 1) * len(SIZES) * (len(SHAPES) * len(MOTIONS) - 1)


def test_a_clip_is_the_same_each_time_and_another_for_another_seed():
    scene = Scene("triangle", "green", "white", "spinning")
    one = render.clip(scene, 5, "ink", watermark=True)
    assert one.shape == (16, 128, 128, 3)
    assert np.array_equal(one, render.clip(scene, 5, "ink", watermark=True))
    assert not np.array_equal(one, render.clip(scene, 6, "ink", watermark=True))
    still = render.still(scene, 5, "ink", watermark=True)
    assert any(np.array_equal(still, frame) for frame in one)


@pytest.mark.parametrize("style", render.STYLES)
def test_the_judge_reads_what_is_drawn(style):
    for index, (scene, seed) in enumerate(drawn(24, seed=1)):
        reading = judge.read(render.clip(scene, seed, style, watermark=index % 3 == 0))
        assert reading.agrees(scene) == {"shape": True, "colour": True, "background": True, "motion": True}, scene
        assert (reading.style, reading.watermark) == (style, index % 3 == 0), scene


def test_the_judge_knows_what_motion_loras_learn():
    for scene, seed in drawn(12, seed=4, motions=LORA_MOTIONS):
        assert judge.read(render.clip(scene, seed)).motion == scene.motion


def test_the_judge_sees_no_motion_in_frames_that_do_not_belong_together():
    """Each frame of another take of the scene, at another time: what an image model makes of one prompt."""
    found = []
    for scene, seed in drawn(40, seed=2):
        frames = [render.still(scene, seed + index) for index in range(render.FRAMES)]
        found.append(judge.read(np.stack(frames)).motion == scene.motion)
    assert np.mean(found) < 0.3


def test_the_judge_agrees_with_other_captions_by_chance_alone():
    clips = [(scene, judge.read(render.clip(scene, seed))) for scene, seed in drawn(60, seed=3)]
    agreed = [reading.agrees(other) for (_, reading), (other, _) in zip(clips, clips[1:] + clips[:1])]
    rates = {word: np.mean([each[word] for each in agreed]) for word in agreed[0]}
    assert rates["shape"] < 0.45
    assert max(rates["colour"], rates["background"]) < 0.35
    assert rates["motion"] < 0.3


def test_an_empty_picture_shows_nothing():
    reading = judge.read(np.full((4, 128, 128, 3), render.COLOURS["blue"], np.uint8))
    assert (reading.background, reading.shape, reading.colour, reading.motion) == ("blue", "none", "none", "none")


def test_a_training_that_was_cut_off_ends_as_if_it_had_not_been(tmp_path):
    def trained(state_file, *, cut_off_at=None):
        torch.manual_seed(0)
        module = torch.nn.Linear(3, 2)

        def loss_of(step):
            if step == cut_off_at:
                raise KeyboardInterrupt
            return (module(torch.randn(4, 3, generator=torch.Generator().manual_seed(step))) - 1).square().mean()

        rate = lambda step: 1e-2 * (1 - step / 500)  # noqa: E731
        return learned(module, loss_of, Recipe(450, rate, average=0.9, decay=0.1), state_file), module

    whole, last = trained(tmp_path / "whole.pt")
    assert not torch.equal(whole.weight, last.weight), "the mean of the weights is not the last of them"
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "parts.pt", cut_off_at=420)
    resumed, _ = trained(tmp_path / "parts.pt")
    assert torch.equal(resumed.weight, whole.weight) and torch.equal(resumed.bias, whole.bias)


def test_the_loss_of_stills_is_that_of_the_velocity_from_the_lowest_time_on():
    seen = {}

    def unet(noised, times, context):
        seen.update(noised=noised, times=times)
        return 0.5 * noised

    encoder = SimpleNamespace(transformer=lambda tokens: [tokens])
    latents = torch.randn(64, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    model = SimpleNamespace(unet=unet, text_encoder=encoder)
    loss = velocity_loss(model, latents, torch.zeros(64, 77), torch.Generator().manual_seed(1), lowest=900)
    left = STABLE_DIFFUSION.alphas_cumprod()[seen["times"]].view(-1, 1, 1, 1)
    noise = (seen["noised"] - left**0.5 * latents) / (1 - left) ** 0.5
    found = 0.5 * seen["noised"]
    clean = (seen["noised"] - (1 - left) ** 0.5 * found) / left**0.5
    velocities = [left**0.5 * e - (1 - left) ** 0.5 * x for e, x in ((found, clean), (noise, latents))]
    assert torch.isclose(loss, (velocities[0] - velocities[1]).square().mean(), rtol=1e-3)
    assert seen["times"].min() >= 900 and seen["times"].max() <= 999
    assert seen["times"].float().mean() > 960, "most of them near the noise"
