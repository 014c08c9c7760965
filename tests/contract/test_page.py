"""The texts of the page, read from the description that gradio builds it from: what is missing, and what is translated."""

from __future__ import annotations

import html
import json
import re
import tempfile
import time
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import expect

from support.browser import MINUTES, generate, open_panel
from support.gradio_page import GradioPage
from support.server import PROBE, REPOSITORY


def page_of(server):
    """Every text of the page: labels, values and HTML of all its components."""
    return json.dumps(server.get("/config").json()["components"], ensure_ascii=False)


@pytest.fixture
def neighbour(tmp_path):
    """Returns the folder of an installed sd-webui-animatediff, with a motion module in its `model` folder."""
    folder = tmp_path / "sd-webui-animatediff"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "mm_sd_v15_v2.ckpt").write_bytes(b"")
    return folder


def test_an_empty_folder_gets_a_notice_and_offers_the_folder_of_sd_webui_animatediff(start_host, browser, neighbour, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    server = start_host(extensions=[neighbour, REPOSITORY, PROBE], options={"animatediff_model_path": str(empty)})
    page = page_of(server)
    assert f"There is no motion module in this folder:</span> <code>{empty}</code>" in page and "v3_sd15_mm.ckpt" in page
    assert "Use the motion modules of sd-webui-animatediff" in page
    shown = browser.new_page()
    shown.goto(server.url, wait_until="domcontentloaded", timeout=2 * MINUTES)
    open_panel(shown)
    shown.locator("#txt2img-ad-enable input[type=checkbox]").first.set_checked(True)
    generate(shown)
    expect(shown.locator("body")).to_contain_text("No motion module is chosen", timeout=MINUTES)
    shown.close()
    server.stop()


@pytest.mark.webui_only("the embedded host's page has no img2img tab")
def test_the_panel_is_in_both_tabs_under_its_old_names(host):
    page = page_of(host)
    for tab in ("txt2img", "img2img"):
        for name in ("motion-module", "save-format", "enable", "video-length", "fps", "loop-number"):
            assert f'"{tab}-ad-{name}"' in page


def test_the_panel_uses_only_uploads_as_its_source_video(host, tmp_path):
    """Gradio 3 would copy any file of the server that a page names as its upload to where the page can read it."""
    page = GradioPage(host)
    changed = page.event("txt2img-ad-video-source", takes_it=True)
    send = lambda path: page.send(changed, {"txt2img-ad-video-source": page.file(path)})  # noqa: E731
    secret = tmp_path / f"{time.time_ns()}.mp4"
    secret.write_text(str(tmp_path))
    refused = send(secret)
    assert refused.status_code == 500
    if not page.is_gradio_4:  # which refuses it before we see it
        assert "Only files that were uploaded on this page" in refused.json()["error"]
    folder = Path(tempfile.gettempdir(), "gradio")
    assert not list(folder.rglob(secret.name)) and host.get(f"/file={secret}").status_code in (403, 404)
    uploaded = host.post("/upload", files={"files": ("mine.mp4", b"content")}).json()
    assert send(uploaded[0]).status_code == 200
    shown_to_anyone = folder / secret.name
    shown_to_anyone.write_bytes(b"")
    refused = send(shown_to_anyone)
    assert refused.status_code == 500 and "Only files that were uploaded on this page" in refused.json()["error"]
    shown_to_anyone.unlink()


def test_the_page_shows_a_source_video_as_a_strip(host, source_folder):
    page = GradioPage(host)
    button = page.event("txt2img-ad-source-read")

    def strip(**changes):
        named = {f"txt2img-ad-{name.replace('_', '-')}": value for name, value in changes.items()}
        return page.send(button, named).json()["data"][0]

    folder = source_folder / "strip"
    folder.mkdir()
    for index in range(5):
        Image.new("RGB", (64, 36), (index, 0, 0)).save(folder / f"{index}.png")
    assert strip() == ""
    shown = strip(video_path=str(folder), source_start=1, source_stride=2)
    assert re.findall("<figure class='([^']*)'>", shown) == ["", "ad-source-used", "", "ad-source-used", ""]
    assert "<span>Frames used:</span> 2 · <span>Frames of the source:</span> 5" in shown
    assert "lies outside the folders that may be read" in strip(video_path="/etc/passwd")
    assert "Skip first frames (source_start)" in strip(video_path=str(folder), source_start=-1)


def test_the_page_shows_the_way_of_the_camera_or_what_is_wrong(host, source_folder):
    page = GradioPage(host)
    button = page.event("txt2img-ad-camera-read")

    def shown(**changes):
        named = {f"txt2img-ad-{name.replace('_', '-')}": value for name, value in changes.items()}
        return page.send(button, named).json()["data"][0]

    assert shown() == ""
    moving = shown(motion_module="mm_tiny_v3.safetensors", camera_motion="pan left 0.5\ndolly in ease")
    assert moving.count("class='ad-camera-view'") == 9 and "<span>turned by</span> 14°" in moving
    assert "“pan up” is no move of the camera" in shown(motion_module="mm_tiny_v3.safetensors", camera_motion="pan up")
    assert "cannot be the camera module (camera)" in shown(camera_module="mm_tiny_v3.safetensors")


LANGUAGES = {"ko_KR": "[가-힣]", "ja_JP": "[ぁ-んァ-ヶ一-龯]", "zh_CN": "[一-龯]"}
NOT_TRANSLATED = {"AnimateDiff", "FreeInit"}


def texts_of(component):
    """Returns the visible texts of a component and its tooltip, in the pieces that the WebUI translates."""
    props = component["props"]
    texts = [props.get("label"), props.get("info"), props.get("webui_tooltip")]
    if component["type"] in ("html", "button", "markdown"):
        without_names = re.sub(r"<(code|strong|style)>.*?</\1>", "", html.unescape(props.get("value") or ""))
        texts += re.split(r"<[^>]*>", without_names)
    if component["type"] == "radio":
        texts += [choice[0] if isinstance(choice, list) else choice for choice in props["choices"]]
    return {text.strip() for text in texts if text and re.search("[a-z]", text) and not re.match(r"\s*[\d.]+ s", text)}


def texts_of_the_extension(server):
    components = server.get("/config").json()["components"]
    ours = [part for part in components if re.search(r"-ad-|animatediff", part["props"].get("elem_id") or "")]
    ours += [part for part in components if "ad-heading" in (part["props"].get("elem_classes") or ())]
    script = (REPOSITORY / "javascript" / "animatediff_player.js").read_text()
    said = re.findall(r'textContent: "([^"]+)"', script) + re.findall(r'button\("\w+", "([^"]+)", "([^"]*)"', script)
    said += re.findall(r'(?:button|label)\("([^"]+)"', (REPOSITORY / "javascript" / "animatediff_mask.js").read_text())
    spoken = {text for entry in said for text in ([entry] if isinstance(entry, str) else entry) if re.search("[a-z]", text)}
    sources = {file.stem: file.read_text() for file in (REPOSITORY / "animatediff" / "page").glob("*.py")}
    sources["seams"] = (REPOSITORY / "javascript" / "animatediff_seams.js").read_text()
    notes = {f"({text})" for text in re.findall(r'\.info\(\s*"([^"]+)"', sources["settings_section"])}
    sometimes = set(re.findall(r'(?:<(?:span|b|title)>|gr.Button\(")([^<{"$]+)[<"]', "".join(sources.values())))
    pointed_at = set(re.findall(r"title='([^'{]+)'", sources["timeline"]))
    return set().union(spoken, notes, sometimes, pointed_at, *map(texts_of, ours)) - NOT_TRANSLATED


@pytest.mark.webui_only("the embedded host's page is in English")
def test_every_text_of_the_page_is_translated(host):
    texts = texts_of_the_extension(host)
    assert {"Motion module", "Download", "Frames per second. 0: the speed of the source video, or 8 without one."} <= texts
    for language, letters in LANGUAGES.items():
        translated = json.loads((REPOSITORY / "localizations" / f"{language}.json").read_text(encoding="utf-8"))
        missing = texts - set(translated)
        assert not missing, f"{language} lacks these"
        assert not [text for text in translated.values() if not re.search(letters, text)], f"not in {language}"
