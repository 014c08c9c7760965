"""Where the detectors of ADetailer are looked for."""

import importlib
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def files(monkeypatch, tmp_path):
    """Imported with the embedded host's `modules`, with the WebUI's models in a folder of the test."""
    monkeypatch.syspath_prepend(str(ROOT / "demo" / "host" / "webui"))
    module = importlib.import_module("animatediff.detailer.detector_files")
    monkeypatch.setattr(module, "models_path", str(tmp_path / "models"))
    monkeypatch.setattr(module, "_downloaded", dict)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: "it is there")
    monkeypatch.setitem(module.shared.opts.data, "ad_extra_models_dir", f"{tmp_path / 'more'}|{tmp_path / 'nowhere'}")
    return module


def put(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def test_those_in_its_folder_and_in_the_folders_of_its_setting_are_choices(files, tmp_path):
    assert files.choices() == ["Off", "faces", "upper bodies", "eyes", "box"]
    for name in ("models/adetailer/face10.pt", "models/adetailer/sub/face9.pt", "more/hand.pt", "models/adetailer/no.txt"):
        put(tmp_path / name)
    (tmp_path / "models/adetailer/folder.pt").mkdir()
    assert files.choices()[5:] == ["face9.pt", "face10.pt", "hand.pt"]
    assert files.find("face9.pt") == tmp_path / "models/adetailer/sub/face9.pt"


def test_without_ultralytics_no_file_is_a_choice(files, tmp_path, monkeypatch):
    put(tmp_path / "models/adetailer/face.pt")
    monkeypatch.setattr(files.importlib.util, "find_spec", lambda name: None)
    assert files.choices()[5:] == []


def test_of_two_of_one_name_it_is_the_one_that_adetailer_uses(files, tmp_path, monkeypatch):
    first, downloaded = put(tmp_path / "models/adetailer/face.pt"), tmp_path / "cache/face.pt"
    put(tmp_path / "more/face.pt")
    assert files.find("face.pt") == first
    monkeypatch.setattr(files, "_downloaded", lambda: {"face.pt": downloaded})
    assert files.find("face.pt") == downloaded


def test_a_name_that_no_answer_can_have_is_left_out(files, tmp_path):
    put(Path(str(tmp_path / "models/adetailer/face") + "\udcff.pt"))
    assert files.choices()[5:] == []


@pytest.mark.parametrize("name", ["none.pt", "../face.pt", "/etc/passwd.pt"])
def test_a_detector_that_is_not_there_is_refused_with_those_that_are(files, tmp_path, name):
    put(tmp_path / "models/face.pt")
    put(tmp_path / "models/adetailer/hand.pt")
    with pytest.raises(files.RequestError, match=r"is missing.*hand\.pt, faces, upper bodies, eyes"):
        files.find(name)


def test_what_adetailer_has_downloaded_is_found_in_its_cache(files, tmp_path, monkeypatch):
    monkeypatch.undo()
    hub = types.ModuleType("huggingface_hub")
    hub.try_to_load_from_cache = lambda repository, name: str(tmp_path / name) if name == "hand_yolov8n.pt" else None
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert files._downloaded() == {"hand_yolov8n.pt": tmp_path / "hand_yolov8n.pt"}
