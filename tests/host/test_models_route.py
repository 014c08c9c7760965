"""The list of motion modules in the API, where describing one of them fails in a way that nobody thought of."""

import importlib
import sys

import pytest

from support.small_training import ROOT


@pytest.fixture(scope="module")
def api():
    """The module, imported with the stand-in WebUI's `modules`."""
    sys.path.insert(0, str(ROOT / "demo" / "host" / "webui"))
    yield importlib.import_module("animatediff.api")
    sys.path.remove(str(ROOT / "demo" / "host" / "webui"))


def test_one_file_does_not_hide_the_others(api, monkeypatch, tmp_path):
    def fail(path):
        raise RuntimeError("unexpected")

    monkeypatch.setattr(api.module_files, "folder", lambda: tmp_path)
    monkeypatch.setattr(api.module_files, "what_it_is", fail)
    for name in ("a.ckpt", "b.safetensors"):
        (tmp_path / name).touch()
    problem = "It could not be described; the console has the details. Download it again, or report them."
    assert [(model["name"], model["problem"]) for model in api._models()] == [("a.ckpt", problem), ("b.safetensors", problem)]
