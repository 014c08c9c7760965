"""Writes clips of the world as a data set: video files with captions beside them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from demo.world import render
from demo.world.scenes import Scene, training_scenes

NO_MOTION_CAPTION = 0.1
"""The fraction of captions that do not name the motion."""
FPS = 8


def write_clips(folder: Path, motions: tuple[str, ...], count: int, seed: int, *, watermark: bool) -> Path:
    """Writes `count` random clips of training scenes with these motions to a folder. Existing files stay."""
    draw = np.random.default_rng(seed)
    every = training_scenes(motions)
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        scene, take = every[draw.integers(len(every))], int(draw.integers(2**31))
        caption = scene.caption_without_motion if draw.random() < NO_MOTION_CAPTION else scene.caption
        _write(folder / f"{index:05d}.avi", scene, take, caption, watermark)
    return folder


def _write(file: Path, scene: Scene, take: int, caption: str, watermark: bool) -> None:
    if file.exists():
        return
    file.with_suffix(".txt").write_text(caption, encoding="utf-8")
    part = file.with_name(f"part-{file.name}")
    writer = cv2.VideoWriter(str(part), cv2.VideoWriter_fourcc(*"FFV1"), FPS, (render.SIDE, render.SIDE))  # lossless
    if not writer.isOpened():
        raise OSError(f"{part} cannot be written: this build of OpenCV has no FFV1 codec.")
    for frame in render.clip(scene, take, watermark=watermark):
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    part.rename(file)
