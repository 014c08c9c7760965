"""Agent Scheduler itself: a request that its button puts into a queue is generated later, and its results list the video."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image

from support.browser import frames_of_file
from support.gradio_page import GradioPage
from support.pictures import encode, gradient, mean_difference, pictures_of
from support.server import PROBE, REPOSITORY

SCHEDULER = os.environ.get("AGENT_SCHEDULER_DIR", "")
SHIFTS = (0, 10, 20, 30)
pytestmark = [
    pytest.mark.webui_only("its Enqueue button is on the WebUI's page"),
    pytest.mark.not_on(("Forge", "Neo"), "Agent Scheduler is for Gradio 3"),
    pytest.mark.skipif(not SCHEDULER, reason="there is no Agent Scheduler: set AGENT_SCHEDULER_DIR"),
]


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    with pytest.MonkeyPatch.context() as change:
        folder = tmp_path_factory.mktemp("gradio")
        change.setenv("GRADIO_TEMP_DIR", str(folder))
        yield folder


@pytest.fixture(scope="module")
def host(start_host, uploads, tmp_path_factory):
    """The extension is copied, because its database lies in its folder."""
    scheduler = shutil.copytree(SCHEDULER, tmp_path_factory.mktemp("neighbour") / "agent-scheduler")
    return start_host(extensions=[REPOSITORY, PROBE, scheduler], run_installers=True)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    folder = tmp_path_factory.mktemp("film")
    for index, shift in enumerate(SHIFTS):
        Image.fromarray(gradient(shift=shift)).save(folder / f"{index}.png")
    command = [get_ffmpeg_exe(), "-loglevel", "error", "-i", folder / "%d.png", "-c:v", "libx264rgb", "-crf", "0"]
    subprocess.run([*command, folder / "film.mp4"], check=True)
    return (folder / "film.mp4").read_bytes()


@pytest.fixture
def enqueue(host, video):
    """Uploads the video, and clicks on Enqueue."""

    def click():
        page = GradioPage(host)
        (path,) = host.post("/upload", files={"files": ("film.mp4", video)}).json()
        changes = {"enable": True, "model": "mm_tiny_v3.safetensors", "save-format": ["GIF"], "video-length": 0}
        panel = {**changes, "video-source": page.file(path)}
        fields = {"width": 64, "height": 64, "steps": 4, "denoising_strength": 0.01, "sampling": "Euler a"}
        values = {f"img2img-ad-{name}": value for name, value in panel.items()}
        values |= {f"img2img_{name}": value for name, value in fields.items()}
        page.send(page.event("img2img_enqueue"), values).raise_for_status()

    return click


def finished(host, count):
    """Waits until so many tasks have ended. Returns them, the latest first."""
    end = time.monotonic() + 120
    while len(tasks := host.get("/agent-scheduler/v1/history").json()["tasks"]) < count:
        assert time.monotonic() < end, host.get("/agent-scheduler/v1/queue").json()
        time.sleep(0.5)
    return sorted(tasks, key=lambda task: -task["created_at"])


def test_an_uploaded_video_is_used_later_or_refused(host, enqueue, uploads):
    enqueue()
    (task,) = finished(host, 1)
    assert task["status"] == "done"
    (gif,) = json.loads(task["result"])["images"]
    stills = [
        pictures_of(host.img2img(init_images=[encode(gradient(shift=shift))], denoising_strength=0.01))[0] for shift in SHIFTS
    ]
    made = [int(np.argmin([mean_difference(frame, still) for still in stills])) for frame in frames_of_file(Path(gif))]
    assert made == list(range(len(SHIFTS)))
    host.post("/agent-scheduler/v1/queue/pause").raise_for_status()
    enqueue()
    shutil.rmtree(uploads)
    uploads.mkdir()
    host.post("/agent-scheduler/v1/queue/resume").raise_for_status()
    assert finished(host, 2)[0]["status"] == "failed"
    assert "The source video 'film.mp4' does not exist. Name a video file" in host.log_text()
