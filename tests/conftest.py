"""What all tests share: helpers beside them can be imported, and what is skipped is said aloud."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from demo.real_webui import kind_of
from support.server import webui_dir

# `make test` runs one process per core. Threads of torch would compete for the same cores, in the tests and in the hosts
# and trainings that they start. torch reads this when it is imported.
os.environ["OMP_NUM_THREADS"] = "1"

WEBUI_ONLY = "webui_only(reason): does not run on the embedded host, because …"
NOT_ON = "not_on(names, reason): does not run in the WebUIs of these names (`demo.real_webui.Kind`), because …"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--host", choices=("embedded", "webui"), default="embedded", help="what tests/contract runs on")
    parser.addoption("--random-requests", type=int, default=60, help="how many, divided among the seeds")
    parser.addoption("--random-faults", type=int, default=10, help="how many, divided among the seeds")
    parser.addoption("--seeds", type=int, default=1, help="how many seeds, each a test that a process of its own can run")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", WEBUI_ONLY)
    config.addinivalue_line("markers", NOT_ON)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`random_requests` and `random_faults`: how many a test makes with its `seed`."""
    seeds = metafunc.config.getoption("--seeds")
    for name in ("random_requests", "random_faults"):
        if name in metafunc.fixturenames:
            count = metafunc.config.getoption("--" + name.replace("_", "-")) // seeds
            metafunc.parametrize(
                ("seed", name), [(seed, count) for seed in range(seeds)], ids=[f"seed{n}" for n in range(seeds)]
            )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    is_embedded = config.getoption("--host") == "embedded"
    name = "embedded" if is_embedded or not (folder := webui_dir()) else kind_of(folder).name
    for item in items:
        if is_embedded and (marker := item.get_closest_marker("webui_only")):
            item.add_marker(pytest.mark.skip(reason=marker.args[0]))
        for marker in item.iter_markers("not_on"):
            if name in marker.args[0]:
                item.add_marker(pytest.mark.skip(reason=f"{name}: {marker.args[1]}"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """`make test-webui` runs these; a reader of this output alone should know that they did not run."""
    skipped = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.stats.get("skipped", []))
    for reason, count in skipped.items():
        terminalreporter.write_line(f"SKIPPED, {count} TEST{'S' * (count > 1)}: {reason.upper()}.")
