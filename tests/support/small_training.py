"""A very small training: a random image model, and videos of drifting stripes with 64 pixels a side."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from safetensors.torch import save_file

from demo.clip_text_encoder import text_config, write_text_folder
from motion_module.training.config import Config, config_of
from motion_module.training.image_model import STABLE_DIFFUSION_1, ImageModel, named_weights

ROOT = Path(__file__).parents[2]
SUBJECTS = ("motion module", "motion lora", "domain adapter", "sparsectrl")
FRAMES = 4
SIDE = 64


def description(text_folder: Path) -> dict[str, Any]:
    unet = {
        **STABLE_DIFFUSION_1["unet_config"]["params"],
        "model_channels": 32,
        "channel_mult": [1, 1, 1, 1],
        "context_dim": 16,
    }
    shape = STABLE_DIFFUSION_1["first_stage_config"]["params"]["ddconfig"]
    shape = {**shape, "ch": 32, "ch_mult": [1, 1, 1, 1], "num_res_blocks": 0}
    return {
        **STABLE_DIFFUSION_1,
        "unet_config": {"params": {**unet, "num_heads": 2}},
        "first_stage_config": {"params": {"embed_dim": 4, "ddconfig": shape}},
        "cond_stage_config": {"params": {"version": str(text_folder)}},
    }


def write_base(path: Path, seed: int = 0) -> Path:
    """Writes a checkpoint without weights that are all zero, of which a new UNet has many."""
    text_folder = write_text_folder(path.parent / "text", text_config(16, 2, 1))
    torch.manual_seed(seed)
    model = ImageModel(description(text_folder))
    with torch.no_grad():
        for parameter in model.unet.parameters():
            if parameter.count_nonzero() == 0:
                parameter.normal_(std=0.02 if parameter.dim() > 1 else 0.1)
    save_file(dict(named_weights(model)), path)
    path.with_suffix(".yaml").write_text(yaml.safe_dump({"model": {"params": description(text_folder)}}))
    return path


def stripes(frames: int, seed: int = 0, height: int = SIDE, width: int = SIDE, speed: float = 4) -> np.ndarray:
    """Returns a clip of coloured stripes that drift, `(frames, height, width, 3)`."""
    draw = np.random.default_rng(seed)
    colour = draw.uniform(60, 200, 3)
    x = np.arange(width)[None, None, :, None] + speed * np.arange(frames)[:, None, None, None]
    waves = 127 + colour / 2 * np.sin(x / 5)
    return np.broadcast_to(waves, (frames, height, width, 3)).round().astype(np.uint8)


def write_frames(folder: Path, frames: np.ndarray, caption: str | None = "stripes that drift") -> Path:
    """Writes a folder of frames, and its caption next to it."""
    folder.mkdir(parents=True)
    for index, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"{index:04d}.png"), frame[..., ::-1])
    if caption is not None:
        folder.with_name(f"{folder.name}.txt").write_text(caption, encoding="utf-8")
    return folder


def write_video(file: Path, frames: np.ndarray, caption: str | None = "stripes that drift") -> Path:
    """Writes a video file, and its caption next to it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"mp4v"), 8, frames.shape[2:0:-1])
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    if caption is not None:
        file.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return file


def small(folder: Path, **options: Any) -> Config:
    """Returns the options of a training with the base and the clips in `folder`."""
    content = {
        "train": "motion module",
        "base": "base.safetensors",
        "data": "clips",
        "output": "out/trained.safetensors",
        "frames": FRAMES,
        "stride": 1,
        "size": SIDE,
        "steps": 4,
        "batch": 2,
        "learning_rate": 1e-3,
        "ema": 0.9,
        "rank": 4,
        **options,
    }
    return config_of({name: value for name, value in content.items() if value is not None}, folder)


def losses(config: Config) -> list[float]:
    """Returns the loss of each step."""
    lines = (config.folder / "losses.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def predicted(model: Any, rows: int) -> torch.Tensor:
    """Returns the noise that a UNet predicts for fixed latents, with what is attached to it."""
    draw = torch.Generator().manual_seed(5)
    x = torch.randn(rows, 4, 8, 8, generator=draw)
    context = torch.randn(1, 77, 16, generator=draw).expand(rows, -1, -1)
    with torch.no_grad():
        return model.unet(x, torch.full((rows,), 400), context=context)


def launched(processes: int, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs a script or module in several processes with torch's launcher."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--master_port", str(port)]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    return subprocess.run([*launcher, *command], cwd=ROOT, capture_output=True, text=True, env=environment)


def as_file(config: Config, path: Path) -> Path:
    """Writes options into a YAML file, and returns its path."""
    options = {name: value for name, value in config.described().items() if value != "None"}
    path.write_text(json.dumps(options))
    return path
