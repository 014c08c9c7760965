"""img2img's Batch tab, whose images become the frames of one clip: our function, without a WebUI around it."""

import importlib
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from PIL import Image

from animatediff.errors import AnimateDiffError

ROOT = Path(__file__).resolve().parents[2]
ENABLED = {"enable": True}


@pytest.fixture(scope="module")
def batch():
    """The module, imported with the stand-in WebUI's `modules`."""
    sys.path.insert(0, str(ROOT / "demo" / "host" / "webui"))
    yield importlib.import_module("animatediff.page.batch_tab")
    sys.path.remove(str(ROOT / "demo" / "host" / "webui"))


@pytest.fixture
def page(batch, monkeypatch):
    """A stand-in for the WebUI's module of the tab, with our function in it. It records the calls of its own functions."""
    page = ModuleType("modules.img2img")
    page.looped, page.generated = [], []
    page.process_images = lambda p: page.generated.append(p) or "a clip"
    page.process_batch = lambda *arguments, **named: page.looped.append((arguments, named)) or "pictures"
    monkeypatch.setitem(sys.modules, "modules.img2img", page)
    monkeypatch.setattr(sys.modules["modules"], "img2img", page, raising=False)
    batch.replace_loop()
    return page


@pytest.fixture
def folder(tmp_path):
    """Twelve images, each with its number as red level, and a file that is no image."""
    for number in range(1, 13):
        Image.new("RGB", (64, 48), (number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").write_text("none")
    return tmp_path


def request(of_a_script=None, **values):
    """A request `p` from the page with these values in the panel. `of_a_script`: what the selected script returns."""
    ours = SimpleNamespace(title=lambda: "AnimateDiff", args_from=1, args_to=3)
    other = SimpleNamespace(title=lambda: "Other", args_from=3, args_to=4)
    scripts = SimpleNamespace(alwayson_scripts=[other, ours], run=lambda p, *arguments: of_a_script)
    arguments = (0, {**ENABLED, **values}, None, "other")
    return SimpleNamespace(
        scripts=scripts, script_args=arguments, outpath_samples="theirs", width=64, height=64, image_mask=None
    )


def numbers(p):
    return [picture.getpixel((0, 0))[0] for picture in p.init_images]


def test_all_images_of_a_folder_are_frames_of_one_clip(page, folder):
    p = request()
    assert page.process_batch(p, str(folder), "", "", p.script_args) == "a clip"
    assert numbers(p) == list(range(1, 13)), "in natural order"
    assert page.generated == [p] and page.looped == [] and p.outpath_samples == "theirs"


def test_the_number_of_frames_limits_the_images(page, folder):
    p = request(video_length=5)
    page.process_batch(p, str(folder), " /the/output ", "", p.script_args)
    assert numbers(p) == [1, 2, 3, 4, 5] and p.outpath_samples == "/the/output"


def test_transparent_images_lie_on_the_webuis_background_and_upright(batch, page, tmp_path, monkeypatch):
    monkeypatch.setitem(importlib.import_module("modules.shared").opts.data, "img2img_background_color", "#204060")
    picture = Image.new("RGBA", (32, 16), (0, 255, 0, 0))
    picture.paste((9, 8, 7, 255), (0, 0, 16, 16))
    picture.save(tmp_path / "1.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.convert("RGB").save(tmp_path / "2.jpg", exif=exif)
    (tmp_path / "._1.png").write_bytes(b"left by macOS")
    p = request()
    page.process_batch(p, str(tmp_path), "", "", p.script_args)
    first, second = p.init_images
    assert first.mode == "RGB" and first.getpixel((4, 4)) == (9, 8, 7) and first.getpixel((20, 4)) == (0x20, 0x40, 0x60)
    assert second.size == (16, 32)


def uploaded(folder, number, of="{number}.png"):
    """Returns what gradio makes of an upload: `name` is its copy, `orig_name` what the page sent."""
    (folder / "copy").mkdir(exist_ok=True)
    copy = shutil.copy(folder / f"{number}.png", folder / "copy")
    return SimpleNamespace(name=str(copy), orig_name=str(folder.parent / of.format(number=number)))


def test_uploads_are_frames_in_the_same_order(page, folder, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder.parent))
    p = request()
    files = [uploaded(folder, number, of=f"{folder.name}/{{number}}.png") for number in (10, 2, 9)]
    page.process_batch(p, files, "", "", p.script_args)
    assert numbers(p) == [2, 9, 10]


def test_files_of_the_server_that_were_not_uploaded_are_refused(page, folder, monkeypatch):
    """Gradio has copied them to where uploads are."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    files = [uploaded(folder, 1, of=f"{folder.name}/copy/{{number}}.png"), uploaded(folder, 2, of="elsewhere/{number}.png")]
    with pytest.raises(AnimateDiffError, match="only files that were uploaded on this page"):
        page.process_batch(request(), files, "", "", ())
    assert page.generated == page.looped == []


def test_the_size_of_the_clip_is_that_of_its_images_times_the_scale(page, folder):
    p = request()
    page.process_batch(p, str(folder), "", "", p.script_args, to_scale=True, scale_by=1.5, use_png_info=False, png_info_dir="")
    assert (p.width, p.height) == (96, 72)


def test_one_mask_applies_to_all_frames_and_several_are_refused(batch, page, folder, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    Image.new("L", (64, 48)).save(masks / "a.png")
    p = request()
    page.process_batch(p, str(folder), "", str(masks), p.script_args)
    assert p.image_mask.size == (64, 48)
    Image.new("L", (64, 48)).save(masks / "b.png")
    with pytest.raises(AnimateDiffError, match=r"2 masks in .* one for all frames.*Masks \(mask_path\)"):
        page.process_batch(request(), str(folder), "", str(masks), ())


def test_the_transparency_of_a_mask_is_left_to_the_webui(page, folder, tmp_path):
    """It takes the opaque part as the mask: white on transparent, as painting programs save it."""
    (tmp_path / "masks").mkdir()
    mask = Image.new("RGBA", (64, 48))
    mask.paste((255, 255, 255, 255), (0, 0, 32, 48))
    for name, saved in (("a.png", mask), ("a.png", mask.convert("LA")), ("a.png", mask.quantize())):
        saved.save(tmp_path / "masks" / name)
        p = request(video_length=1)
        page.process_batch(p, str(folder), "", str(tmp_path / "masks"), p.script_args)
        assert p.image_mask.mode == "RGBA"
        assert [p.image_mask.getpixel((x, 5))[3] for x in (5, 60)] == [255, 0]


def test_images_in_folders_of_the_folder_are_frames_too(page, folder):
    (folder / "sub.png").mkdir()
    for name, red in (("sub.png/10.png", 22), ("sub.png/9.png", 21), ("sub.png/.hidden.png", 99)):
        Image.new("RGB", (64, 48), (red, 0, 0)).save(folder / name)
    p = request()
    page.process_batch(p, str(folder), "", "", p.script_args)
    assert numbers(p) == [*range(1, 13), 21, 22]


@pytest.mark.parametrize(
    ("values", "named", "words"),
    [
        ({"video_path": "/videos/a.mp4"}, {}, "source video"),
        ({}, {"use_png_info": True}, "Append png info"),
        ({"video_length": -1}, {}, "at least 0"),
    ],
)
def test_settings_that_a_clip_cannot_follow_are_refused(batch, page, folder, values, named, words):
    with pytest.raises(AnimateDiffError, match=words):
        page.process_batch(request(**values), str(folder), "", "", (), **named)
    assert page.generated == page.looped == []


def test_a_folder_without_images_and_an_unreadable_image_are_refused(batch, page, tmp_path):
    with pytest.raises(AnimateDiffError, match="no images"):
        page.process_batch(request(), str(tmp_path), "", "", ())
    with pytest.raises(AnimateDiffError, match=r"gone cannot be read \(No such file or directory\)\. Correct its path"):
        page.process_batch(request(), str(tmp_path / "gone"), "", "", ())
    (tmp_path / "broken.png").write_text("none")
    with pytest.raises(AnimateDiffError, match=r"broken\.png cannot be read"):
        page.process_batch(request(), str(tmp_path), "", "", ())


def test_a_selected_script_runs_instead(page, folder):
    p = request(of_a_script="a plot")
    assert page.process_batch(p, str(folder), "", "", p.script_args) == "a plot" and page.generated == []


def test_with_animatediff_off_the_webuis_own_function_runs(page, folder):
    p = request(enable=False)
    assert page.process_batch(p, str(folder), "out", "", p.script_args, to_scale=True) == "pictures"
    assert page.looped == [((p, str(folder), "out", "", p.script_args), {"to_scale": True})] and not hasattr(p, "init_images")


def test_the_function_is_replaced_once_and_restored(batch, page):
    ours = page.process_batch
    batch.replace_loop()
    assert page.process_batch is ours
    batch.put_loop_back()
    assert page.process_batch() == "pictures" and page.process_batch is not ours
    batch.put_loop_back()
    assert page.process_batch() == "pictures"


def test_another_extensions_wrapper_around_ours_stays(batch, page, folder):
    ours = page.process_batch
    page.process_batch = theirs = lambda *arguments, **named: ours(*arguments, **named)
    batch.put_loop_back()
    assert page.process_batch is theirs
