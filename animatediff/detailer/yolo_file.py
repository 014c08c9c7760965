"""Builds a YOLO detector from its `.pt` file without running any code of the file.

Such a file is a pickled model, and `ultralytics` would run the pickle. Here it is read as data: a description of the layers,
from which `ultralytics` builds the model anew, and their weights.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from motion_module.errors import MissingDependency
from motion_module.file_signatures import ZIP, contents_of
from motion_module.pickle_reader import Call, Name, UnreadablePickle
from motion_module.pickled_tensors import StoredTensor, stored_tensor
from motion_module.weight_files import CheckpointError, TorchFile

KINDS = ("DetectionModel", "SegmentationModel")
"""The models of `ultralytics` that are built. The masks of the latter are not used."""
LAYERS = {
    *("AConv", "ADown", "Bottleneck", "C2PSA", "C2f", "C2fPSA", "C3", "C3Ghost", "C3k2", "CBFuse"),
    *("CBLinear", "Concat", "Conv", "DWConv", "Detect", "ELAN1", "Focus", "GhostConv", "PSA"),
    *("RepNCSPELAN4", "SCDown", "SPP", "SPPELAN", "SPPF", "Segment"),
    *("nn.BatchNorm2d", "nn.Conv2d", "nn.ConvTranspose2d", "nn.Identity", "nn.Upsample"),
}
"""Those of published detectors. `ultralytics` would call whatever a description names, and not all of it is harmless."""
FACTS = {"nc", "scale", "scales", "depth_multiple", "width_multiple", "max_channels", "ch", "backbone", "head"}
"""What a description is made of. The rest of it, such as an activation function, `ultralytics` would run as Python."""
MOST_LAYERS = 5_000
LARGEST_NUMBER = 4_096
"""In a description: a number of channels, usually."""


def yolo_model(path: Path) -> Any:
    """Returns the detector in a file, ready to be used. Raises CheckpointError, or MissingDependency without `ultralytics`."""
    if not path.is_file() or (contents := contents_of(path)) != ZIP:
        what = f"is {contents.what}" if path.is_file() else "is missing"
        raise CheckpointError(f"{path.name} {what}, not a YOLO detector. Download it again, or choose another detector.")
    file = _YoloFile(path)
    tasks = _ultralytics()
    try:
        model = getattr(tasks, file.kind)(cfg=file.description, verbose=False)
        model.load_state_dict({key: file.read(key) for key in model.state_dict()})
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:  # `ultralytics` foresees no description but its own
        raise CheckpointError(
            f"{path.name} is a detector that the installed `ultralytics` cannot build. Update `ultralytics`, or choose another "
            "detector."
        ) from error
    return model.eval()


def _ultralytics() -> Any:
    try:
        from ultralytics.nn import tasks  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise MissingDependency(
            "Detectors in files need `ultralytics`, which is not installed. ADetailer installs it; or run "
            "`pip install ultralytics` in the WebUI's Python."
        ) from error
    return tasks


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
        kind = model.target.name if isinstance(model, Call) and isinstance(model.target, Name) else ""
        if not isinstance(model, Call) or kind not in KINDS:
            what = f"a {kind} of `ultralytics`" if kind else "no model of `ultralytics`"
            raise CheckpointError(
                f"{self.path.name} is {what}. Choose a detector that has boxes or masks, such as face_yolov8n.pt."
            )
        self.kind, self.description = kind, _description(_dictionary(model.state, "yaml"))
        return _weights_of(model)


def _weights_of(model: Call) -> dict[str, StoredTensor]:
    """Returns the tensors of a module and the modules in it, with the keys of its state dict. Raises UnreadablePickle."""
    tensors: dict[str, StoredTensor] = {}
    rest = [("", model)]
    for _ in range(MOST_LAYERS):
        if not rest:
            return tensors
        prefix, layer = rest.pop()
        state = layer.state if isinstance(layer, Call) else None
        for kind in ("_parameters", "_buffers"):
            stored = {f"{prefix}{key}": stored_tensor(value) for key, value in _dictionary(state, kind).items()}
            tensors.update({key: tensor for key, tensor in stored.items() if tensor})
        rest += [(f"{prefix}{name}.", part) for name, part in _dictionary(state, "_modules").items()]
    raise UnreadablePickle(f"its model has more than {MOST_LAYERS:,} layers")


def _dictionary(state: Any, name: str) -> dict[str, Any]:
    """Returns what a pickle gives to an attribute of an object. Raises UnreadablePickle unless that is a dictionary."""
    value = state.get(name) if isinstance(state, dict) else None
    if not isinstance(value, dict):
        raise UnreadablePickle(f"its model has no {name}")
    return value


def _description(found: dict[str, Any]) -> dict[str, Any]:
    """Returns what tells the layers of a model. Raises UnreadablePickle for what `ultralytics` must not be given."""
    rows = [*_list(found.get("backbone")), *_list(found.get("head"))]
    for row in rows:
        name = row[2] if isinstance(row, (list, tuple)) and len(row) == 4 else None
        if name not in LAYERS:
            raise UnreadablePickle(f"its model has the unknown layer {str(name)[:50]!r}")
    if found.get("activation"):
        raise UnreadablePickle("its model has an activation function that is described by code")
    description = {key: value for key, value in found.items() if key in FACTS}
    _require_plain(description)
    return description


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) > 100:
        raise UnreadablePickle("its model has no list of layers")
    return value


def _require_plain(value: Any, depth: int = 5) -> None:
    """Raises UnreadablePickle unless a value is made of small numbers, short texts, and a few of them together."""
    if value is None or (isinstance(value, str) and len(value) < 50):
        return
    if isinstance(value, (int, float)) and math.isfinite(value) and abs(value) <= LARGEST_NUMBER:
        return
    if depth and isinstance(value, (list, tuple, dict)) and len(value) <= 100:
        for part in value.values() if isinstance(value, dict) else value:
            _require_plain(part, depth - 1)
        return
    raise UnreadablePickle("its model is not described as those of `ultralytics` are")
