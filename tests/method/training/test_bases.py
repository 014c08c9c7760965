"""Checkpoints that a training starts from: in every form that the WebUI reads, and refused where it cannot be right."""

import json

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from motion_module.__main__ import main
from motion_module.noise_schedule import ANIMATEDIFF
from motion_module.patching import patched
from motion_module.training import image_model
from motion_module.training.config import ConfigError
from motion_module.training.image_model import load_image_model
from motion_module.training.loop import Training
from motion_module.training.sampling import noise_of
from motion_module.training.validation import validation_clips
from motion_module.weight_files import CheckpointError
from support.small_training import as_file, predicted

TEXT, UNET = "cond_stage_model.transformer.text_model.", "model.diffusion_model."


@pytest.fixture
def base(world, tmp_path):
    """Writes a checkpoint with other weights than those of the world, and with its description beside it."""

    def write(weights, name="other.safetensors", describe=True, **facts):
        path = tmp_path / name
        if path.suffix == ".safetensors":
            save_file(weights, path)
        else:
            torch.save(weights, path)
        if describe:
            content = yaml.safe_load((world / "base.yaml").read_text())
            content["model"]["params"].update(facts)
            path.with_suffix(".yaml").write_text(yaml.safe_dump(content))
        return path

    return write


@pytest.fixture
def weights(world):
    return load_file(world / "base.safetensors")


def without_text_model(weights):
    """As later versions of transformers name them."""
    return {key.replace(TEXT, "cond_stage_model.transformer."): value for key, value in weights.items()}


def official(weights):
    """As Lightning writes them."""
    score = {"best_model_score": np.float32(0.5), "monitor": "val/loss"}
    other = {"cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None], "step": 5}
    return {"callbacks": {"ModelCheckpoint": score}, "epoch": 3, "state_dict": {**weights, **other, "state_dict": {}}}


@pytest.mark.parametrize(
    ("form", "name"),
    [
        (without_text_model, "other.safetensors"),
        (official, "official.ckpt"),
        (lambda weights: official(without_text_model(weights)), "both.ckpt"),
        (lambda weights: weights, "safetensors.ckpt"),
    ],
)
def test_a_training_is_the_same_to_the_bit_on_every_form(world, weights, base, setting, tmp_path, form, name):
    path = tmp_path / name
    base(form(weights), name)
    if name == "safetensors.ckpt":
        save_file(weights, path)
    for output, chosen in (("one.safetensors", world / "base.safetensors"), ("two.safetensors", path)):
        assert Training(setting(steps=1, base=str(chosen), output=str(tmp_path / output))).run()
    one, two = (load_file(tmp_path / output) for output in ("one.safetensors", "two.safetensors"))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (lambda key: key.startswith(UNET), "it has no autoencoder and no text encoder"),
        (lambda key: not key.startswith("cond_stage_model"), "it has no text encoder"),
        (
            lambda key: not key.endswith("out.2.bias"),
            r"it lacks weights \(1\), or has them in another shape \(0\), such as model.diffusion_",
        ),
    ],
)
def test_a_part_of_a_checkpoint_is_named(weights, base, kept, said):
    path = base({key: value for key, value in weights.items() if kept(key)})
    with pytest.raises(CheckpointError, match=f"other.safetensors is not a complete Stable Diffusion 1 checkpoint: {said}"):
        load_image_model(path)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            ["down_blocks.0.resnets.0.norm1.weight"],
            "is an image UNet without motion layers, not a Stable Diffusion 1 checkpoint",
        ),
        (["conditioner.embedders.1.model.ln_final.weight"], "is SDXL, but the base of a training is Stable Diffusion 1"),
        (["cond_stage_model.model.ln_final.weight"], "is Stable Diffusion 2, but the base"),
    ],
)
def test_another_model_is_named(base, keys, said):
    with pytest.raises(CheckpointError, match=f"other.safetensors {said}"):
        load_image_model(base({key: torch.zeros(4) for key in keys}, describe=False))


@pytest.mark.parametrize(
    ("value", "said"), [(float("nan"), "contains values that are not numbers"), (None, "has whole numbers")]
)
def test_a_base_without_numbers_is_named(weights, base, value, said):
    key = f"{UNET}out.2.weight"
    weights[key] = torch.zeros_like(weights[key], dtype=torch.int8) if value is None else weights[key].fill_(value)
    with pytest.raises(CheckpointError, match=f"other.safetensors cannot be used: {key} {said}"):
        load_image_model(base(weights))


# --- what the base predicts ---


@pytest.mark.parametrize("told_by", ["yaml", "key"])
def test_a_base_that_predicts_v_is_trained_to_predict_v(weights, base, setting, told_by):
    facts = {"parameterization": "v"} if told_by == "yaml" else {}
    path = base(weights if facts else {**weights, "v_pred": torch.zeros(0)}, **facts)
    training = Training(setting(base=str(path), caption_dropout=0))
    batch = training.batch(0)
    alphas = training.alphas[batch.times].view(-1, 1, 1, 1, 1)
    velocity = alphas.sqrt() * batch.noise - (1 - alphas).sqrt() * batch.latents
    training.predict = lambda noised, times, context, pictures: velocity
    assert training.losses(batch).tolist() == [0.0, 0.0]
    training.predict = lambda noised, times, context, pictures: batch.noise
    assert min(training.losses(batch).tolist()) > 0


def test_noise_follows_from_v():
    draw = torch.Generator().manual_seed(1)
    clean, noise = torch.randn(2, 3, 4, 8, 8, generator=draw).double()
    times = torch.tensor([1, 500, 999])
    alphas = ANIMATEDIFF.alphas_cumprod().double()[times].view(-1, 1, 1, 1)
    noised = alphas.sqrt() * clean + (1 - alphas).sqrt() * noise
    velocity = alphas.sqrt() * noise - (1 - alphas).sqrt() * clean
    assert torch.allclose(noise_of(lambda _latents, _times: velocity, ANIMATEDIFF)(noised, times), noise, atol=1e-6)


def test_validation_clips_of_a_base_that_predicts_v_are_those_of_its_noise(weights, base, setting):
    options = {"prompts": ["stripes"], "every": 1, "steps": 2, "cfg": 2.0}
    training = Training(setting(base=str(base(weights, parameterization="v")), validation=options))
    arguments = (training.animated, training.examples, training.model, training.embeddings, training.config)
    ((_, as_v),) = validation_clips(*arguments)
    training.model.predicts = "eps"
    ((_, as_noise),) = validation_clips(*arguments)
    assert (as_v != as_noise).mean() > 0.5
    forward = training.model.unet.forward

    def noise(x, timesteps, context):
        return noise_of(lambda latents, times: forward(latents, times, context=context), training.config.noise_schedule)(
            x, timesteps
        )

    with patched(training.model.unet, "forward", noise):
        ((_, as_its_noise),) = validation_clips(*arguments)
    assert np.abs(as_v.astype(int) - as_its_noise).max() <= 1


def test_what_the_base_predicts_is_part_of_a_training(weights, base, setting):
    Training(setting(steps=1, base=str(base(weights)))).run()
    with pytest.raises(ConfigError, match="the prediction of the base is a different one"):
        Training(setting(steps=2, base=str(base(weights, parameterization="v"))))


def test_a_base_that_predicts_something_else_is_refused(weights, base):
    with pytest.raises(CheckpointError, match=r"The checkpoint predicts x0, as the \.yaml beside it says"):
        load_image_model(base(weights, parameterization="x0"))


# --- the file beside it ---


@pytest.mark.parametrize("beside", ["train: motion module\nbase: base.safetensors\n", "", "- a list", "model: v3_sd15_mm.ckpt"])
def test_another_file_of_the_same_name_is_no_description(monkeypatch, world, weights, base, beside):
    path = base(weights, describe=False)
    path.with_suffix(".yaml").write_text(beside)
    published = yaml.safe_load((world / "base.yaml").read_text())["model"]["params"]
    monkeypatch.setattr(image_model, "STABLE_DIFFUSION_1", published)
    assert torch.equal(predicted(load_image_model(path), 2), predicted(load_image_model(world / "base.safetensors"), 2))


@pytest.mark.parametrize("beside", ["model: {params: {}}", "model: {}", "a: [", "[" * 5000, "model: {params: 5}"])
def test_a_wrong_description_is_named(weights, base, beside):
    path = base(weights, describe=False)
    path.with_suffix(".yaml").write_text(beside)
    with pytest.raises(CheckpointError, match=r"other\.yaml does not describe a Stable Diffusion 1 model\. Move it"):
        load_image_model(path)


@pytest.mark.parametrize("beside", [None, "train: motion module"])
def test_only_a_description_is_blamed_for_a_model_that_cannot_be_built(monkeypatch, weights, base, beside):
    path = base(weights, describe=False)
    if beside:
        path.with_suffix(".yaml").write_text(beside)
    monkeypatch.setattr(image_model, "ImageModel", lambda _: {}["a class that changed"])
    with pytest.raises(KeyError, match="a class that changed"):
        load_image_model(path)


# --- what a refused training leaves ---


@pytest.mark.parametrize(("option", "name"), [("base", "none"), ("data", "none"), ("data", "empty"), ("data", "unreadable")])
def test_a_refused_training_leaves_no_folder(setting, tmp_path, capsys, option, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "unreadable").mkdir()
    (tmp_path / "unreadable" / "a.mp4").write_bytes(b"no video")
    (tmp_path / "unreadable" / "a.txt").write_text("a caption")
    config = setting(**{option: str(tmp_path / name)})
    assert main(["train", str(as_file(config, tmp_path / "c.yaml"))]) == 1
    assert name in capsys.readouterr().err or name == "unreadable"
    assert not config.folder.exists()


def test_a_folder_that_was_there_before_is_kept(setting, tmp_path):
    config = setting(base=str(tmp_path / "none"))
    (config.folder / "mine").mkdir(parents=True)
    assert main(["train", str(as_file(config, tmp_path / "c.yaml"))]) == 1
    assert (config.folder / "mine").is_dir()
    assert json.loads((config.folder / "status.json").read_text())["doing"] == "Ended with an error"


def test_what_an_earlier_training_saved_is_kept(setting, tmp_path):
    config = setting(steps=1)
    Training(config).run()
    before = {file.name for file in config.folder.iterdir()}
    assert main(["train", str(as_file(setting(data=str(tmp_path / "nowhere")), tmp_path / "c.yaml"))]) == 1
    assert {file.name for file in config.folder.iterdir()} == before | {"lock", "pid", "status.json"}
