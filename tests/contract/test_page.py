"""What the page says where something is missing or in the way, read from the description that gradio builds it from."""

from __future__ import annotations

import json

import pytest
from server import PROBE, REPOSITORY


def page_of(server):
    """Every text of the page: labels, values and HTML of all its components."""
    return json.dumps(server.get("/config").json()["components"], ensure_ascii=False)


@pytest.fixture
def neighbour(tmp_path):
    """A folder as the established extension leaves it: its name, and a motion module in its `model` folder."""
    folder = tmp_path / "sd-webui-animatediff"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "mm_sd_v15_v2.ckpt").write_bytes(b"")
    return folder


def test_another_animatediff_is_noticed_before_anything_is_imported(start_host, neighbour):
    (neighbour / "motion_module.py").write_text("raise RuntimeError('ours was imported in its place')\n")
    (neighbour / "scripts").mkdir()
    (neighbour / "scripts" / "animatediff.py").write_text("")
    server = start_host(extensions=[neighbour, REPOSITORY])
    assert "Another AnimateDiff extension is enabled: sd-webui-animatediff" in page_of(server)
    assert "animatediff" not in server.get("/sdapi/v1/scripts").json()["txt2img"]
    assert server.txt2img(steps=1).ok
    said_of_scripts_that_fail = "Error loading script", "could not be loaded"  # by the WebUI, and by the embedded host
    assert not any(words in server.log_text() for words in said_of_scripts_that_fail)
    server.stop()


def test_an_empty_folder_says_what_to_get_and_offers_the_neighbours(start_host, neighbour, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    server = start_host(extensions=[neighbour, REPOSITORY, PROBE], options={"animatediff_model_path": str(empty)})
    page = page_of(server)
    assert f"There is no motion module in this folder yet:</span> <code>{empty}</code>" in page and "v3_sd15_mm.ckpt" in page
    assert f"Use the motion modules in {server.data_dir / 'extensions' / neighbour.name / 'model'}" in page
    server.stop()


@pytest.mark.webui_only("the embedded host's page has no img2img tab")
def test_the_panel_is_in_both_tabs_under_its_old_names(host):
    page = page_of(host)
    for tab in ("txt2img", "img2img"):
        for name in ("motion-module", "save-format", "enable", "video-length", "fps", "loop-number"):
            assert f'"{tab}-ad-{name}"' in page
