"""YOLO detectors: built from files of which no code runs, and what they find. A stand-in has the place of `ultralytics`."""

import os
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from animatediff.detailer.boxes import Box
from animatediff.detailer.yolo import yolo_detector
from animatediff.detailer.yolo_file import yolo_model
from motion_module.errors import MissingDependency
from motion_module.weight_files import CheckpointError

CELL = 32
LAYERS = [[-1, 1, "Conv", [3, 1]]], [[-1, 1, "Detect", ["nc"]]]
DESCRIPTION = {"nc": 2, "backbone": LAYERS[0], "head": LAYERS[1], "ch": 3}


class Detect(nn.Module):
    """Finds a square of three cells around every cell; it is as sure as the cell is bright."""

    def __init__(self, nc):
        super().__init__()
        self.nc = nc
        self.gain = nn.Parameter(torch.ones(1))
        self.register_buffer("calls", torch.zeros(1, dtype=torch.long))

    def forward(self, rows):
        bright = nn.functional.avg_pool2d(rows.mean(1, keepdim=True), CELL)[0, 0] * self.gain
        y, x = (CELL * (part.float() + 0.5) for part in torch.meshgrid(*map(torch.arange, bright.shape), indexing="ij"))
        side = torch.full_like(x, 3 * CELL)
        return (torch.stack([x, y, side, side, 0 * bright, bright]).flatten(1)[None],), "whatever else there is"


class DetectionModel(nn.Module):
    def __init__(self, cfg, verbose=True):
        super().__init__()
        self.yaml = cfg
        self.model = nn.Sequential(nn.Conv2d(3, 3, 1), Detect(cfg["nc"]))

    def forward(self, rows):
        return self.model[1](rows)


class PoseModel(DetectionModel):
    pass


class Runs:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """Saves a model as `ultralytics` does. Keywords change its description."""
    tasks = types.ModuleType("ultralytics.nn.tasks")
    for kind in (Detect, DetectionModel, PoseModel):
        monkeypatch.setattr(kind, "__module__", tasks.__name__)
        setattr(tasks, kind.__name__, kind)
    package, inner = types.ModuleType("ultralytics"), types.ModuleType("ultralytics.nn")
    package.nn, inner.tasks = inner, tasks
    for module in (package, inner, tasks):
        monkeypatch.setitem(sys.modules, module.__name__, module)

    def save(kind=DetectionModel, gain=1.0, beside=None, **changes):
        model = kind({**DESCRIPTION, **changes}) if "nc" not in changes else kind(DESCRIPTION)
        model.yaml = {**DESCRIPTION, **changes}
        model.model[1].gain.data.fill_(gain)
        file = tmp_path / "face.pt"
        torch.save({"model": model.half(), "train_args": beside, "version": "8.3.0"}, file)
        return file

    return save


@pytest.fixture
def frame():
    """A bright cell around (232, 104), in a frame of 320×200 pixels, which has half the size that detectors are trained at."""
    frame = np.zeros((200, 320, 3), np.uint8)
    frame[96:112, 224:240] = 250
    return frame


def find(file, frame, confidence=0.5):
    return yolo_detector(file, confidence, torch.device("cpu"))(frame)


def test_a_subject_is_found_where_it_is_in_the_frame(saved, frame):
    (box,) = find(saved(), frame)
    assert box.overlap(Box(232 - 24, 104 - 24, 48, 48)) > 0.9


def test_weights_are_those_of_the_file(saved, frame):
    assert yolo_model(saved(gain=0.25)).model[1].gain.item() == 0.25
    assert find(saved(gain=0.25), frame) == []


def test_boxes_below_the_confidence_are_left_out(saved, frame):
    assert len(find(saved(), frame // 2, 0.6)) == 0 and len(find(saved(), frame // 2, 0.4)) == 1


def test_no_code_of_the_file_runs(saved, frame, tmp_path):
    file = saved(beside=Runs(tmp_path / "was run"))
    assert len(find(file, frame)) == 1
    assert not (tmp_path / "was run").exists()
    torch.load(file, weights_only=False)
    assert (tmp_path / "was run").exists(), "the same file does run code elsewhere"


@pytest.mark.parametrize(
    "changes",
    [
        {"activation": "__import__('os').system('exit')"},
        {"backbone": [[-1, 1, "attempt_load_weights", ["evil.pt"]]]},
        {"backbone": [[-1, 1, "Conv"]]},
        {"backbone": [[-1, 1, "Conv", [10**9, 1]]]},
        {"backbone": [[-1, 1, "Conv", ["x" * 60]]]},
        {"backbone": LAYERS[0] * 101},
        {"backbone": None},
        {"nc": float("nan")},
        {"head": [[-1, 1, "Detect", [[[[[[1]]]]]]]]},
    ],
)
def test_a_description_that_could_do_anything_else_is_refused(saved, changes):
    with pytest.raises(CheckpointError, match=r"face\.pt is damaged: its model"):
        yolo_model(saved(**changes))


def test_what_it_describes_besides_is_not_passed_on(saved):
    assert "strange" not in yolo_model(saved(strange=1)).yaml


def test_other_models_are_refused_by_name(saved):
    with pytest.raises(CheckpointError, match="a PoseModel of `ultralytics`"):
        yolo_model(saved(PoseModel))


def test_a_model_of_other_layers_is_refused(saved, monkeypatch):
    file = saved()
    monkeypatch.setattr(DetectionModel, "load_state_dict", lambda self, weights: {}["none"])
    with pytest.raises(CheckpointError, match="cannot build"):
        yolo_model(file)


@pytest.mark.parametrize("data, words", [(b"<html>", "web page"), (b"", "empty"), (None, "is missing")])
def test_other_files_are_refused(tmp_path, saved, data, words):
    file = tmp_path / "other.pt"
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(CheckpointError, match=words):
        yolo_model(file)


def test_weights_alone_are_no_detector(tmp_path, saved):
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match="no model of `ultralytics`"):
        yolo_model(tmp_path / "weights.pt")


def test_without_ultralytics_the_error_says_what_to_install(saved, monkeypatch):
    file = saved()
    monkeypatch.setitem(sys.modules, "ultralytics.nn", None)
    with pytest.raises(MissingDependency, match="pip install ultralytics"):
        yolo_model(file)
