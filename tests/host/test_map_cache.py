"""Maps of ControlNet's preprocessors that are kept on disk."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
PICTURE = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Returns how often a preprocessor has made a map, after it was asked for some. The maps are kept in a folder."""
    monkeypatch.syspath_prepend(str(ROOT / "demo" / "host" / "webui"))  # for its `modules`
    map_cache = importlib.import_module("animatediff.controlnet.map_cache")
    monkeypatch.setattr(map_cache, "folder", lambda: tmp_path)
    monkeypatch.setattr(map_cache, "_bound", lambda: map_cache.MEGABYTE)
    times = []

    def cached_call(image, **_):
        times.append(1)
        return SimpleNamespace(value=255 - image)

    preprocessor = SimpleNamespace(name="invert", returns_image=True, cached_call=cached_call, Result=SimpleNamespace)

    def ask(version="v1", **settings):
        result = map_cache.KeptMaps(preprocessor, version).cached_call(PICTURE, **settings)
        np.testing.assert_array_equal(result.value, 255 - PICTURE)
        return len(times)

    return ask


def test_a_map_is_made_once(made):
    assert (made(), made()) == (1, 1)


@pytest.mark.parametrize("other", [{"version": "v2"}, {"resolution": 64}])
def test_another_version_or_another_setting_makes_its_own_map(made, other):
    assert (made(), made(**other)) == (1, 2)
