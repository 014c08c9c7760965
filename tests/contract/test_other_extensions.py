"""The extensions that people run beside AnimateDiff, in a live WebUI: their own code, on and off.

They lie in $EXTENSIONS_DIR, each in a folder of its usual name. A clip without motion must be what the extension makes of a
plain batch with the noise schedule of the motion module.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.animation import LONG, animate, difference, frames_of
from support.pictures import encode, gradient
from support.server import PROBE, REPOSITORY

pytestmark = pytest.mark.webui_only("the embedded host has none of the WebUI's parts that other extensions change")


@dataclass(frozen=True)
class Neighbour:
    """An extension that is switched on by a request."""

    folder: str
    script: str
    args: list[Any]
    request: dict[str, Any] = field(default_factory=dict)
    acts: int = 10
    """By how many levels it changes a picture at least."""


def regional(calc: str) -> list[Any]:
    on, off = [True, False, "Matrix", "Columns", "Mask", "Prompt", "1,1", "0.2"], [False, False, False]
    return [*on, *off, calc, [], "0", "0", "0.4", None, "0", "0", False]


RP = "sd-webui-regional-prompter"
NEGPIP = Neighbour("sd-webui-negpip", "NegPiP", [True], {"prompt": "a cat (red:-1.5)"})
NEIGHBOURS = {
    "Regional Prompter, equal parts": Neighbour(
        RP, "Regional Prompter", regional("Attention"), {"prompt": "a cat BREAK a dog", "negative_prompt": "bad BREAK low"}
    ),
    "Regional Prompter, one call": Neighbour(
        RP, "Regional Prompter", regional("Attention"), {"prompt": "a cat BREAK a dog", "negative_prompt": LONG}
    ),
    "Regional Prompter, a call for each condition": Neighbour(
        RP, "Regional Prompter", regional("Attention"), {"prompt": "a cat BREAK a dog"}
    ),
    "Regional Prompter, Latent": Neighbour(RP, "Regional Prompter", regional("Latent"), {"prompt": "a cat BREAK a dog"}),
    "NegPiP": NEGPIP,
    "Dynamic Thresholding": Neighbour(
        "sd-dynamic-thresholding",
        "Dynamic Thresholding (CFG Scale Fix)",
        [True, 5, 100, "Constant", 0, "Constant", 0, 4, True, "MEAN", "AD", 1],
        {"cfg_scale": 15},
    ),
    "Detail Daemon": Neighbour(
        "sd-webui-detail-daemon", "Detail Daemon", [True, True, False, "both", 0.2, 0.8, 0.5, 1, 1, 0, 0, 0, True]
    ),
    "Kohya hires fix": Neighbour(
        "sd-webui-kohya-hiresfix", "Kohya Hires.fix", [True, True, 3, 4, 0.5, 0.6, "bicubic", 0.5, 2, True, False]
    ),
}
FRAMES = {"one window": 16, "windows": 40, "windows in the motion attention": 40}
WINDOWS: dict[str, dict[str, Any]] = {
    "one window": {},
    "windows": {"batch_size": 16, "context_mode": "whole UNet"},
    "windows in the motion attention": {"batch_size": 16, "context_mode": "motion attention"},
}
START = {"init_images": [encode(gradient())], "denoising_strength": 0.6}
EVEN = {"image_mode": "strength ramp", "ramp_length": 0}
"""Every frame starts from the picture, as in a batch."""


def extensions() -> list[Path]:
    """Returns the folders of the neighbours that are there."""
    root = os.environ.get("EXTENSIONS_DIR")
    found = sorted(Path(root).iterdir()) if root else []
    return [folder for folder in found if folder.name in {neighbour.folder for neighbour in NEIGHBOURS.values()}]


@pytest.fixture(scope="module")
def crowd(start_host, tmp_path_factory):
    """A host with all of them."""
    if not extensions():
        pytest.skip("there are no other extensions for the live tests: set EXTENSIONS_DIR")
    folder = tmp_path_factory.mktemp("crowd")
    (folder / "ui-config.json").write_text("{}")  # NegPiP reads it when it is loaded; a WebUI that has run before has it
    return start_host(data_dir=folder, extensions=[REPOSITORY, PROBE, *extensions()])


def asked(neighbour: Neighbour, tab: str) -> dict[str, Any]:
    return {"steps": 3, **(START if tab == "img2img" else {}), **neighbour.request}


def on(neighbour: Neighbour) -> dict[str, Any]:
    return {neighbour.script: {"args": neighbour.args}}


def plain_batch(host, neighbour: Neighbour, tab: str, frames: int, **scripts: Any) -> np.ndarray:
    """Returns a batch of pictures without AnimateDiff, but with the noise schedule of its motion module."""
    host.post("/probe/v1/schedule", {"on": True}).raise_for_status()
    try:
        request = {**asked(neighbour, tab), "batch_size": frames, "alwayson_scripts": scripts}
        return frames_of(getattr(host, tab)(**request, override_settings={"return_grid": False}))
    finally:
        host.post("/probe/v1/schedule", {"on": False}).raise_for_status()


@pytest.mark.parametrize("tab", ["txt2img", "img2img"])
@pytest.mark.parametrize("windows", WINDOWS)
@pytest.mark.parametrize("name", NEIGHBOURS)
def test_a_clip_without_motion_is_what_it_makes_of_a_plain_batch(crowd, name, windows, tab):
    neighbour, frames = NEIGHBOURS[name], FRAMES[windows]
    if neighbour.folder not in {folder.name for folder in extensions()}:
        pytest.skip(f"{neighbour.folder} is not there")
    before = frames_of(crowd.txt2img())
    clip = animate("v3", motion_effect=0, video_length=frames, **WINDOWS[windows], **(EVEN if tab == "img2img" else {}))
    clip["alwayson_scripts"] |= on(neighbour)
    made = frames_of(getattr(crowd, tab)(**clip, **asked(neighbour, tab)))
    batch = plain_batch(crowd, neighbour, tab, frames, **on(neighbour))
    assert difference(made, batch) <= 1
    assert difference(batch, plain_batch(crowd, neighbour, tab, frames)) >= neighbour.acts, "it acts"
    np.testing.assert_array_equal(frames_of(crowd.txt2img()), before)
