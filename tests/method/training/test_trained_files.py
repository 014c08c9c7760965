"""The files and validation clips of trainings."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from motion_module.attach import attached, blocks_by_name
from motion_module.checkpoint import describe, load
from motion_module.convert import convert_file
from motion_module.families import V3
from motion_module.lora import load_lora
from motion_module.motion_layers import Motion
from motion_module.row_layout import RowLayout
from motion_module.training.config import ConfigError
from motion_module.training.image_model import load_image_model
from motion_module.training.loop import Training
from motion_module.weight_patches import added_to_unet, merged
from support.small_training import FRAMES, losses, predicted


def test_a_trained_motion_module_is_one_of_v3_in_the_authors_layout(setting, tmp_path):
    training = Training(setting(steps=3, licence="CC0", stride=1, seed=7))
    training.run()
    description = describe(tmp_path / "out.safetensors")
    assert (description.family.key, description.layout, description.length) == ("v3", "original", 32)
    _, module = load(tmp_path / "out.safetensors")
    mean = training.averaged.module.state_dict()
    assert all(torch.equal(tensor, mean[name].half()) for name, tensor in module.state_dict().items())
    with safe_open(tmp_path / "out.safetensors", framework="pt") as file:
        facts = json.loads(file.metadata()["animatediff_training"])
    assert (facts["trained"], facts["steps"], facts["data"], facts["licence"]) == ("motion module", 3, "clips", "CC0")
    assert facts["base"]["name"] == "base.safetensors" and facts["seed"] == 7
    assert facts["noise_schedule"] == {"straight_in": "betas", "first": 0.00085, "last": 0.012, "steps": 1000}


def test_a_file_has_the_schedule_that_it_was_trained_with(setting, tmp_path):
    Training(setting(steps=1, noise_schedule={"straight_in": "sqrt_betas", "last": 0.02})).run()
    family = describe(tmp_path / "out.safetensors").family
    assert (family.schedule.straight_in, family.schedule.last, family.frames) == ("sqrt_betas", 0.02, FRAMES)
    converted = convert_file(tmp_path / "out.safetensors", tmp_path / "adapter", "diffusers")
    assert describe(converted).family == family


def test_a_training_that_starts_from_a_module_has_its_schedule(setting, tmp_path):
    module = str(tmp_path / "module.safetensors")
    Training(setting(steps=1, noise_schedule={"straight_in": "sqrt_betas", "last": 0.02}, output=module)).run()
    for train in ("motion lora", "motion module"):
        schedule = setting(train, motion_module=module).noise_schedule
        assert (schedule.straight_in, schedule.last) == ("sqrt_betas", 0.02)
    other = {"straight_in": "betas"}
    assert setting("motion module", motion_module=module, noise_schedule=other).noise_schedule.straight_in == "betas"
    with pytest.raises(
        ConfigError, match=r"module\.safetensors was trained with another one, and a motion LoRA for it needs the same"
    ):
        setting("motion lora", motion_module=module, noise_schedule=other)


def test_tensorboard_gets_curves_and_clips(setting):
    reader = "tensorboard.backend.event_processing.event_accumulator"
    accumulator = pytest.importorskip(reader, reason="the WebUI's own environment has no TensorBoard")
    for steps in (3, 4):
        training = Training(setting(steps=steps, validation={"prompts": ["stripes"], "every": 3, "steps": 1}))
        training.run()
    board = accumulator.EventAccumulator(str(training.config.folder / "tensorboard")).Reload()
    assert [entry.step for entry in board.Scalars("loss")] == [1, 2, 3, 4]
    assert [entry.value for entry in board.Scalars("loss")] == pytest.approx(losses(training.config))
    assert [entry.step for entry in board.Images("stripes")] == [3, 4]


GOOD = {"noise_schedule": {"straight_in": "sqrt_betas", "first": 0.0008, "last": 0.01, "steps": 1000}, "frames": 4}


@pytest.mark.parametrize(
    ("said", "believed"),
    [
        ({}, True),
        ({"steps": 10**12}, False),
        ({"first": 0.5, "last": 0.1}, False),
        ({"straight_in": "lines"}, False),
        ({"frames": 33}, False),
        ({"frames": float("inf")}, False),
        ({"noise_schedule": 7}, False),
    ],
)
def test_a_header_with_wrong_facts_is_ignored(setting, tmp_path, said, believed):
    Training(setting(steps=1)).run()
    facts = {**GOOD, **{name: value for name, value in said.items() if name in GOOD}}
    if isinstance(facts["noise_schedule"], dict):
        facts["noise_schedule"] = {**facts["noise_schedule"], **{n: v for n, v in said.items() if n in facts["noise_schedule"]}}
    facts = json.dumps(facts)
    save_file(load_file(tmp_path / "out.safetensors"), tmp_path / "nonsense.safetensors", {"animatediff_training": facts})
    assert (describe(tmp_path / "nonsense.safetensors").family != V3) == believed


def test_a_trained_motion_lora_acts_the_same_in_training_and_generation(setting, world, tmp_path):
    training = Training(setting("motion lora", steps=3, learning_rate=0.05, ema=0))
    training.run()
    with training.animated.attached():
        trained = predicted(training.model, FRAMES)
    model = load_image_model(world / "base.safetensors")
    description, module = load(world / "motion.safetensors")
    lora = load_lora(tmp_path / "out.safetensors")
    layout_of = lambda rows: RowLayout(FRAMES, rows)  # noqa: E731
    with attached(model.unet, Motion(module.float()), description.family, layout_of):
        without = predicted(model, FRAMES)
        with merged(module, [(lora, 1.0)]):
            assert torch.allclose(predicted(model, FRAMES), trained, atol=2e-3)
    assert (without - trained).abs().max() > 0.02


def test_a_trained_adapter_acts_the_same_in_training_and_generation(setting, world, tmp_path):
    training = Training(setting("domain adapter", steps=3, learning_rate=0.05, ema=0))
    training.run()
    with training.animated.attached():
        trained = predicted(training.model, 2)
    model = load_image_model(world / "base.safetensors")
    without = predicted(model, 2)
    with added_to_unet(blocks_by_name(model.unet), [(load_lora(tmp_path / "out.safetensors"), 1.0)]):
        assert torch.allclose(predicted(model, 2), trained, atol=2e-3)
    assert (without - trained).abs().max() > 0.02


def test_a_motion_module_is_trained_with_an_adapter(setting, tmp_path):
    Training(setting("domain adapter", steps=2, learning_rate=0.05, ema=0, output=str(tmp_path / "a.safetensors"))).run()
    plain = Training(setting(output=str(tmp_path / "plain.safetensors")))
    adapted = Training(setting(domain_adapter=str(tmp_path / "a.safetensors")))
    with plain.animated.attached(), adapted.animated.attached():
        one, other = plain.loss(plain.batch(0)), adapted.loss(adapted.batch(0))
    assert abs(one - other) > 1e-4


def test_validation_clips_are_made_with_the_averaged_weights(setting):
    config = setting(steps=4, ema=0.5, validation={"prompts": ["stripes"], "every": 2, "steps": 2})
    training = Training(config)
    training.run()
    gifs = sorted((config.folder / "validation").iterdir())
    assert [gif.name for gif in gifs] == ["step-000002-001.gif", "step-000004-001.gif"]
    from PIL import Image

    with Image.open(gifs[1]) as gif:
        assert (gif.n_frames, gif.size) == (FRAMES, (64, 64))
    mean, last = training.averaged.module.state_dict(), training.animated.learning.state_dict()
    assert not all(torch.equal(mean[name], last[name]) for name in last)  # the weights were restored afterwards
