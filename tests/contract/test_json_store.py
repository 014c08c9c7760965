"""Concurrent writes from several processes: names of videos, and presets."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from support.server import REPOSITORY

TAKE_NAMES = """
from multiprocessing import get_context
from pathlib import Path
from animatediff.output.paths import new_stem
def take(_job):
    for _ in range(40):
        with new_stem(Path("videos"), "1") as stem:
            with stem.with_suffix(".gif").open("x"):
                pass
with get_context("fork").Pool(4) as jobs:
    jobs.map(take, range(4), chunksize=1)
"""
SAVE_PRESETS = """
from concurrent.futures import ThreadPoolExecutor
from animatediff.page import presets
def save(number):
    presets.save(f"preset {number}", "m.ckpt", number, 8, "N", ["GIF"])
list(ThreadPoolExecutor(8).map(save, range(60)))
assert presets.load("preset 7")[:5] == ["m.ckpt", 7, 8, "N", ["GIF"]]
"""


def start(script, folder):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (REPOSITORY / "demo" / "host" / "webui", REPOSITORY)))}
    return subprocess.Popen([sys.executable, "-c", script], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def test_concurrent_jobs_do_not_take_the_same_name(tmp_path):
    assert start(TAKE_NAMES, tmp_path).communicate()[1] == ""
    assert len(list((tmp_path / "videos").iterdir())) == 160


def test_presets_that_are_saved_concurrently_are_all_stored(tmp_path):
    assert start(SAVE_PRESETS, tmp_path).communicate()[1] == ""
    assert len(json.loads((tmp_path / "animatediff" / "presets.json").read_text())) == 60
    assert [file.name for file in (tmp_path / "animatediff").iterdir()] == ["presets.json"]


def test_an_unreadable_file_of_presets_is_not_overwritten(tmp_path):
    (tmp_path / "animatediff").mkdir()
    file = tmp_path / "animatediff" / "presets.json"
    file.write_text('{"mine": {"fps": 12},}')
    said = start(SAVE_PRESETS, tmp_path).communicate()[1]
    assert "JSONDecodeError" in said and file.read_text() == '{"mine": {"fps": 12},}'


def test_a_byte_order_mark_is_accepted(tmp_path):
    (tmp_path / "animatediff").mkdir()
    (tmp_path / "animatediff" / "presets.json").write_text('\ufeff{"mine": {"fps": 12}}', encoding="utf-8")
    assert start("from animatediff.page import presets; assert presets.load('mine')[2] == 12", tmp_path).communicate()[1] == ""
