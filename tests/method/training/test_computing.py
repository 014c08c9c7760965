"""How gradients are computed: over batches, in half precision, in several processes."""

import os
import socket
import subprocess
import sys

import torch
from safetensors.torch import load_file
from small_training import ROOT, as_file

from motion_module.training.loop import Training


def gradients_of(training):
    return {name: weight.grad for name, weight in training.animated.learning.named_parameters()}


def assert_close(ones, others):
    """To a thousandth of each gradient's norm, and a millionth of that of all, since sums are rounded in another order."""
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


def test_checkpointing_gives_the_same_gradients(setting, world, tmp_path):
    motion = str(world / "motion.safetensors")
    plain = Training(setting(motion_module=motion, steps=1))
    plain.run()
    spared = Training(
        setting(motion_module=motion, steps=1, gradient_checkpointing=True, output=str(tmp_path / "b.safetensors"))
    )
    spared.run()
    ones, others = plain.animated.learning.state_dict(), spared.animated.learning.state_dict()
    assert all(torch.allclose(ones[name], others[name], atol=1e-6) for name in ones)


def test_half_precision_keeps_whole_masters(setting, world):
    motion = str(world / "motion.safetensors")
    training = Training(setting(motion_module=motion, steps=2, precision="bf16", validation={"prompts": ["a"], "steps": 1}))
    convolution = training.model.unet.input_blocks[0][0]
    assert convolution.weight.dtype == torch.bfloat16
    training.run()
    assert all(weight.dtype == torch.float32 for weight in training.animated.learning.parameters())
    assert all(tensor.isfinite().all() for tensor in training.animated.learning.state_dict().values())


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_two_processes_have_the_gradients_of_one_with_twice_the_batch(setting, world, tmp_path):
    motion = str(world / "motion.safetensors")
    training = Training(setting(motion_module=motion, batch=4, output=str(tmp_path / "one.safetensors")))
    with training.animated.attached():
        training.gradients()
    config = as_file(setting(motion_module=motion, batch=2), tmp_path / "two.yaml")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(free_port())]
    command = [*launch, str(ROOT / "tests" / "save_gradients.py"), str(config), str(tmp_path / "two")]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    for rank in (0, 1):
        assert_close(gradients_of(training), load_file(tmp_path / f"two-{rank}.safetensors"))
