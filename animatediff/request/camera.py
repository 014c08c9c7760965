"""The camera that a request asks for: CameraCtrl's file, and where the camera is in each frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from motion_module.camera_ctrl import channels_in
from motion_module.camera_poses import CameraPosesError, Trajectory, read_poses, trajectory_of
from motion_module.families import V3, Family

from ..errors import RequestError, reason
from . import module_files, source_video
from .choices import NO_MODULE
from .params import Params

POSES = "The pose file (camera_poses)"
LARGEST = 4_000_000
"""Bytes of a pose file: more than 10,000 poses have."""


@dataclass(frozen=True)
class CameraFile:
    """What a request names: CameraCtrl's weights, with the channels of each block, and the poses of a file if it gives one."""

    path: Path
    channels: dict[str, int]
    poses: Trajectory | None


@dataclass(frozen=True)
class CameraChoice:
    """The camera of a clip. `left_over`: how many poses its file has beyond the last frame."""

    path: Path
    trajectory: Trajectory
    strength: float
    left_over: int = 0


def find(params: Params) -> CameraFile | None:
    """Finds and checks the files of a camera; None if no camera is chosen. Raises RequestError or CheckpointError."""
    if params.camera in NO_MODULE:
        return None
    try:
        path = module_files.find(params.camera)
    except RequestError as error:
        raise RequestError(f"Camera module (camera): {error}") from None
    if not (description := module_files.what_it_is(path)).is_camera:
        raise RequestError(
            f"{path.name} cannot be the camera module (camera): it is {description.kind}. Choose CameraCtrl.ckpt, or none."
        )
    channels = channels_in(path)
    if params.camera_poses and params.camera_motion.strip():
        raise RequestError(
            "Both Camera motion (camera_motion) and Pose file (camera_poses) move the camera. Give only one of them."
        )
    return CameraFile(path, channels, poses(params.camera_poses) if params.camera_poses else None)


def choose(
    params: Params, file: CameraFile | None, frames: int, family: Family, channels: dict[str, int]
) -> CameraChoice | None:
    """Returns the camera of a clip. `channels`: those of the motion module's blocks. Raises RequestError."""
    if file is None:
        return None
    if family.base != V3.base or any(channels.get(block, count) != count for block, count in file.channels.items()):
        raise RequestError(
            f"{file.path.name} (camera) does not fit the motion module, which has other layers. Choose {V3.title}, such as "
            "v3_sd15_mm.ckpt, or no camera module."
        )
    if file.poses is None:
        return CameraChoice(file.path, trajectory(params.camera_motion, frames), params.camera_strength)
    left_over = file.poses.frames - frames
    return CameraChoice(file.path, first_poses(file.poses, frames), params.camera_strength, left_over)


def trajectory(words: str, frames: int) -> Trajectory:
    """Returns where a camera is that moves as words say. Raises RequestError."""
    try:
        return trajectory_of(words, frames)
    except CameraPosesError as error:
        raise RequestError(f"Camera motion (camera_motion): {error}") from None


def poses(name: str) -> Trajectory:
    """Returns the poses of a file, or of a text that has more than one line. Raises RequestError."""
    try:
        return read_poses(name if is_text(name) else _text_of(source_video.allowed(name, POSES)))
    except CameraPosesError as error:
        raise RequestError(f"{POSES} cannot be used. {error}") from None


def first_poses(poses: Trajectory, frames: int) -> Trajectory:
    """Returns the poses of a clip's frames. Raises RequestError if there are fewer."""
    if (count := poses.frames) < frames:
        raise RequestError(
            f"{POSES} has {count} poses for {frames} frames. Set Number of frames (video_length) to {count} or less, or add "
            "poses."
        )
    return poses.first(frames)


def is_text(name: str) -> bool:
    """Whether a request has the poses themselves, and not the path of their file."""
    return "\n" in name.strip()


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(LARGEST + 1)
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise RequestError(f"{POSES}, {path.name}, is no text. Choose a file in the form of RealEstate10K.") from None
    except OSError as error:
        raise RequestError(f"{POSES}, {path.name}, cannot be read: {reason(error)}. Check its name.") from None
    if len(content) > LARGEST:
        raise RequestError(f"{POSES}, {path.name}, has more than {LARGEST:,} bytes. Choose a file of poses.")
    return text
