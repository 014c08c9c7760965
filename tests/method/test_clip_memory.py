"""What grows with a clip's length, counted on tensors without contents."""

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
SHARED, WAITING = "motion attention", "motion attention, waiting in RAM"
COUNTED = [
    (64, 256, WAITING),
    (128, 256, WAITING),
    (64, 256, SHARED),
    (32, 256, "whole UNet"),
    (16, 256, "no windows"),
    (32, 512, WAITING),
]


@pytest.fixture(scope="module")
def most_alive():
    """GiB on the card and in RAM. Counted in a process of its own: a device stays in the one in which it was made."""
    count = f"import json, clip_memory; print(json.dumps([clip_memory.most_alive(*asked) for asked in {COUNTED}]))"
    folders = [str(ROOT / folder) for folder in ("benchmarks", "tests", ".")]
    search = {**os.environ, "PYTHONPATH": os.pathsep.join([*folders, *sys.path])}
    found = subprocess.run([sys.executable, "-c", count], env=search, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    return dict(zip(COUNTED, json.loads(found.stdout.splitlines()[-1])))


def test_frames_that_wait_in_ram_leave_the_card_to_those_that_do_not(most_alive):
    (few, few_waiting), (many, many_waiting) = (most_alive[frames, 256, WAITING] for frames in (64, 128))
    assert many <= 1.1 * few, "twice the frames"
    assert few_waiting > 0.5 and many_waiting == pytest.approx(2 * few_waiting, rel=0.01)
    assert most_alive[64, 256, SHARED][0] > few + few_waiting / 2, "else they lie on the card"


def test_windows_over_whole_frames_take_what_one_takes(most_alive):
    assert most_alive[32, 256, "whole UNet"][0] < 1.1 * most_alive[16, 256, "no windows"][0]


def test_a_pass_takes_no_more_where_layers_are_wide(most_alive):
    """32 frames of 512×512 have a quarter of the positions at the level of 640 channels, and would be done in one pass."""
    assert most_alive[32, 512, WAITING][0] < 1.7
