"""Control models for SDXL in clips, on a narrow SDXL checkpoint: each frame is the still that its own picture gives.

ControlNets and IP-Adapters for SDXL have fixed widths, for which a test checkpoint would be too large.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from support import control_models
from support.animation import animate, frames_of
from support.control_models import controlnet_dir
from support.pictures import encode
from support.published_layouts import module_weights, save_as_the_beta
from support.server import PROBE, REPOSITORY

pytestmark = [
    pytest.mark.webui_only("the embedded host has no SDXL"),
    pytest.mark.not_on(("Forge", "Neo", "reForge"), "it takes no narrow SDXL checkpoint"),
    pytest.mark.skipif(controlnet_dir() is None, reason="there is no sd-webui-controlnet: set CONTROLNET_DIR"),
]
FRAMES = 4
MODULE = "mm_sdxl_v10_beta.ckpt"
HIRES = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent", "denoising_strength": 0.7}
LIMIT, POWER = 1, 10
"""In levels of 255: the most that a frame may differ from its still, and the least that it must differ from another's."""


@pytest.fixture(scope="module")
def pictures():
    """One picture for each frame, of coloured squares that have nothing to do with each other."""
    squares = np.random.default_rng(3).integers(0, 255, (FRAMES, 8, 8, 3), dtype=np.uint8)
    return [np.asarray(Image.fromarray(square).resize((64, 64), Image.Resampling.NEAREST)) for square in squares]


@pytest.fixture(scope="module")
def folder(pictures, tmp_path_factory):
    """The same pictures as files."""
    folder = tmp_path_factory.mktemp("pictures")
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def server(start_host, xl_weights, folder, tmp_path_factory):
    """A WebUI with ControlNet, random control models, and a narrow SDXL checkpoint."""
    control_models.make_all(xl_weights / "control")
    motion = tmp_path_factory.mktemp("motion-xl")
    torch.manual_seed(1)
    save_as_the_beta(module_weights("xl-beta"), motion / MODULE)
    options = {
        "sd_model_checkpoint": "tiny-xl-a.safetensors",
        "animatediff_model_path": str(motion),
        "animatediff_source_folders": str(folder),
        "control_net_models_path": str(xl_weights / "control"),
        "show_progress_type": "Approx cheap",  # for another method, the WebUI would download a network
    }
    server = start_host(extensions=[REPOSITORY, PROBE, controlnet_dir()], options=options)
    yield server
    server.stop()


def clip(model, module="none", **args):
    """Returns the part of a request that asks for a clip whose frames have the same noise, and do not influence each other."""
    image = {"image": args.pop("image")} if "image" in args else {}
    request = animate(**{"model": MODULE, "motion_effect": 0, "noise_type": "constant", "video_length": FRAMES, **args})
    units = [{"enabled": True, "module": module, "model": model, "weight": 2.0, **image}]
    request["alwayson_scripts"]["controlnet"] = {"args": units}
    return {**request, "steps": 3, "seed": 5}


def largest_difference(frames, others):
    """Returns for each frame the largest difference in levels of 255."""
    return np.abs(frames.astype(int) - others.astype(int)).max(axis=(1, 2, 3))


@pytest.mark.parametrize("settings", [{}, HIRES], ids=["one pass", "hires"])
@pytest.mark.parametrize("windows", [{}, {"batch_size": 2, "overlap": 1}], ids=["one window", "windows"])
@pytest.mark.parametrize("model", ["t2iadapter_sdxl_random", "lllite_sdxl_random"])
def test_each_frame_has_its_own_hint(server, folder, pictures, model, windows, settings):
    frames = frames_of(server.txt2img(**clip(model, video_path=str(folder), **windows), **settings))
    stills = [clip(model, image=encode(picture), video_length=1) for picture in pictures]
    alone = np.concatenate([frames_of(server.txt2img(**still, **settings)) for still in stills])
    assert largest_difference(frames, alone).max() <= LIMIT
    assert largest_difference(frames[1:], alone[:-1]).min() >= POWER


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        ("t2iadapter_sd15_random", ("could not prepare unit 0", "t2iadapter_sd15_random", "not compatible")),
        ("t2iadapter_tiny_random", ("unit 0 has a model for Stable Diffusion 1 or 2, but the checkpoint is SDXL",)),
    ],
    ids=["by its name", "by its weights"],
)
def test_a_model_for_another_kind_of_checkpoint_is_refused(server, folder, model, parts):
    plain = frames_of(server.txt2img(steps=1))
    answer = server.txt2img(**clip(model, video_path=str(folder)))
    assert answer.status_code == 422, answer.text
    for part in parts:
        assert part in answer.json()["detail"]
    np.testing.assert_array_equal(frames_of(server.txt2img(steps=1)), plain)
