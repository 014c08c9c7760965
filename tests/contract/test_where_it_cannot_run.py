"""A WebUI in which AnimateDiff cannot run starts, says so on its page, and makes plain pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from support.animation import animate, frames_of
from support.server import REPOSITORY, Server

Extension = Callable[[str, str], Path]
SAID_OF_SCRIPTS_THAT_FAIL = ("Error loading script", "could not be loaded")
"""By a WebUI, and by the embedded host."""


@pytest.fixture
def extension(tmp_path) -> Extension:
    """Makes an extension with one script. Extensions are loaded in the order of their names."""

    def make(name: str, script: str) -> Path:
        (tmp_path / name / "scripts").mkdir(parents=True)
        (tmp_path / name / "scripts" / "script.py").write_text(script)
        return tmp_path / name

    return make


def page_of(server: Server) -> str:
    """Returns every text of the page: labels, values and HTML of all its components."""
    return json.dumps(server.get("/config").json()["components"], ensure_ascii=False)


def scripts_of(server: Server) -> list[str]:
    return server.get("/sdapi/v1/scripts").json()["txt2img"]


def assert_refused_as_unknown(server: Server) -> None:
    """A request for a clip is never answered by a still."""
    answer = server.txt2img(**animate("v2"), steps=1)
    assert answer.status_code == 422 and "AnimateDiff" in answer.text


def test_another_animatediff_is_noticed_before_anything_is_imported(start_host, extension):
    other = extension("sd-webui-animatediff", "")
    (other / "motion_module.py").write_text("raise RuntimeError('ours was imported in its place')\n")
    (other / "scripts" / "animatediff.py").write_text("")
    server = start_host(extensions=[other, REPOSITORY])
    assert "Another AnimateDiff extension is enabled: sd-webui-animatediff" in page_of(server)
    assert "animatediff" not in scripts_of(server)
    assert server.txt2img(steps=1).ok
    assert_refused_as_unknown(server)
    assert not any(words in server.log_text() for words in SAID_OF_SCRIPTS_THAT_FAIL)
    server.stop()


LACKING = """
import sys
from modules import infotext_utils

kept = vars(infotext_utils).pop("register_paste_params_button")


def lacking(name):
    asking = sys._getframe(1).f_globals["__name__"]
    if name == kept.__name__ and not asking.startswith("animatediff"):  # the WebUI's own scripts need it too
        return kept
    raise AttributeError(f"module 'modules.infotext_utils' has no attribute {name!r}")


infotext_utils.__getattr__ = lacking
"""


def test_a_webui_that_lacks_what_is_needed(start_host, extension):
    server = start_host(extensions=[extension("0-old", LACKING), REPOSITORY])
    page = page_of(server)
    assert "AnimateDiff does not work in this WebUI, which lacks something that it needs" in page
    assert "register_paste_params_button" in page
    assert "animatediff" not in scripts_of(server)
    assert server.txt2img(steps=1).ok
    assert_refused_as_unknown(server)
    assert not any(words in server.log_text() for words in SAID_OF_SCRIPTS_THAT_FAIL)
    server.stop()


def test_a_panel_that_cannot_be_built(start_host, extension):
    """The page and the API come up, and the API makes clips."""
    broken = (
        "from animatediff.page import panel\ndef build(page):\n    raise KeyError('no such component')\npanel.build = build\n"
    )
    server = start_host(extensions=[REPOSITORY, extension("zz-broken", broken)])
    page = page_of(server)
    assert "AnimateDiff could not build its panel for this WebUI" in page and "no such component" in server.log_text()
    assert server.txt2img(steps=1).ok
    assert len(frames_of(server.txt2img(**animate("v2", video_length=4), steps=1))) == 4
    server.stop()
