"""Each part of the method on a device besides the CPU: it is all there, gives the same numbers, and is copied only once.

The device computes on the CPU and refuses to be mixed with it; see `support/on_a_card.py`.
"""

import json
import os
import subprocess
import sys
from math import prod
from pathlib import Path

import pytest
import torch

if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 9):
    pytest.skip("tensors of a second device need torch 2.9", allow_module_level=True)

from support.card_cases import CASES

ROOT = Path(__file__).resolve().parents[2]
IN_RAM = {"frames in ram", "frames in ram on demand", "light steps with features in ram", "blocks that come and go"}
"""What copies features, or weights, in every call: that is its purpose."""
FEW = 64
"""Numbers: timesteps, and the rows of a window."""


@pytest.fixture(scope="module")
def measured():
    """From a process of its own, since the second device cannot be removed again."""
    search = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests"), *sys.path])}
    found = subprocess.run([sys.executable, "-m", "support.card_cases"], env=search, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", CASES)
def test_it_is_all_on_the_device_and_the_same(measured, case):
    found = measured[case]
    assert found["devices"] == ["card"]
    assert found["difference"] < 1e-4 and found["largest"] > 1


@pytest.mark.parametrize("case", [case for case in CASES if case not in IN_RAM])
def test_later_calls_copy_nothing_but_a_few_numbers(measured, case):
    copies = measured[case]["copies"]
    assert len(copies) <= 20 and all(device == "card" and prod(shape) <= FEW for device, shape in copies), copies


def test_frames_in_ram_come_in_parts(measured):
    for case in ("frames in ram", "frames in ram on demand"):
        features = [(device, shape) for device, shape in measured[case]["copies"] if len(shape) == 4 and shape[1] >= 32]
        assert {device for device, _ in features} == {"card", "cpu"}
        assert max(rows for _, (rows, *_) in features) <= 3 or case == "frames in ram"
