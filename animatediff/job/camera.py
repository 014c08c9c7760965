"""The camera of one job: CameraCtrl's module on the way that the request describes."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from motion_module.camera_ctrl import Camera
from motion_module.families import V3

from ..errors import RequestError
from ..request import module_files
from ..request.plan import Plan

LEAST_SIDE = 64
"""Pixels of a side, of which one element is left at the encoder's lowest level."""


def camera_of(plan: Plan) -> Camera | None:
    """Returns the camera of a clip; None if the request has none. Raises CheckpointError for a damaged file."""
    if (chosen := plan.camera) is None:
        return None
    return Camera(module_files.camera(chosen.path), chosen.trajectory, chosen.strength)


def facts(plan: Plan) -> list[Any]:
    """Returns what sets the camera of a clip apart from others, beyond the request's own words."""
    if (chosen := plan.camera) is None:
        return []
    way = (chosen.trajectory.matrices, chosen.trajectory.focus)
    return [chosen.trajectory.size, *(sha256(part.numpy().tobytes()).hexdigest() for part in way)]


def require_possible(p: Any, plan: Plan) -> None:
    """Raises RequestError for a video that is too small for the encoder of a camera."""
    if plan.camera is not None and min(p.width, p.height) < LEAST_SIDE:
        raise RequestError(
            f"A camera (camera) needs a width and a height of at least {LEAST_SIDE}, but the video is {p.width}×{p.height}. "
            "Enlarge it, or choose no camera module."
        )


def warnings(plan: Plan) -> list[str]:
    """Returns warnings for the answer."""
    if (chosen := plan.camera) is None:
        return []
    found = []
    if plan.family.key != V3.key:
        found.append(
            f"CameraCtrl was trained with {V3.title}, so with {plan.family.title} the camera may not move as asked. Choose "
            "v3_sd15_mm.ckpt as Motion module (model)."
        )
    if chosen.left_over:
        found.append(
            f"The pose file (camera_poses) has {chosen.left_over + plan.frames} poses, of which the first {plan.frames} are "
            "used. Raise Number of frames (video_length) to use more."
        )
    return [f"AnimateDiff: {text}" for text in found]
