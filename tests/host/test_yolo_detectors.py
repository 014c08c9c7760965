"""YOLO detectors: built from files of which no code runs, and what they find. A stand-in has the place of `ultralytics`."""

import copy
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
    """Finds a square of some cells around every cell; it is as sure as the cell is bright."""

    cells = 3

    def __init__(self, nc):
        super().__init__()
        self.nc = nc
        self.gain = nn.Parameter(torch.ones(1))
        self.register_buffer("calls", torch.zeros(1, dtype=torch.long))

    def forward(self, rows):
        bright = nn.functional.avg_pool2d(rows.mean(1, keepdim=True), CELL)[0, 0] * self.gain
        y, x = (CELL * (part.float() + 0.5) for part in torch.meshgrid(*map(torch.arange, bright.shape), indexing="ij"))
        side = torch.full_like(x, self.cells * CELL)
        return (torch.stack([x, y, side, side, 0 * bright, bright]).flatten(1)[None],), "whatever else there is"


class DetectionModel(nn.Module):
    def __init__(self, cfg, verbose=True):
        super().__init__()
        self.yaml = cfg
        self.model, _ = parse_model(cfg, 3, verbose)
        self.stride = torch.tensor([CELL])

    def forward(self, rows):
        return self.model[1](rows)


class PoseModel(DetectionModel):
    pass


def parse_model(description, ch, verbose):
    """Uses up what it is given, as that of `ultralytics` does."""
    description["backbone"].clear()
    return nn.Sequential(nn.Conv2d(ch, 3, 1), Detect(description["nc"])), []


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
    tasks.parse_model = parse_model
    for kind in (Detect, DetectionModel, PoseModel):
        monkeypatch.setattr(kind, "__module__", tasks.__name__)
        setattr(tasks, kind.__name__, kind)
    package, inner = types.ModuleType("ultralytics"), types.ModuleType("ultralytics.nn")
    package.nn, inner.tasks = inner, tasks
    for module in (package, inner, tasks):
        monkeypatch.setitem(sys.modules, module.__name__, module)

    def save(kind=DetectionModel, gain=1.0, beside=None, **changes):
        model = kind(copy.deepcopy(DESCRIPTION))
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


def test_a_box_in_what_fills_the_frame_up_is_none(saved, monkeypatch):
    monkeypatch.setattr(Detect, "cells", 0.5)
    black = np.zeros((100, 320, 3), np.uint8)  # at the size for detectors it ends 24 grey rows above the frame's end
    assert find(saved(), black, 0.3) == []


def test_boxes_below_the_confidence_are_left_out(saved, frame):
    assert len(find(saved(), frame // 2, 0.6)) == 0 and len(find(saved(), frame // 2, 0.4)) == 1


def test_no_code_of_the_file_runs(saved, frame, tmp_path):
    file = saved(beside=Runs(tmp_path / "was run"))
    assert len(find(file, frame)) == 1
    assert not (tmp_path / "was run").exists()
    torch.load(file, weights_only=False)
    assert (tmp_path / "was run").exists(), "the same file does run code elsewhere"


def conv(arguments=(3, 1), name="Conv", repeats=1):
    return {"backbone": [[-1, repeats, name, list(arguments)]]}


def shared(depth):
    """Returns a tuple in which a hundred tuples are the same one, and so on: hashing it takes exponential time."""
    inner = ("x",)
    for _ in range(depth):
        inner = (inner,) * 100
    return inner


@pytest.mark.parametrize(
    "changes",
    [
        conv([10**9]),
        conv([str(10**9)]),
        conv(["x" * 60]),
        conv(repeats=10**6),
        conv(name=shared(30)),
        conv([shared(30)]),
        conv([3], "nn.Upsample") | {"head": LAYERS[1], "depth_multiple": 0},
        conv([None, 32, "nearest"], "nn.Upsample"),
        {"backbone": [[None, 1, "nn.Upsample", [None, 2]]] * 7},
        {"backbone": [[-1, 1, "Conv"]]},
        {"backbone": LAYERS[0] * 101},
        {"backbone": None},
        {"depth_multiple": 4096},
        {"scales": {"n": [0.3, 4096, 1024]}},
        {"nc": float("nan")},
    ],
)
def test_an_impossible_description_is_refused_at_once(saved, changes):
    with pytest.raises(CheckpointError, match=r"face\.pt is damaged: its model"):
        yolo_model(saved(**changes))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"activation": "__import__('os').system('exit')"}, "activation"),
        ({"end2end": True}, "end2end"),
        (conv(name="attempt_load_weights"), "attempt_load_weights"),
        ({"head": [[-1, 1, "Pose", [1]]]}, "Pose"),
        ({"head": [[-1, 1, "Detect", [1]], [-1, 1, "Conv", [3]]]}, "Detect"),
    ],
)
def test_what_is_not_built_is_refused_by_name(saved, changes, named):
    with pytest.raises(CheckpointError, match=f"is a detector with “{named}”, which is not supported"):
        yolo_model(saved(**changes))


def test_a_model_that_has_itself_as_a_part_is_refused_at_once(saved):
    file = saved()
    content = torch.load(file, weights_only=False)
    content["model"]._modules["A" * 50] = content["model"]
    torch.save(content, file)
    with pytest.raises(CheckpointError, match="more layers than any detector"):
        yolo_model(file)


def test_a_description_of_another_model_is_refused(saved, monkeypatch):
    file = saved()
    other = nn.Sequential(nn.Conv2d(3, 4, 1), Detect(2))
    monkeypatch.setattr(sys.modules["ultralytics.nn.tasks"], "parse_model", lambda *args, **options: (other, []))
    with pytest.raises(CheckpointError, match="cannot build"):
        yolo_model(file)


def test_what_it_describes_besides_is_not_passed_on(saved):
    assert "strange" not in yolo_model(saved(strange=1)).yaml


def test_other_models_are_refused_by_name(saved):
    with pytest.raises(CheckpointError, match=r"has a ultralytics\.nn\.tasks\.PoseModel"):
        yolo_model(saved(PoseModel))


def test_a_model_of_other_layers_is_refused(saved, monkeypatch):
    file = saved()
    monkeypatch.setattr(DetectionModel, "load_state_dict", lambda self, weights: {}["none"])
    with pytest.raises(CheckpointError, match="cannot build"):
        yolo_model(file)


@pytest.mark.parametrize("data, words", [(b"<html>", "web page"), (b"", "empty"), (b"\x08" * 99, "unknown format")])
def test_other_files_are_refused(tmp_path, saved, data, words):
    file = tmp_path / "other.pt"
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
