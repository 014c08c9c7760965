"""Other extensions that are there and switched off, or have nothing to do with a clip: nobody disturbs anybody.

They lie in $EXTENSIONS_DIR. They write into their own folders, so copies of them are run.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from support.animation import animate, frames_of
from support.server import PROBE, REPOSITORY

COMPANY = (
    "a1111-sd-webui-lycoris",
    "a1111-sd-webui-tagcomplete",
    "adetailer",
    "sd-webui-ar",
    "sd-webui-deforum",
    "sd-webui-infinite-image-browsing",
    "sd-webui-prompt-all-in-one",
    "sd-webui-replacer",
)
SEGMENT_ANYTHING = REPOSITORY / "tests" / "support" / "stand_in_segment_anything"
"""Replacer needs it."""
BROWSING = "/infinite_image_browsing"
FRAMES = 17
"""Infinite Image Browsing shows the seventeenth frame of a video on its cover."""
found = {name: Path(os.environ.get("EXTENSIONS_DIR", "/nowhere")) / name for name in COMPANY}
present = [folder for folder in found.values() if folder.is_dir()]
pytestmark = [
    pytest.mark.webui_only("other extensions are the WebUI's"),
    pytest.mark.not_on(("Forge", "Neo", "reForge"), "these extensions are for AUTOMATIC1111"),
    pytest.mark.skipif(not present, reason="there are no other extensions for the live tests: set EXTENSIONS_DIR"),
]


def needs(name):
    return pytest.mark.skipif(found[name] not in present, reason=f"{name} is not there")


@pytest.fixture(scope="module")
def company(start_host, tmp_path_factory):
    folder = tmp_path_factory.mktemp("company")
    ours = folder / "animatediff"  # Replacer looks for a folder whose name has this word in it
    ours.symlink_to(REPOSITORY)
    copies = [shutil.copytree(each, folder / each.name, ignore=shutil.ignore_patterns(".git")) for each in present]
    return start_host(extensions=[ours, PROBE, SEGMENT_ANYTHING, *copies])


def test_all_are_loaded(company):
    assert "Error loading script" not in company.log_text()
    assert "Error executing callback" not in company.log_text()


def test_pictures_are_as_without_anybody_and_clips_as_without_the_others(company, host, plain_host):
    before = frames_of(plain_host.txt2img())
    np.testing.assert_array_equal(frames_of(company.txt2img()), before)
    np.testing.assert_array_equal(frames_of(company.txt2img(**animate())), frames_of(host.txt2img(**animate())))
    np.testing.assert_array_equal(frames_of(company.txt2img()), before)


@needs("sd-webui-replacer")
def test_replacer_has_its_tab(company):
    """It asks for a module of sd-webui-animatediff as soon as it sees our script."""
    parts = company.get("/config").json()["components"]
    assert "tab_Replacer" in {part["props"].get("elem_id") for part in parts}


@needs("sd-webui-infinite-image-browsing")
def test_infinite_image_browsing_lists_plays_and_describes_videos(company):
    clip = animate(format=["GIF", "MP4", "TXT"], video_length=FRAMES)
    company.txt2img(**clip, prompt="a lighthouse", steps=1, save_images=True).raise_for_status()
    (video,) = company.data_dir.rglob("*.mp4")
    listed = company.get(f"{BROWSING}/files", params={"folder_path": video.parent}).json()["files"]
    assert {video.name, video.with_suffix(".gif").name} <= {file["name"] for file in listed}
    assert company.get(f"{BROWSING}/stream_video", params={"path": video}).content == video.read_bytes()
    assert company.get(f"{BROWSING}/video_cover", params={"path": video, "mt": 1}).headers["content-type"] == "image/webp"
    for file in (video, video.with_suffix(".gif")):
        assert "a lighthouse" in company.get(f"{BROWSING}/image_geninfo", params={"path": file}).text
