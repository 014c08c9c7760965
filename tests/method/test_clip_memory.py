"""How memory grows with the length of a clip, computed with fake tensors."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 9), reason="tensors of a second device need torch 2.9"
)
ROOT = Path(__file__).resolve().parents[2]
SHARED, OFFLOADED = "motion attention", "motion attention, offloaded"
COUNTED = [
    (64, 256, OFFLOADED),
    (128, 256, OFFLOADED),
    (64, 256, SHARED),
    (32, 256, "whole UNet"),
    (16, 256, "no windows"),
    (64, 512, OFFLOADED),
]


@pytest.fixture(scope="module")
def most_alive():
    """Peak GiB on the GPU and in RAM, from a separate process, since the second device cannot be removed again."""
    count = f"import json, clip_memory; print(json.dumps([clip_memory.most_alive(*asked) for asked in {COUNTED}]))"
    folders = [str(ROOT / folder) for folder in ("benchmarks", "tests", ".")]
    search = {**os.environ, "PYTHONPATH": os.pathsep.join([*folders, *sys.path])}
    found = subprocess.run([sys.executable, "-c", count], env=search, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    return dict(zip(COUNTED, json.loads(found.stdout.splitlines()[-1])))


def test_offloaded_frames_need_ram_instead_of_gpu_memory(most_alive):
    (few, few_in_ram), (many, many_in_ram) = (most_alive[frames, 256, OFFLOADED] for frames in (64, 128))
    assert many <= 1.1 * few, "twice the frames"
    assert few_in_ram > 0.5 and many_in_ram == pytest.approx(2 * few_in_ram, rel=0.01)
    assert most_alive[64, 256, SHARED][0] > few + few_in_ram / 2, "else they lie on the card"


def test_windows_over_the_whole_unet_need_the_memory_of_one_window(most_alive):
    assert most_alive[32, 256, "whole UNet"][0] < 1.1 * most_alive[16, 256, "no windows"][0]


def test_a_pass_of_layers_with_many_channels_needs_no_more_memory(most_alive):
    """64 frames of 512×512 have a quarter of the pixels at the level of 640 channels, and would fit into one pass by tokens."""
    assert most_alive[64, 512, OFFLOADED][0] < 1.7
