"""What a page sends is up to its user: names of files that were never uploaded, playlists, and pictures of other formats.

Each test is a request to gradio's own routes, around controls of ours.
"""

import base64
import hashlib
import importlib
import io
import json
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import EpsImagePlugin, Image

from animatediff.request.base64_pictures import decoded
from animatediff.request.params import FIELDS
from animatediff.video import ffmpeg
from animatediff.video.clip import Clip, Quality

ROOT = Path(__file__).resolve().parents[2]
SECRET = b"root:x:0:0:root:/root:/bin/bash\n"
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
ONE_PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture(scope="module")
def parts():
    """The modules of the page, imported with the stand-in WebUI's `modules`."""
    sys.path.insert(0, str(ROOT / "demo" / "host" / "webui"))
    names = ("api", "page.controls", "page.player", "page.png_info", "page.settings_section", "page.train_page")
    yield SimpleNamespace(**{name.rpartition(".")[2]: importlib.import_module(f"animatediff.{name}") for name in names})
    sys.path.remove(str(ROOT / "demo" / "host" / "webui"))


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    """Gradio's folder of uploads."""
    with pytest.MonkeyPatch.context() as change:
        folder = tmp_path_factory.mktemp("gradio")
        change.setenv("GRADIO_TEMP_DIR", str(folder))
        yield folder


@pytest.fixture(scope="module")
def private(tmp_path_factory):
    """A folder of the server, with a file and a video that no page may see."""
    folder = tmp_path_factory.mktemp("private")
    (folder / "passwd").write_bytes(SECRET)
    white = Image.new("RGB", (64, 64), "white")
    (folder / "film.mp4").write_bytes(ffmpeg.encode_mp4(Clip([white] * 4, 8, infotext="a secret prompt"), Quality()))
    return folder


class Page:
    """A page of gradio with controls of ours, and its user."""

    def __init__(self, parts):
        with gr.Blocks() as self.blocks:
            shown, said = gr.Image(type="pil"), gr.Textbox()
            parts.png_info.add_to_page(shown, elem_id="pnginfo_image")
            parts.player._build("txt2img")
            told_of = {
                "video_source": pickled,
                "last_frame": lambda picture: f"{picture.size}",
                "motion_mask": lambda picture: f"{picture.mode} {sorted(set(pickled(picture).getdata()))}",
                "sparse_pictures": json.dumps,
            }
            for name, told in told_of.items():
                field = next(field for field in FIELDS if field.name == name)
                parts.controls.control(field, str).change(told, [field_control(self.blocks, field)], [said])
        self.blocks.show_error = False  # as the WebUI starts it
        self.client = TestClient(gr.routes.App.create_app(self.blocks))

    def send(self, control, value):
        """Sends a value of a control, whose first event then happens. Returns the answer."""
        number = next(
            index
            for index, event in enumerate(self.blocks.dependencies)
            if self.blocks.blocks[event["targets"][0]].elem_id == control and event["backend_fn"]
        )
        return self.client.post("/run/predict", json={"fn_index": number, "data": [value], "session_hash": "user"})

    def upload(self, name, content):
        """Uploads a file. Returns what the page then sends for it."""
        (path,) = self.client.post("/upload", files={"files": (name, content)}).json()
        return named(path)


def pickled(file):
    """Returns what a queue of requests has of an upload later."""
    return pickle.loads(pickle.dumps(file))


def field_control(blocks, field):
    option = field.metadata["option"]
    return next(block for block in blocks.blocks.values() if block.elem_id == option.elem_id)


def named(path):
    return {"name": str(path), "data": None, "is_file": True, "orig_name": Path(path).name, "size": 1}


@pytest.fixture(scope="module")
def page(parts, uploads):
    return Page(parts)


def sentence(answer):
    """Returns what the page says of an error. Gradio puts quotation marks around it."""
    assert answer.status_code == 500, answer.text
    return answer.json()["error"].strip("'\"")


UPLOADS = ("pnginfo-ad-video", "video-source", "sparse-pictures")


@pytest.mark.parametrize("control", UPLOADS)
def test_a_file_that_was_not_uploaded_is_neither_used_nor_copied(page, private, uploads, control):
    (uploads / "token").mkdir(exist_ok=True)
    (uploads / "token" / f"{control}.mp4").symlink_to(private / "passwd")
    (uploads / "shown.png").write_bytes(SECRET)
    here = (
        private / "passwd",
        uploads / ".." / private.name / "passwd",
        uploads / "token" / f"{control}.mp4",
        uploads / "shown.png",
    )
    for file in map(named, here):
        for sent in (file, [file]):
            said = sentence(page.send(control, sent))
            assert said == "Only files that were uploaded on this page can be used. Upload the file."
    copies = uploads / hashlib.sha1(SECRET).hexdigest()
    assert not copies.exists() and page.client.get(f"/file={copies / 'passwd'}").status_code == 404


@pytest.mark.parametrize("control", UPLOADS)
def test_an_upload_that_is_gone_is_said(page, uploads, control):
    file = page.upload("film.mp4", b"content")
    Path(file["name"]).unlink()
    assert sentence(page.send(control, file)) == "film.mp4 is no longer on the server. Upload it again."


def test_uploads_are_used(page, private, uploads):
    film = (private / "film.mp4").read_bytes()
    picture = page.send("pnginfo-ad-video", page.upload("mine.mp4", film)).json()["data"][0]
    shown = Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2])))
    assert shown.size == (64, 64) and np.asarray(shown.convert("L")).min() > 250
    (path,) = page.send("video-source", page.upload("mine.mp4", film)).json()["data"]
    assert Path(path).read_bytes() == film and uploads in Path(path).parents


def test_several_pictures_are_given_by_their_paths(page):
    sent = [page.upload(f"{number}.png", bytes([number])) for number in range(2)]
    (told,) = page.send("sparse-pictures", sent).json()["data"]
    contents = [Path(one["path"]).read_bytes() for one in json.loads(told)]
    assert contents == [b"\0", b"\1"]
    assert page.send("sparse-pictures", None).json()["data"] == ["[]"]


PLAYLISTS = {
    "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{film}\n#EXT-X-ENDLIST\n",
    "list.webm": "ffconcat version 1.0\nfile '{film}'\n",
    "list.mkv": '<?xml version="1.0"?><MPD><Period><BaseURL>{film}</BaseURL></Period></MPD>',
    "list.mov": "v=0\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
    "passwd": SECRET.decode(),
    "empty.mp4": "",
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_what_is_no_video_by_its_content_is_never_given_to_ffmpeg(page, private, monkeypatch, name):
    monkeypatch.setattr(ffmpeg.subprocess, "run", lambda *_args, **_named: pytest.fail("ffmpeg was called"))
    file = page.upload(name, PLAYLISTS[name].format(film=private / "film.mp4").encode())
    said = sentence(page.send("pnginfo-ad-video", file))
    assert said == f"{name} is not an MP4 or WebM video that can be read. Choose another file."


def test_the_error_for_a_broken_video_names_no_folder(page, private, uploads):
    file = page.upload("broken.mp4", (private / "film.mp4").read_bytes()[:200])
    said = sentence(page.send("pnginfo-ad-video", file))
    assert "broken.mp4 is not an MP4" in said and str(uploads) not in said and "ffmpeg" not in said


def test_the_player_reads_no_playlist_that_was_uploaded_elsewhere(page, parts, private, monkeypatch):
    """Gradio may serve every upload, so the WebUI's own check lets them pass."""
    served = lambda _page, file: any(file in files for files in page.blocks.temp_file_sets)  # noqa: E731
    monkeypatch.setattr(parts.player.ui_tempdir, "check_tmp_file", served)
    film, playlist = (private / "film.mp4").read_bytes(), PLAYLISTS["list.m3u8"].format(film=private / "film.mp4")
    copies = [
        page.send("video-source", page.upload(name, content)).json()["data"][0]
        for name, content in (("mine.mp4", film), ("list.m3u8", playlist.encode()))
    ]
    whole, listed = (page.send("txt2img-ad-player-to-img2img", json.dumps({"file": copy, "frame": 0})) for copy in copies)
    assert whole.status_code == 200 and whole.json()["data"][0].startswith("data:image/png")
    assert sentence(listed) == "Frame 1 of list.m3u8 cannot be read. Generate the video again."
    elsewhere = page.send("txt2img-ad-player-to-img2img", json.dumps({"file": str(private / "film.mp4"), "frame": 0}))
    assert "was not made since the WebUI started" in sentence(elsewhere)


def test_a_picture_of_another_format_is_not_decoded(page, monkeypatch):
    called = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *arguments: called.append(arguments))
    for content in (EPS, SECRET, b"", b"II*\0" + bytes(40)):
        said = sentence(page.send("last-frame", "data:image/png;base64," + base64.b64encode(content).decode()))
        assert said.startswith("Last frame is not a picture that can be read. Use one of these formats")
    assert called == []
    assert page.send("last-frame", ONE_PIXEL).json()["data"] == ["(1, 1)"]


@pytest.mark.parametrize(
    "pixels",
    [np.array([[0, 40000]], np.uint16), np.array([[[9, 9, 9, 0], [9, 9, 9, 255]]], np.uint8)],
    ids=["sixteen bits", "transparent"],
)
def test_a_picture_of_the_page_is_the_same_as_one_of_the_api(page, pixels):
    """A mask may be in its transparency, or have more than eight bits."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    sent = base64.b64encode(buffer.getvalue()).decode()
    given = decoded("", sent)
    (told,) = page.send("motion-mask", f"data:image/png;base64,{sent}").json()["data"]
    assert given.mode != "RGB" and told == f"{given.mode} {sorted(set(given.getdata()))}"


def test_every_upload_of_the_panel_is_checked(parts, uploads):
    """Whatever the table of parameters will have: a plain control of gradio's would take any file."""
    with gr.Blocks() as blocks:
        for field in FIELDS:
            if field.metadata["option"].elem_id:
                parts.controls.control(field, str)
    kinds = {type(block) for block in blocks.blocks.values() if isinstance(block, (gr.File, gr.Image))}
    assert kinds == {parts.controls.Upload, parts.controls.PictureUploads, parts.controls.Picture}


@pytest.fixture
def options(parts, monkeypatch):
    """The settings that `add_settings` adds, by name."""
    added = {}
    monkeypatch.setattr(type(parts.settings_section.shared.opts), "add_option", lambda _, key, info: added.update({key: info}))
    return added


def test_every_setting_that_is_a_path_is_closed_to_the_api_and_to_hidden_settings(parts, options, monkeypatch):
    monkeypatch.setattr(parts.settings_section.shared, "hide_dirs", {"visible": False})
    parts.settings_section.add_settings()
    paths = {key for key, option in options.items() if option.component is gr.Textbox}
    assert paths == {f"animatediff_{name}" for name in ("model_path", "source_folders", "training_folders")}
    assert all(options[key].restrict_api and options[key].component_args["visible"] is False for key in paths)


def test_a_webui_that_cannot_train_has_no_setting_for_trainings(parts, options, monkeypatch):
    monkeypatch.delattr(parts.settings_section.training_processes.paths, "paths")
    parts.settings_section.add_settings()
    assert options and "animatediff_training_folders" not in options


# --- trainings ---


REACHABLE = {"webui_is_non_local": True}, {"gradio_auth": "me:secret"}, {"gradio_auth_path": "/a/file"}


@pytest.fixture
def folders(parts, tmp_path, monkeypatch):
    """Two folders of videos, of which the settings allow one."""
    for name in ("allowed", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "allowed" / "link").symlink_to(tmp_path / "other")
    monkeypatch.setitem(parts.train_page.shared.opts.data, "animatediff_training_folders", f"\n{tmp_path / 'allowed'}\n")
    return tmp_path


@pytest.mark.parametrize("options", REACHABLE)
@pytest.mark.parametrize("name", ["other", "allowed/../other", "allowed/link", "nowhere", "allowed2"])
def test_trainings_that_others_can_start_read_only_allowed_folders(parts, folders, monkeypatch, options, name):
    page = parts.train_page
    for text in ("", "  "):
        assert page.readable(text) == ""
    assert page.readable(f'"{folders / name}"') == str(folders / name), "whoever sits at this machine may read all of it"
    for option, value in options.items():
        monkeypatch.setattr(page.shared.cmd_opts, option, value)
    with pytest.raises(page.TrainingError, match="lies outside the folders that may be read, since others can reach"):
        page.readable(str(folders / name))
    for allowed in (folders / "allowed" / "clips", page.training_processes.folder() / "clips"):
        assert page.readable(str(allowed)) == str(allowed)


@pytest.mark.parametrize("text", [r"\\host\clips", '"//host/clips"'])
def test_a_path_to_another_computer_is_refused_before_it_is_looked_at(parts, monkeypatch, text):
    page = parts.train_page
    folders = page._folders()
    monkeypatch.setattr(page, "_folders", lambda: folders)
    monkeypatch.setattr(page.Path, "resolve", lambda path: pytest.fail("the path was looked at"))
    assert page.readable(text), "whoever sits at this machine may name any"
    monkeypatch.setattr(page.shared.cmd_opts, "gradio_auth", "you:word")
    with pytest.raises(page.TrainingError, match="lies outside the folders that may be read"):
        page.readable(text)


@pytest.mark.parametrize("name", ["a\0b", "~nobody-of-this-name/clips"])
def test_what_is_no_path_is_said(parts, name):
    with pytest.raises(parts.train_page.TrainingError, match=r"is not a valid path\. Name a folder, or a CSV file"):
        parts.train_page.readable(name)


# --- the routes ---


@pytest.fixture
def routes(parts, monkeypatch):
    """Returns a user of the routes, on a page with this login and under this password of the API."""

    def start(login, password):
        with gr.Blocks() as blocks:
            gr.Textbox()
        blocks.auth, blocks.auth_message = ([login.split(":")] if login else None), None
        monkeypatch.setattr(parts.api.shared.cmd_opts, "api_auth", password)
        app = gr.routes.App.create_app(blocks)
        parts.api.add_routes(blocks, app)
        return TestClient(app)

    return start


VERSION = "/animatediff/v1/version"


@pytest.mark.parametrize("password", [None, "you:word"])
def test_the_routes_ask_for_the_login_of_the_page_or_the_password_of_the_api(routes, password):
    user = routes("me:secret", password)
    for route in ("version", "models", "schema", "unfinished", "video?file=a&key=b"):
        assert user.get(f"/animatediff/v1/{route}").status_code == 401
    assert user.delete(f"/animatediff/v1/unfinished/{'0' * 32}").status_code == 401
    refused = user.get(VERSION)
    assert ("WWW-Authenticate" in refused.headers) is bool(password)
    assert "password is wrong" in refused.text if password else "Log in on the page" in refused.text
    for token in ("", "None", "0" * 22):
        assert user.get(VERSION, headers={"Cookie": f"access-token={token}"}).status_code == 401
    for pair in (("me", "secret"), ("you", "secret"), ("you", "word")):
        assert user.get(VERSION, auth=pair).status_code == (200 if password and pair == ("you", "word") else 401)
    assert user.post("/login", data={"username": "me", "password": "wrong"}).status_code == 400
    assert user.get(VERSION).status_code == 401
    assert user.post("/login", data={"username": "me", "password": "secret"}).status_code == 200
    assert user.get(VERSION).status_code == 200
    assert user.get(VERSION, auth=("you", "wrong")).status_code == 200, "the page goes on working"


def test_without_login_and_password_the_routes_are_open(parts, routes, monkeypatch):
    assert routes(None, None).get(VERSION).status_code == 200
    monkeypatch.setattr(parts.api.shared.cmd_opts, "nowebui", True)
    plain = FastAPI()
    parts.api.add_routes(None, plain)
    assert TestClient(plain).get(VERSION).status_code == 200
