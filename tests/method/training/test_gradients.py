"""Gradients over several batches, in half precision, and in several processes."""

import torch
from safetensors.torch import load_file

from motion_module.training.image_model import load_image_model
from motion_module.training.latent_cache import CAPTIONS_AT_ONCE, Embeddings
from motion_module.training.loop import Training
from support.small_training import ROOT, as_file, launched, write_base


def gradients_of(training):
    return {name: weight.grad for name, weight in training.animated.learning.named_parameters()}


def assert_close(ones, others):
    """Compares gradients; the tolerance allows for rounding in another order of additions."""
    total = torch.stack([one.norm() for one in ones.values()]).norm()
    for name, one in ones.items():
        assert (one - others[name]).norm() <= 1e-3 * one.norm() + 1e-6 * total, name


def test_gradients_add_up_over_batches(setting, world, tmp_path):
    options = {"motion_module": str(world / "motion.safetensors"), "caption_dropout": 0.0}
    at_once = Training(setting(batch=4, output=str(tmp_path / "1.safetensors"), **options))
    with at_once.animated.attached():
        at_once.gradients()
    whole = at_once.batch(0)
    halves = iter([type(whole)(*(part[first : first + 2] for part in vars(whole).values())) for first in (0, 2)])
    added = Training(setting(batch=2, accumulate=2, output=str(tmp_path / "2.safetensors"), **options))
    added.batch = lambda _: next(halves)
    with added.animated.attached():
        added.gradients()
    assert_close(gradients_of(at_once), gradients_of(added))


def test_checkpointing_computes_twice_and_gives_the_same_gradients(setting, world, tmp_path):
    motion = str(world / "motion.safetensors")
    plain = Training(setting(motion_module=motion, steps=1))
    spared = Training(
        setting(motion_module=motion, steps=1, gradient_checkpointing=True, output=str(tmp_path / "b.safetensors"))
    )
    for training, times in ((plain, 1), (spared, 2)):
        calls = []
        training.model.unet.middle_block[0].register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        training.run()
        assert len(calls) == times
    ones, others = plain.animated.learning.state_dict(), spared.animated.learning.state_dict()
    assert all(torch.allclose(ones[name], others[name], atol=1e-6) for name in ones)


def test_trained_weights_stay_in_float32_with_half_precision(setting, world):
    motion = str(world / "motion.safetensors")
    training = Training(setting(motion_module=motion, steps=2, precision="bf16", validation={"prompts": ["a"], "steps": 1}))
    convolution = training.model.unet.input_blocks[0][0]
    assert convolution.weight.dtype == torch.bfloat16
    training.run()
    assert all(weight.dtype == torch.float32 for weight in training.animated.learning.parameters())
    assert all(tensor.isfinite().all() for tensor in training.animated.learning.state_dict().values())


def test_two_processes_have_the_gradients_of_one_with_twice_the_batch(setting, world, tmp_path):
    motion = str(world / "motion.safetensors")
    training = Training(setting(motion_module=motion, batch=4, output=str(tmp_path / "one.safetensors")))
    with training.animated.attached():
        training.gradients()
    config = as_file(setting(motion_module=motion, batch=2), tmp_path / "two.yaml")
    done = launched(2, [str(ROOT / "tests" / "support" / "save_gradients.py"), str(config), str(tmp_path / "two")])
    assert done.returncode == 0, done.stderr
    for rank in (0, 1):
        assert_close(gradients_of(training), load_file(tmp_path / f"two-{rank}.safetensors"))


def test_captions_are_encoded_together_and_once(tmp_path):
    model, seen = load_image_model(write_base(tmp_path / "base.safetensors")), []
    model.text_encoder.register_forward_pre_hook(lambda _, texts: seen.append(len(texts[0])))
    captions = [f"{number} stripes" for number in range(CAPTIONS_AT_ONCE + 3)]
    embeddings = Embeddings(tmp_path / "cache", model)
    embeddings.add(captions[:2])
    embeddings.add(captions)
    assert seen == [2, CAPTIONS_AT_ONCE, 1]
    one_by_one = torch.stack([model.text_encoder([caption])[0] for caption in captions])
    assert torch.allclose(embeddings.of(captions), one_by_one, atol=2e-3, rtol=0)
