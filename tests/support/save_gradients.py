"""Saves the gradients of each process after the passes of one step. Run by `accelerate launch`."""

import sys
from pathlib import Path

from safetensors.torch import save_file

from motion_module.training.config import read_config
from motion_module.training.loop import Training

training = Training(read_config(Path(sys.argv[1])))
with training.animated.attached():
    training.gradients()
gradients = {name: weight.grad.contiguous() for name, weight in training.animated.learning.named_parameters()}
save_file(gradients, f"{sys.argv[2]}-{training.accelerator.process_index}.safetensors")
