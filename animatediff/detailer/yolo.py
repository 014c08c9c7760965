"""Finds subjects on single frames with a YOLO detector (imports nothing of the WebUI)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from motion_module.optical_flow import opencv
from motion_module.pictures import Frame

from .boxes import Box, each_once
from .detectors import Detector
from .yolo_file import yolo_model

SIDE = 640
"""The longer side of the frame that detectors are trained at, in pixels."""
GREY = 114
"""The level of the padding in training."""
MOST_BOXES = 300
"""How many of the boxes on a frame are compared with each other, the surest."""


def yolo_detector(path: Path, confidence: float, device: torch.device) -> Detector:
    """Returns what finds the subjects that a detector in a file knows. `confidence`: from 0 to 1; more finds fewer.

    Raises CheckpointError for the file, and MissingDependency without `ultralytics` or OpenCV.
    """
    model = yolo_model(path).to(device)
    classes, multiple = model.model[-1].nc, int(model.stride.max())

    def find(frame: Frame) -> list[Box]:
        pixels, scale = _padded(frame, multiple)
        rows = torch.from_numpy(pixels).to(device).permute(2, 0, 1)[None] / 255
        with torch.no_grad():
            found = model(rows)
        while not isinstance(found, torch.Tensor):  # how much there is besides differs from version to version
            found = found[0]
        facts = found[0].float().cpu().numpy()  # (centre and size, classes, masks; places)
        certainty = facts[4 : 4 + classes].max(axis=0)
        surest = np.argsort(-certainty, kind="stable")[:MOST_BOXES]
        boxes = []
        for (x, y, width, height), sure in zip(facts[:4, surest].T.tolist(), certainty[surest]):
            box = Box(x - width / 2, y - height / 2, width, height).scaled(1 / scale).within(frame.shape[1], frame.shape[0])
            if sure >= confidence and box.width > 0 and box.height > 0:
                boxes.append((box, float(sure)))
        return each_once(boxes)

    return find


def _padded(frame: Frame, multiple: int) -> tuple[Frame, float]:
    """Returns a frame `(height, width, 3)` resized for detectors, and the factor by which it was resized.

    It is padded at the right and below. `multiple`: of which both sides are then multiples, in pixels.
    """
    scale = SIDE / max(frame.shape[:2])
    small = opencv().resize(np.ascontiguousarray(frame), None, fx=scale, fy=scale)
    height, width = (-(-side // multiple) * multiple for side in small.shape[:2])
    padded = np.full((height, width, 3), GREY, np.uint8)
    padded[: small.shape[0], : small.shape[1]] = small
    return padded, scale
