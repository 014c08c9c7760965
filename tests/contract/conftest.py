"""Hosts for the tests of this folder, and a browser for their pages.

They run on the embedded host, or with `--host webui` in a live WebUI.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from playwright.sync_api import Browser, Page, sync_playwright

from demo.weights import make_weights
from support import sdxl_weights
from support.browser import MINUTES, ask_for_a_small_clip
from support.server import HOSTS, PROBE, REPOSITORY, Server, weights_dir

StartHost = Callable[..., Server]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--no-first-run"]


def only_one_process(folder: Path) -> FileLock:
    """Lets one process at a time fill a folder that several test processes share. The lock lies beside the folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(folder.with_name(f"{folder.name}.lock"))


@pytest.fixture(scope="session")
def weights() -> Path:
    """The folder of checkpoints, motion modules and LoRAs. Makes what it lacks, which takes about a minute at first."""
    cache = weights_dir()
    try:
        with only_one_process(cache):
            make_weights(cache)
    except OSError as error:
        pytest.exit(f"The weights could not be made: {error}. Set ANIMATEDIFF_TEST_CACHE to another folder.", returncode=1)
    return cache


@pytest.fixture(scope="session")
def xl_weights(weights: Path) -> Path:
    """The same folder, with SDXL checkpoints in it: for hosts that start after them."""
    with only_one_process(weights):
        sdxl_weights.make_weights(weights)
    return weights


@pytest.fixture(scope="session")
def start_host(weights: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartHost]:
    """Starts hosts with the given keywords of `Server`; all are stopped at the end of the session."""
    kind = HOSTS[request.config.getoption("--host")]
    with ExitStack() as running:

        def start(kind: type[Server] = kind, data_dir: Path | None = None, **settings: Any) -> Server:
            folder = data_dir or tmp_path_factory.mktemp("host")
            return running.enter_context(kind(folder, weights=weights, **settings))

        yield start


@pytest.fixture(scope="session")
def source_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder from which `host` may read source videos; requests cannot change that setting."""
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="session")
def host(start_host: StartHost, source_folder: Path) -> Server:
    """One host for the session, with this repository as an extension, the probe, and the checkpoint tiny-a."""
    options = {"animatediff_source_folders": f"/nowhere/at all\n{source_folder}\n"}
    return start_host(extensions=[REPOSITORY, PROBE], options=options, run_installers=True)


@pytest.fixture(scope="session")
def plain_host(start_host: StartHost) -> Server:
    """One host for the session that has never seen this extension, only the probe."""
    return start_host(extensions=[PROBE])


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine for the tests of the page")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, host: Server) -> Iterator[Page]:
    """The host's page in the tab txt2img, with a small clip asked for."""
    page = browser.new_page(viewport={"width": 1400, "height": 1600})
    page.goto(host.url, wait_until="domcontentloaded", timeout=2 * MINUTES)
    ask_for_a_small_clip(page)
    yield page
    page.close()
