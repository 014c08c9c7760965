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
from playwright.sync_api import expect

from support.browser import MINUTES, choose, choose_formats, frames_of_file, open_panel, set_number
from support.pictures import encode, gradient, mean_difference, pictures_of
from support.server import PROBE, REPOSITORY

SCHEDULER = os.environ.get("AGENT_SCHEDULER_DIR", "")
PENDING = "async () => (await (await fetch('/agent-scheduler/v1/queue')).json()).total_pending_tasks == 1"
SHIFTS = (0, 10, 20, 30)
pytestmark = [
    pytest.mark.webui_only("its Enqueue button is on the WebUI's page"),
    pytest.mark.not_on(("Forge", "Neo"), "Agent Scheduler is for Gradio 3"),
    pytest.mark.skipif(not SCHEDULER, reason="there is no Agent Scheduler: set AGENT_SCHEDULER_DIR"),
]


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    """Gradio's folder of uploads."""
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
    return folder / "film.mp4"


@pytest.fixture
def page(browser, host, video):
    """The tab img2img, with AnimateDiff on and the video uploaded."""
    page = browser.new_page(viewport={"width": 1400, "height": 1800})
    page.goto(host.url, wait_until="domcontentloaded", timeout=2 * MINUTES)
    page.locator("#tabs > .tab-nav button", has_text="img2img").click()
    open_panel(page, "img2img")
    for name, value in {"steps": 4, "width": 64, "height": 64, "denoising_strength": 0.01}.items():
        set_number(page, f"img2img_{name}", value)
    choose(page, "img2img-ad-motion-module", "mm_tiny_v3.safetensors")
    choose_formats(page, "GIF", tab="img2img")
    page.locator("#img2img-ad-source-video .label-wrap").click()
    page.locator("#img2img-ad-video-source input[type=file]").set_input_files(video)
    expect(page.locator("#img2img-ad-fps input[type=number]").first).to_have_value("0")
    yield page
    page.close()


def finished(host, count):
    """Waits until so many tasks have ended. Returns them, the latest first."""
    end = time.monotonic() + 120
    while len(tasks := host.get("/agent-scheduler/v1/history").json()["tasks"]) < count:
        assert time.monotonic() < end, host.get("/agent-scheduler/v1/queue").json()
        time.sleep(0.5)
    return sorted(tasks, key=lambda task: -task["created_at"])


def test_an_uploaded_video_is_used_later_or_refused(host, page, uploads):
    page.locator("#img2img_enqueue").click()
    (task,) = finished(host, 1)
    assert task["status"] == "done"
    (gif,) = json.loads(task["result"])["images"]
    stills = [
        pictures_of(host.img2img(init_images=[encode(gradient(shift=shift))], denoising_strength=0.01))[0] for shift in SHIFTS
    ]
    made = [int(np.argmin([mean_difference(frame, still) for still in stills])) for frame in frames_of_file(Path(gif))]
    assert made == list(range(len(SHIFTS)))
    host.post("/agent-scheduler/v1/queue/pause").raise_for_status()
    page.locator("#img2img_enqueue").click()
    page.wait_for_function(PENDING, timeout=MINUTES)
    shutil.rmtree(uploads)
    uploads.mkdir()
    host.post("/agent-scheduler/v1/queue/resume").raise_for_status()
    assert finished(host, 2)[0]["status"] == "failed"
    assert "The source video 'film.mp4' does not exist. Name a video file" in host.log_text()
