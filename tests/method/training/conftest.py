"""A random image model, clips, and options for a training."""

import pytest
from accelerate.state import AcceleratorState, GradientState

from motion_module.training.config import FOR_A_MODULE
from motion_module.training.loop import Training
from support.small_training import FRAMES, small, stripes, write_base, write_frames


@pytest.fixture(autouse=True)
def alone():
    """Resets accelerate, which keeps its settings for the life of a process."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A base, three clips, and a motion module with an effect."""
    folder = tmp_path_factory.mktemp("world")
    write_base(folder / "base.safetensors")
    for index in range(3):
        write_frames(folder / "clips" / f"{index}", stripes(FRAMES, seed=index, speed=3 + index), f"stripes, number {index}")
    Training(small(folder, output="motion.safetensors", steps=2, learning_rate=0.05, ema=0)).run()
    return folder


@pytest.fixture
def setting(world, tmp_path):
    """Returns options of a training in a new folder."""

    def make(train="motion module", **options):
        if train in FOR_A_MODULE:
            options.setdefault("motion_module", str(world / "motion.safetensors"))
        paths = {
            "base": str(world / "base.safetensors"),
            "data": str(world / "clips"),
            "output": str(tmp_path / "out.safetensors"),
        }
        return small(tmp_path, train=train, **{**paths, **options})

    return make
