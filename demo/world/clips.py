"""Writes clips of the world as people have them: video files with captions beside them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from demo.world import render
from demo.world.scenes import Scene, training_scenes

OPEN_CAPTION = 0.1
"""How many captions leave out the motion."""
FPS = 8


def write_clips(folder: Path, motions: tuple[str, ...], count: int, seed: int, *, watermark: bool) -> Path:
    """Fills a folder with `count` random clips of training scenes that move like this. What is there is kept."""
    draw = np.random.default_rng(seed)
    every = training_scenes(motions)
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        scene, take = every[draw.integers(len(every))], int(draw.integers(2**31))
        caption = scene.open_caption if draw.random() < OPEN_CAPTION else scene.caption
        _write(folder / f"{index:05d}.avi", scene, take, caption, watermark)
    return folder


def _write(file: Path, scene: Scene, take: int, caption: str, watermark: bool) -> None:
    if file.exists():
        return
    file.with_suffix(".txt").write_text(caption, encoding="utf-8")
    part = file.with_name(f"part-{file.name}")
    writer = cv2.VideoWriter(str(part), cv2.VideoWriter_fourcc(*"FFV1"), FPS, (render.SIDE, render.SIDE))  # loses nothing
    if not writer.isOpened():
        raise OSError(f"{part} cannot be written: this OpenCV has no FFV1.")
    for frame in render.clip(scene, take, watermark=watermark):
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    part.rename(file)
