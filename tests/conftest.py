"""Lets tests import the helpers that lie beside them."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

# The networks of these tests are tiny: threads cost them more than they bring, above all where cores are busy.
torch.set_num_threads(1)
