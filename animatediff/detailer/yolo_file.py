"""Builds a YOLO detector from its `.pt` file without running any code of the file.

Such a file is a pickled model, and `ultralytics` would run the pickle. Here it is read as data: a description of the layers,
from which `ultralytics` builds the model anew, and their weights.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from motion_module.errors import MissingDependency
from motion_module.file_signatures import ZIP
from motion_module.optical_flow import opencv
from motion_module.pickle_reader import Call, Name, UnreadablePickle
from motion_module.pickled_tensors import StoredTensor, stored_tensor
from motion_module.weight_files import LONGEST_KEY, MOST_TENSORS, CheckpointError, TorchFile, open_weights

TASKS = "ultralytics.nn.tasks"
KINDS = ("DetectionModel", "SegmentationModel")
"""The models of `ultralytics` that are built. The masks of the latter are not used."""
HEADS = ("Detect", "Segment")
ENLARGING = "nn.Upsample"
LAYERS = {
    *("A2C2f", "AConv", "ADown", "Bottleneck", "C2", "C2PSA", "C2f", "C2fPSA", "C3", "C3Ghost", "C3k2", "CBFuse"),
    *("CBLinear", "Concat", "Conv", "DWConv", "ELAN1", "Focus", "GhostConv", "PSA", "RepNCSPELAN4", "SCDown", "SPP"),
    *("SPPELAN", "SPPF", "nn.BatchNorm2d", "nn.Identity", ENLARGING),
}
"""Those of YOLO detectors. `ultralytics` would call whatever a description names, and not all of it is harmless."""
FACTS = {"nc", "scale", "scales", "depth_multiple", "width_multiple", "max_channels", "ch", "backbone", "head"}
"""What a description is made of."""
UNSUPPORTED = ("activation", "end2end")
"""An activation function is text that `ultralytics` runs; detectors from end to end have another kind of output."""
WORDS = {"nc", "nearest", "None", "True", "False", "", *"nsmlxtceb", *LAYERS, *HEADS}
MOST_ROWS, MOST_REPEATS, MOST_VALUES, LARGEST_NUMBER = 100, 30, 5_000, 2_048
"""Of a description: its rows, how often one is repeated, all its values, and the largest of them: a number of channels."""
LARGEST_FACTOR, MOST_ENLARGED = 2, 6
"""Of depth, width and an enlargement; and how many enlargements there are."""
MOST_LAYERS = 5_000
"""In a file. The largest YOLO detectors have about 500."""


def yolo_model(path: Path) -> Any:
    """Returns the detector in a file, in evaluation mode. It takes pictures `(rows, 3, height, width)` from 0 to 1, in RGB.

    Raises CheckpointError for the file, or MissingDependency without `ultralytics`.
    """
    file = open_weights(path, {ZIP: _YoloFile})
    assert isinstance(file, _YoloFile)
    tasks = _ultralytics()
    try:
        with torch.device("meta"):  # without memory, for the sizes
            layers, _ = tasks.parse_model(deepcopy(file.description), ch=3, verbose=False)
        sizes = {f"model.{key}": tuple(value.shape) for key, value in layers.state_dict().items()}
        entries = {key: file.entries[key] for key in sizes}
        least = sum(entry.dtype.itemsize * math.prod(entry.shape) for entry in entries.values())
        if sizes != {key: entry.shape for key, entry in entries.items()} or least > path.stat().st_size:
            raise ValueError("the description is that of another model")
        model = getattr(tasks, file.kind)(cfg=deepcopy(file.description), verbose=False)
        model.load_state_dict({key: file.read(key) for key in sizes})
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:  # `ultralytics` foresees no description but its own
        raise CheckpointError(
            f"{path.name} is a detector that the installed `ultralytics` cannot build. Update `ultralytics`, or choose another "
            "detector, of YOLOv8 or YOLO11."
        ) from error
    return model.eval()


def _ultralytics() -> Any:
    try:
        with _quiet_import():
            from ultralytics.nn import tasks  # type: ignore[import-not-found,unused-ignore]
    except Exception as error:  # it imports much, and looks at the machine
        raise MissingDependency(
            f"Detectors in files need the package `ultralytics`, which cannot be imported ({error}). ADetailer installs it; or "
            "run `pip install ultralytics` in the WebUI's Python."
        ) from error
    return tasks


@contextmanager
def _quiet_import() -> Iterator[None]:
    """Keeps the first import of `ultralytics` from reaching for the network, and from leaving OpenCV one thread for all."""
    if "ultralytics" in sys.modules:
        yield
        return
    before, threads = os.environ.get("YOLO_OFFLINE"), opencv().getNumThreads()
    os.environ["YOLO_OFFLINE"] = "true"
    try:
        yield
    finally:
        opencv().setNumThreads(threads)
        if before is None:
            del os.environ["YOLO_OFFLINE"]
        else:
            os.environ["YOLO_OFFLINE"] = before


class _AnyName:
    """All names: a pickle that is read as data can do nothing with them."""

    def __contains__(self, _name: object) -> bool:
        return True


class _YoloFile(TorchFile):
    """A pickled model of `ultralytics`. `kind`: the name of its class. `description`: of its layers."""

    allowed = _AnyName()
    kind: str
    description: dict[str, Any]

    def _tensors_in(self, content: Any) -> dict[str, StoredTensor]:
        model = (content.get("ema") or content.get("model")) if isinstance(content, dict) else None
        target = model.target if isinstance(model, Call) else None
        if not isinstance(model, Call) or not isinstance(target, Name) or target.module != TASKS or target.name not in KINDS:
            what = f"has a {target}" if isinstance(target, Name) else "has no model of `ultralytics`"
            raise CheckpointError(
                f"{self.path.name} {what}, so it is no detector that can be used. Choose one of YOLOv8 or YOLO11 that "
                "finds boxes or masks, such as face_yolov8n.pt."
            )
        self.kind, self.description = target.name, self._checked_description(_dictionary(model.state, "yaml"))
        return _weights_of(model)

    def _checked_description(self, found: dict[str, Any]) -> dict[str, Any]:
        """Returns what tells the layers. Raises CheckpointError for what is not built, UnreadablePickle for what cannot be."""
        backbone, head = _rows(found.get("backbone")), _rows(found.get("head"))
        names = [row[2] for row in (*backbone, *head)]
        strange = [name for name in names[:-1] if name not in LAYERS] + [name for name in names[-1:] if name not in HEADS]
        strange += [fact for fact in UNSUPPORTED if found.get(fact)]
        if strange:
            raise CheckpointError(
                f"{self.path.name} is a detector with “{strange[0][:50]}”, which is not supported. Choose one of YOLOv8 or "
                "YOLO11."
            )
        description = {key: value for key, value in found.items() if key in FACTS}
        _require_plain(description)
        factors = [found.get("depth_multiple"), found.get("width_multiple")]
        factors += [number for scale in (found.get("scales") or {}).values() for number in scale[:2]]
        enlarged = [row for row in (*backbone, *head) if row[2] == ENLARGING]
        factors += [number for row in enlarged for number in row[3] if _is_small(number)]
        if len(enlarged) > MOST_ENLARGED or any(factor is not None and not 0 < factor <= LARGEST_FACTOR for factor in factors):
            raise UnreadablePickle("its model is of an impossible size")
        return description


def _weights_of(model: Call) -> dict[str, StoredTensor]:
    """Returns the tensors of a module and the modules in it, with the keys of its state dict. Raises UnreadablePickle."""
    tensors: dict[str, StoredTensor] = {}
    rest = [("", model)]
    for _ in range(MOST_LAYERS):
        if not rest:
            return tensors
        prefix, layer = rest.pop()
        state = layer.state if isinstance(layer, Call) else None
        parts = {kind: _dictionary(state, kind) for kind in ("_parameters", "_buffers", "_modules")}
        if len(prefix) > LONGEST_KEY or len(tensors) + len(rest) + sum(map(len, parts.values())) > MOST_TENSORS:
            break
        stored = {**parts["_parameters"], **parts["_buffers"]}
        found = {f"{prefix}{key}": stored_tensor(value) for key, value in stored.items()}
        tensors.update({key: tensor for key, tensor in found.items() if tensor})
        rest += [(f"{prefix}{name}.", part) for name, part in parts["_modules"].items()]
    raise UnreadablePickle("its model has more layers than any detector")


def _dictionary(state: Any, name: str) -> dict[str, Any]:
    """Returns what a pickle gives to an attribute of an object. Raises UnreadablePickle unless that is a dictionary."""
    value = state.get(name) if isinstance(state, dict) else None
    if not isinstance(value, dict):
        raise UnreadablePickle(f"its model has no {name}")
    return value


def _rows(value: Any) -> list[Any]:
    """Returns the rows of a part of a description: where a layer gets its input, how often it is repeated, its name and more.

    Raises UnreadablePickle.
    """
    if not isinstance(value, list) or len(value) > MOST_ROWS:
        raise UnreadablePickle("its model has no list of layers")
    for row in value:
        is_row = isinstance(row, (list, tuple)) and len(row) == 4 and isinstance(row[2], str)
        if not is_row or not isinstance(row[1], int) or not 0 < row[1] <= MOST_REPEATS:
            raise UnreadablePickle("its model has a layer that is not described")
    return value


def _require_plain(description: dict[str, Any]) -> None:
    """Raises UnreadablePickle unless a description is made of small numbers, known words, and not too many of them together."""
    rest: list[Any] = [description]
    for _ in range(MOST_VALUES):
        if not rest:
            return
        value = rest.pop()
        if isinstance(value, (list, tuple, dict)) and len(value) <= MOST_ROWS:
            rest += value.values() if isinstance(value, dict) else value
        elif not (value is None or (isinstance(value, str) and value in WORDS) or _is_small(value)):
            break
    raise UnreadablePickle("its model is not described as those of `ultralytics` are")


def _is_small(value: Any) -> bool:
    return isinstance(value, (int, float)) and -LARGEST_NUMBER <= value <= LARGEST_NUMBER
