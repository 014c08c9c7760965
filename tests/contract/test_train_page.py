"""The AnimateDiff tab under Train, in a browser: start, watch, pause, resume, stop, and generate meanwhile. Needs Chromium."""

from __future__ import annotations

import re
import time

import cv2
import numpy as np
import psutil
import pytest
from playwright.sync_api import expect

from support.animation import FRAMES, animate, frames_of, info_of
from support.browser import MINUTES
from support.pictures import encode, gradient

pytestmark = [
    pytest.mark.webui_only("the embedded host has no tab Train"),
    pytest.mark.not_on(("Forge", "Neo"), "it has neither a tab Train nor LDM's classes, which a training needs"),
]
STEPS = 20


@pytest.fixture
def clips(tmp_path):
    """Two videos of a disc that moves to the right, with captions."""
    for index in range(2):
        writer = cv2.VideoWriter(str(tmp_path / f"{index}.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 8, (64, 64))
        for frame in range(8):
            picture = np.full((64, 64, 3), 40, np.uint8)
            writer.write(cv2.circle(picture, (12 + 5 * frame, 32), 9, (40 + 60 * index, 180, 220), -1))
        writer.release()
        (tmp_path / f"{index}.txt").write_text("a disc going right")
    return tmp_path


@pytest.fixture
def nothing_stays(host, weights):
    """Ends trainings and removes their files: after a failed test, one would go on, and other tests count files."""
    folders = weights / "motion", host.data_dir / "models" / "Lora"
    files = lambda: {file for folder in folders for file in folder.glob("*")}  # noqa: E731
    before = files()
    yield
    for process in psutil.process_iter(["cmdline"]):
        command = " ".join(process.info["cmdline"] or [])
        if "motion_module train" in command and str(host.data_dir) in command:
            process.kill()
    for file in files() - before:
        file.unlink()


@pytest.fixture
def page(browser, host, nothing_stays):
    page = browser.new_page(viewport={"width": 1400, "height": 1400})
    page.goto(host.url, wait_until="domcontentloaded", timeout=2 * MINUTES)
    page.locator("#tabs > .tab-nav button", has_text="Train").first.click(timeout=2 * MINUTES)
    page.locator("#train_tabs > .tab-nav button", has_text="AnimateDiff").click()
    yield page
    page.close()


def fill(page, name, value):
    field = page.locator(f"#train-ad-{name} input[type=number], #train-ad-{name} textarea").first
    field.fill(str(value))
    field.blur()


def choose(page, name, value):
    page.locator(f"#train-ad-{name} input").first.click()
    page.locator(f"li[aria-label='{value}']").first.dispatch_event("mousedown")


def begin(page, name, clips, **numbers):
    page.locator("#train-ad-details .label-wrap").click()
    fill(page, "name", name)
    fill(page, "data", clips)
    for key, value in {"frames": 4, "stride": 1, "size": 64, "batch": 1, "accumulate": 1, **numbers}.items():
        fill(page, key, value)
    choose(page, "base", "tiny-a.safetensors")
    choose(page, "precision", "full")
    fill(page, "prompts", "a disc going right")
    fill(page, "every", 5)
    page.locator("#train-ad-start").click()


def status(page):
    return page.locator("#train-ad-status").first  # gradio gives the element around it the same id


def test_a_training_is_started_watched_paused_resumed_and_stopped(page, host, clips):
    name = f"disc {time.time_ns()}"
    begin(page, name, clips, steps=5_000)
    expect(status(page)).to_contain_text(
        re.compile(r"Training · step [1-9]\d* / 5000 · loss 0\.\d+ · \d+:\d\d:\d\d left"), timeout=3 * MINUTES
    )
    expect(status(page).locator("svg polyline")).to_be_visible(timeout=MINUTES)
    picture = page.locator("#train-ad-clips img").first
    expect(picture).to_be_visible(timeout=3 * MINUTES)
    assert picture.evaluate("picture => picture.naturalWidth") == 64
    expect(page.locator("#train-ad-report").first).to_contain_text("2 videos make 4 clips of 4 frames: 4 of 64×64.")

    fill(page, "name", f"second {name}")
    page.locator("#train-ad-start").click()
    expect(page.locator(".toast-body, .toast-wrap").first).to_contain_text("only one can run at a time", timeout=MINUTES)
    assert host.txt2img(steps=2, width=64, height=64).status_code == 200  # while it trains

    page.locator("#train-ad-pause").click()
    expect(status(page)).to_contain_text("Paused", timeout=MINUTES)
    paused = int(re.search(r"step (\d+)", status(page).inner_text())[1])
    assert host.txt2img(steps=2, width=64, height=64).status_code == 200

    page.locator("#train-ad-resume").click()
    expect(status(page)).to_contain_text(re.compile(rf"Training · step (?!{paused} )"), timeout=3 * MINUTES)
    assert int(re.search(r"step (\d+)", status(page).inner_text())[1]) > paused

    page.locator("#train-ad-stop").click()
    expect(status(page)).to_contain_text("Stopped", timeout=MINUTES)
    models = {entry["name"]: entry for entry in host.get("/animatediff/v1/models").json()}
    assert models[f"{name}.safetensors"]["family"] == "v3"


def test_a_training_of_twenty_steps_ends_by_itself(page, host, clips):
    name = f"short {time.time_ns()}"
    begin(page, name, clips, steps=STEPS)
    expect(status(page)).to_contain_text(f"Done · step {STEPS} / {STEPS}", timeout=3 * MINUTES)
    assert not page.locator(".ad-train-error").count()


def test_a_trained_adapter_can_be_chosen_for_a_motion_module(page, host, clips, weights):
    adapter = f"look {time.time_ns()}"
    choose(page, "train", "domain adapter")
    begin(page, adapter, clips, steps=2)
    expect(status(page)).to_contain_text("Done · step 2 / 2", timeout=3 * MINUTES)
    page.locator("#train-ad-domain_adapter_refresh").click()
    choose(page, "domain_adapter", f"{adapter}.safetensors")
    choose(page, "train", "motion module")
    module = f"beside {adapter}"
    fill(page, "name", module)
    page.locator("#train-ad-start").click()
    give_up = time.monotonic() + 180
    while not (weights / "motion" / f"{module}.safetensors").exists():
        assert time.monotonic() < give_up, status(page).inner_text()
        page.wait_for_timeout(500)
    assert f"{adapter}.safetensors" in (host.data_dir / "outputs/animatediff-training" / module / "config.yaml").read_text()


def test_a_trained_sparse_ctrl_model_makes_a_clip(page, host, clips, weights):
    name = f"given {time.time_ns()}"
    choose(page, "train", "sparsectrl")
    choose(page, "motion_module", "mm_tiny_v3.safetensors")
    begin(page, name, clips, steps=2)
    expect(status(page)).to_contain_text("Done · step 2 / 2", timeout=3 * MINUTES)
    assert (weights / "motion" / f"{name}_sparsectrl.safetensors").exists()
    asked = {"sparse_ctrl": f"{name}_sparsectrl.safetensors", "sparse_pictures": [encode(gradient())]}
    answer = host.txt2img(**animate(**asked))
    assert len(frames_of(answer)) == FRAMES and f"sparse_ctrl: {name}" in info_of(answer)["infotexts"][0]


def test_the_page_shows_why_a_training_cannot_run(page, clips):
    (clips / "0.txt").unlink()
    (clips / "1.txt").unlink()
    begin(page, f"nothing {time.time_ns()}", clips, steps=STEPS)
    expect(page.locator(".ad-train-error")).to_contain_text("there is no video with a caption in", timeout=2 * MINUTES)


def test_a_training_without_a_name_is_refused(page, clips):
    begin(page, "../elsewhere", clips, steps=STEPS)
    expect(page.locator(".toast-body, .toast-wrap").first).to_contain_text("cannot be the name of a training", timeout=MINUTES)
