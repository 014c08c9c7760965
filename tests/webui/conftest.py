"""A live WebUI for the tests of this folder; without an installed one they are skipped."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from server import WebUI, webui_dir, webui_python, weights_dir

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
PROBE = HERE / "probe"

StartWebUI = Callable[..., WebUI]


@pytest.fixture(scope="session")
def weights() -> Path:
    """The folder of checkpoints, motion modules and LoRAs; the first use makes them, in about a minute."""
    folder = webui_dir()
    if folder is None:
        pytest.skip("no WebUI: set WEBUI_DIR to the folder of an installed AUTOMATIC1111 WebUI")
    cache = weights_dir()
    subprocess.run([webui_python(folder), HERE / "weights.py", cache], check=True)
    return cache


@pytest.fixture(scope="session")
def start_webui(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartWebUI]:
    """Starts WebUIs with the given keywords of `WebUI`; all are stopped at the end of the session."""
    with ExitStack() as running:

        def start(**settings: Any) -> WebUI:
            folder = tmp_path_factory.mktemp("webui")
            return running.enter_context(WebUI(folder, weights=weights, **settings))

        yield start


@pytest.fixture(scope="session")
def webui(start_webui: StartWebUI) -> WebUI:
    """One WebUI for the session, with this repository as an extension, the probe, and the checkpoint tiny-a."""
    return start_webui(extensions=[REPOSITORY, PROBE], run_installers=True)


@pytest.fixture(scope="session")
def plain_webui(start_webui: StartWebUI) -> StartWebUI:
    """Starts a WebUI that has never seen this extension, only the probe."""

    def start(**settings: Any) -> WebUI:
        return start_webui(extensions=[PROBE], **settings)

    return start
