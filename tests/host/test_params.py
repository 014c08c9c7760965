"""The table of parameters, reading requests against it, and infotexts."""

import functools
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st
from PIL import Image

from animatediff import __version__ as VERSION
from animatediff.errors import RequestError
from animatediff.request import infotext
from animatediff.request.choices import FORMATS, NO_MODULE
from animatediff.request.frame_pictures import SparseAsked
from animatediff.request.params import (
    FIELDS,
    IMAGE,
    MOST_GIF_FPS,
    PANEL_FIELDS,
    SAVED_FIELDS,
    Params,
    first_value,
    option_of,
    without_img2img,
)
from animatediff.request.reading import KNOWN, read_arguments, read_mapping, with_fps
from animatediff.request.schedules import weights_of_units
from animatediff.request.schema import as_markdown, schema
from animatediff.video.formats import format_problems
from motion_module.families import FAMILIES
from motion_module.pia import CURVES

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs" / "parameters.md"
EMBEDDED_HOST = ROOT / "demo" / "host" / "webui"


def refusal(**values):
    with pytest.raises(RequestError) as caught:
        read_mapping({"enable": True, **values})
    return str(caught.value)


@pytest.mark.parametrize("arguments", [(), (None,), (False,), ({},), ({"enable": False},), ({"enable": None, "fps": -1},)])
def test_requests_without_enable_are_off(arguments):
    assert read_arguments(arguments, {}) == (Params(), [])


def test_panel_values_come_in_the_order_of_the_table():
    params, warnings = read_arguments((True, "m.ckpt", 12, 10, "A", ["GIF"], 8), {})
    assert (params.model, params.video_length, params.fps, params.closed_loop) == ("m.ckpt", 12, 10, "A")
    assert (params.format, params.batch_size) == (("GIF",), 8)
    assert warnings == []
    assert PANEL_FIELDS[0].name == "enable"


def test_a_dictionary_in_the_first_place_is_the_whole_request():
    params, _ = read_arguments(({"enable": True, "video_length": 8}, "ignored.ckpt", 99), {})
    assert (params.model, params.video_length) == ("mm_sd15_v3.safetensors", 8)


def test_every_key_of_sd_webui_animatediff_is_accepted_at_its_default():
    given = {
        "model": "mm_sd15_v3.safetensors", "enable": True, "video_length": 0, "fps": 8, "loop_number": 0, "closed_loop": "R-P",
        "batch_size": 16, "stride": 1, "overlap": -1, "format": ["GIF"], "interp": "Off", "interp_x": 10, "video_source": None,
        "video_path": "", "mask_path": "", "freeinit_enable": False, "freeinit_filter": "butterworth", "freeinit_ds": 0.25,
        "freeinit_dt": 0.25, "freeinit_iters": 3, "latent_power": 1, "latent_scale": 32, "last_frame": None,
        "latent_power_last": 1, "latent_scale_last": 32, "request_id": "", "is_i2i_batch": False, "video_default": False,
        "prompt_scheduler": None, "reverse": [], "use_main_seed": False,
    }  # fmt: skip
    params, warnings = read_mapping(given)
    assert params.enable and warnings == []


def test_unknown_keys_are_warned_about():
    _, warnings = read_mapping({"enable": True, "frame_count": 9})
    assert len(warnings) == 1 and "frame_count" in warnings[0]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"video_length": -1}, ("video_length", "-1", "at least 0")),
        ({"video_length": 2.5}, ("video_length", "2.5", "whole")),
        ({"video_length": "many"}, ("video_length", "many", "number")),
        ({"video_length": True}, ("Number of frames (video_length)", "number")),
        ({"video_length": float("inf")}, ("video_length", "finite")),
        ({"video_length": float("nan")}, ("video_length", "finite")),
        ({"motion_scale": -0.5}, ("Motion scale (motion_scale)", "-0.5", "at least 0")),
        ({"motion_end": 1.5}, ("motion_end", "1.5", "at most 1")),
        ({"motion_start": 0.6, "motion_end": 0.5}, ("motion_start", "0.6", "motion_end", "0.5")),
        ({"motion_rules": "up: faster"}, ("motion_rules", "“up: faster”", "for example")),
        ({"positional_encoding": "longer"}, ("positional_encoding", "longer", "stretch", "extend")),
        ({"family": "v9"}, ("family", "v9", "lightning-4")),
        ({"pia_motion": "huge"}, ("pia_motion", "huge", "large motion")),
        ({"fps": -8}, ("fps", "-8", "at least 0")),
        ({"fps": 60}, ("fps", "60", "GIF", "50", "another format")),
        ({"enable": "maybe"}, ("enable", "maybe", "true or false")),
        ({"enable": 2}, ("enable", "true or false")),
        ({"offload": []}, ("offload", "true or false")),
        ({"format": []}, ("Save format (format) is empty", "GIF")),
        ({"format": ["GIF", "BMP"]}, ("BMP", "unknown")),
        ({"format": 5}, ("format", "list")),
        ({"model": 3}, ("model", "text")),
        ({"closed_loop": "Z"}, ("closed_loop", "R-P")),
        ({"interp": "FILM"}, ("interp", "FILM", "optical flow")),
        ({"interp": " film "}, ("interp", "film", "RIFE")),
        ({"interp": True}, ("interp", "True", "optical flow")),
        ({"closed_loop": "loop"}, ("closed_loop", "loop", "R-P")),
        (
            {"interp": "optical flow", "interp_x": 9},
            (
                "Interpolation factor (interp_x) is 9, which gives 72 frames per second",
                "at 50 at most. Set it to 6 or less, or choose another",
            ),
        ),
        (
            {"interp": "optical flow", "interp_x": 9, "fps": 120, "format": "MP4"},
            ("Interpolation factor (interp_x) is 9, which gives 1080 frames per second", "1000 at most. Set it to 8 or less"),
        ),
        ({"video_length": 10**400}, ("video_length", "finite")),
        ({"fps": "9" * 5000}, ("fps", "finite")),
        ({"fps": 1e-300}, ("fps", "1e-300", "at least 0.02, or 0")),
        ({"model": "\ud800.ckpt"}, ("model", r"\ud800.ckpt", "half a character")),
        ({"unknown": "\ud800"}, ("'unknown' is", r"\ud800", "cannot repeat")),
        ({"unknown": {"a": [1, ["\ud800"]]}}, ("'unknown' is", r"\ud800", "cannot repeat")),
        ({"unknown": [{"\ud800": 1}]}, ("'unknown' is", r"\ud800", "cannot repeat")),
        ({"\ud800": 1}, (r"\ud800' is 1", "cannot repeat")),
        ({"unknown": 10**400}, ("'unknown' is", "cannot repeat")),
        ({"unknown": functools.reduce(lambda inner, _: [inner], range(300))}, ("'unknown' is", "cannot repeat")),
        ({"request_id": "猫" * 67}, ("request_id", "201 bytes", "at most 200")),
        ({"motion_rules": "up: effect 11"}, ("The effect in the motion rule for up is 11", "at most 10")),
        ({"motion_rules": "mid: scale -1"}, ("The scale in the motion rule for mid is -1", "at least 0")),
        ({"motion_rules": f"mid: effect {'9' * 400}"}, ("mid is inf", "at most 10")),
        ({"freeinit_iters": 11}, ("FreeInit iterations", "at most 10")),
        ({"freeinit_filter": "low"}, ("freeinit_filter", "butterworth")),
        ({"last_frame": "abcd"}, ("last_frame", "base64")),
        ({"latent_power": 0}, ("latent_power", "0.1")),
        ({"video_source": "/tmp/a.mp4", "video_path": "/tmp"}, ("video_source", "video_path", "one of them")),
        ({"sparse_ctrl": "s.ckpt", "sparse_frames": "0, x"}, ("sparse_frames", "'x'", "0, 8, -1")),
        ({"sparse_ctrl": "s.ckpt", "sparse_start": 0.5, "sparse_end": 0.5}, ("sparse_start", "sparse_end", "more than")),
        ({"sparse_pictures": ["abcd"]}, ("Pictures (sparse_pictures), picture 1,", "base64")),
        ({"sparse_pictures": 5}, ("picture 1,", "“image”", "“path”", "“frame”")),
        ({"sparse_pictures": [{"frame": 0}]}, ("picture 1,", "“image”")),
        ({"sparse_pictures": [{"path": "/a.png"}, {"path": "/a.png", "frame": 0.5}]}, ("picture 2, has the frame 0.5",)),
        ({"sparse_pictures": [{"path": "/a.png", "image": ""}]}, ("picture 1,", "“path”")),
        ({"sparse_pictures": [{"path": 3}]}, ("picture 1, is 3", "text")),
        ({"sparse_more": [{"sparse_pictures": []}]}, ("sparse_more, entry 1,", "sparse_ctrl")),
        ({"sparse_more": [{"sparse_ctrl": "a.ckpt", "more": 1}]}, ("sparse_more, entry 1,", "sparse_strength")),
        ({"sparse_more": {"sparse_ctrl": "a.ckpt", "sparse_strength": 11}}, ("SparseCtrl strength", "at most 10")),
        ({"sparse_more": {"sparse_ctrl": "a.ckpt", "sparse_start": 1}}, ("sparse_start", "sparse_end")),
        ({"source_stride": 0}, ("source_stride", "at least 1")),
        ({"video_length": 10**12}, ("video_length", "10000")),
        ({"fuse_method": "mean"}, ("fuse_method", "pyramid")),
    ],
)
def test_invalid_values_are_refused_with_a_reason(values, words):
    text = refusal(**values)
    assert all(word in text for word in words), text


def test_all_faults_are_reported_together():
    text = refusal(fps=-1, video_length=-3)
    assert "fps" in text and "video_length" in text


def test_the_schema_and_the_docs_come_from_the_table():
    assert list(schema()["properties"]) == [field.name for field in FIELDS]
    assert schema()["properties"]["fps"] == {
        "description": "Frames per second. 0: the speed of the source video, or 8 without one.",
        "default": 0, "type": "number", "minimum": 0, "maximum": 1000,
    }  # fmt: skip
    assert schema()["properties"]["request_id"]["maxLength"] == 200
    assert as_markdown() in DOCS.read_text(encoding="utf-8"), "put the output of `python -m animatediff.request.schema` there"


# --- infotext ---


def pasted(entry):
    """Returns what the panel gets when an infotext is pasted. `entry`: the AnimateDiff entry; None for a still."""
    results = {"Steps": "20"} if entry is None else {"Steps": "20", "AnimateDiff": entry}
    return {name: read(results) for name, read in infotext.READERS.items()}


RULES = "up_3: scale 1.2", "mid 0.5-1: effect 0.8", "all 0-0.3: scale 2, effect 0.5"
SCHEDULES = [field.name for field in PANEL_FIELDS if option_of(field).is_schedule]
NAMES = st.text(min_size=1).filter(lambda name: name not in NO_MODULE and not set(name) & set("\r\n\0"))
PANELS = st.fixed_dictionaries(
    {
        "model": NAMES,
        "video_length": st.integers(1, 10_000),
        "fps": st.one_of(st.integers(1, MOST_GIF_FPS), st.floats(1, MOST_GIF_FPS)),
        "format": st.lists(st.sampled_from(FORMATS), min_size=1, unique=True),
        "loop_number": st.integers(0, 1000),
        "motion_scale": st.floats(0, 10),
        "motion_effect": st.floats(-10, 10),
        "motion_start": st.floats(0, 0.5, exclude_max=True),
        "motion_end": st.floats(0.5, 1),
        "motion_rules": st.lists(st.sampled_from(RULES)).map("\n".join),
        "positional_encoding": st.sampled_from(["as trained", "stretch", "extend"]),
        "family": st.sampled_from(["auto", *FAMILIES]),
        "model_2": st.one_of(st.just(""), NAMES),
        "model_2_mode": st.sampled_from(["blend", "chain"]),
        "model_2_weight": st.floats(0, 1),
        "camera": st.one_of(st.just(""), NAMES),
        "camera_motion": st.sampled_from(["", "pan left 0.5, tilt up ease", "0: dolly in\n8: zoom out"]),
        "camera_strength": st.floats(0, 10),
        "source_start": st.integers(0, 10_000),
        "source_stride": st.integers(1, 100),
        "source_for_controlnet": st.booleans(),
        "pia_motion": st.sampled_from(list(CURVES)),
        "image_drift": st.floats(0, 10),
        "sparse_ctrl": st.one_of(st.just(""), NAMES),
        "sparse_frames": st.sampled_from(["", "0, 8, -1", "3"]),
        "sparse_init_image": st.booleans(),
        "sparse_strength": st.floats(0, 10),
        "sparse_start": st.floats(0, 0.5, exclude_max=True),
        "sparse_end": st.floats(0.5, 1),
        "batch_size": st.integers(0, 64),
        "overlap": st.integers(-1, 63),
        "stride": st.integers(1, 8),
        "closed_loop": st.sampled_from(["N", "R-P", "R+P", "A"]),
        "prompt_interpolation": st.sampled_from(["slerp", "lerp"]),
        **dict.fromkeys(SCHEDULES, st.sampled_from(["", "0: 1\n8-12: 0.4\n100%: 1", "0: 0.2, 16: 1"])),
        "freeinit_enable": st.booleans(),
        "freeinit_fast": st.booleans(),
        "freeinit_iters": st.integers(1, 10),
        "freeinit_ds": st.floats(0, 1),
        "freeinit_dt": st.floats(0, 1),
        "freeinit_filter": st.sampled_from(["butterworth", "gaussian", "box", "ideal"]),
        "detail": st.sampled_from(["Off", "faces", "upper bodies", "eyes", "box"]),
        "detail_box": st.sampled_from(["", "10, 20, 30, 40"]),
        "detail_most": st.integers(1, 16),
        "detail_confidence": st.floats(0, 1),
        "detail_prompt": st.sampled_from(["", "a face, <lora:x:1>", "0: asleep\n8: awake, 50%"]),
        "detail_negative_prompt": st.sampled_from(["", "blurry, ugly"]),
        "detail_strength": st.floats(0.01, 1),
        "detail_padding": st.floats(0, 2),
        "detail_steps": st.integers(0, 150),
        "detail_cfg": st.floats(0, 100),
        "detail_size": st.sampled_from([0, 64, 512, 2048]),
        "detail_controlnet": st.booleans(),
        "speed": st.sampled_from(["Exact", "Fast", "Fast (deep blocks)", "Fast (negative prompt)"]),
        "speed_every": st.integers(2, 10),
        "interp": st.just("Off"),
        "interp_x": st.integers(1, 30),
        "noise_type": st.sampled_from(["per frame", "constant", "mixed", "repeated context", "FreeNoise"]),
        "noise_share": st.floats(0, 1),
        "context_mode": st.sampled_from(["whole UNet", "motion attention"]),
        "context_schedule": st.sampled_from(["uniform", "static"]),
        "fuse_method": st.sampled_from(["pyramid", "flat", "overlap-linear"]),
        "image_mode": st.sampled_from(["blend with noise", "strength ramp"]),
        "ramp_length": st.floats(0, 1),
        "first_frame_attention": st.floats(0, 1),
        "offload": st.booleans(),
        **{f"latent_{name}": st.floats(0.1, 100) for name in ("power", "scale", "power_last", "scale_last")},
    }
)


SAMPLE_PANEL = find(PANELS, lambda _: True)


def test_every_parameter_of_the_panel_is_in_the_round_trip():
    sample = {"enable", *SAMPLE_PANEL}
    assert {field.name for field in SAVED_FIELDS} == sample, "add the new one to PANELS"


@settings(deadline=None)  # of a busy machine
@given(PANELS)
def test_any_panel_comes_back_from_its_infotext(panel):
    panel = {**panel, "format": [name for name in panel["format"] if name not in format_problems()] or ["GIF"]}
    params, _ = read_arguments([{"enable": True, **panel}], {})
    again = pasted(infotext.write(params, "12345678"))
    assert again == {"enable": True, **panel}
    assert read_mapping(again) == (params, [])


def test_infotext_has_only_what_differs_and_always_the_module_and_frames():
    text = infotext.write(Params(enable=True, video_length=16, video_delivery="url"), "12345678")
    assert text == f"enable: True, model: mm_sd15_v3.safetensors, video_length: 16, mm_hash: 12345678, version: {VERSION}"


def test_the_infotext_names_a_source_without_its_folder_and_it_is_not_pasted():
    params = Params(enable=True, video_length=4, fps=12.5, video_source="/home/me/secret/a, b.mp4", source_start=3)
    text = infotext.write(params, None)
    assert "video_source: a%2C b.mp4, source_start: 3," in text and "fps: 12.5," in text and "secret" not in text
    again = pasted(text)
    assert again["source_start"] == 3 and "video_source" not in again and "video_path" not in again


def test_a_whole_number_of_fps_is_written_without_a_fraction():
    assert "fps: 12," in infotext.write(read_mapping({"enable": True, "fps": 12})[0], None)


def test_fps_left_out_is_8_unless_a_source_may_give_it():
    assert read_mapping({"enable": True})[0].fps == 8
    open_still, _ = read_mapping({"enable": True, "video_source": "a.mp4"})
    assert (open_still.fps, with_fps(open_still, 12.5).fps, with_fps(open_still).fps) == (0, 12.5, 8)
    with pytest.raises(RequestError, match=r"60, but players show a GIF at 50"):
        with_fps(open_still, 60)


def test_frame_interpolation_works_with_the_first_values_of_the_panel():
    shown = {field.name: first_value(field) for field in PANEL_FIELDS}
    params, _ = read_mapping({**shown, "enable": True, "interp": "optical flow"})
    assert "GIF" in params.format and params.shown_fps == 24


def test_pasting_puts_back_what_the_infotext_leaves_out():
    panel = pasted("enable: True, model: m.ckpt, video_length: 16, version: 0.1.0")
    assert panel["fps"] == 0 and panel["format"] == ["GIF", "PNG"]


def test_invalid_text_is_pasted_as_the_default():
    assert pasted("model: m.ckpt, fps: many, format: BMP GIF")["fps"] == 0


def test_the_infotext_of_a_still_turns_the_panel_off_and_leaves_the_rest():
    assert pasted(None) == {field.name: False if field.name == "enable" else None for field in SAVED_FIELDS}


OLD_REST = "loop_number: 1, closed_loop: R-P, batch_size: 4, stride: 1, overlap: 1, interp: Off, interp_x: 10"
OLD = {
    "v1.13.1": f"enable: True, model: mm_sd15_v2.safetensors, video_length: 4, fps: 12, {OLD_REST}",
    "v2.0.1": f"model: mm_sd15_v3.safetensors, video_length: 4, fps: 12, {OLD_REST}, freeinit_enable: False",
}
"""Infotexts that sd-webui-animatediff wrote in a live WebUI for 4 frames at 12 FPS, played once; v2 writes no `enable`."""


@pytest.mark.parametrize("end", ["", ", mm_hash: 69ed0f5f", ", mm_hash: 69ed0f5f, version: v2.0.1-a"])
@pytest.mark.parametrize("version", OLD)
def test_infotexts_of_sd_webui_animatediff_can_be_pasted(version, end):
    model = {"v1.13.1": "mm_sd15_v2.safetensors", "v2.0.1": "mm_sd15_v3.safetensors"}[version]
    said = {"enable": True, "model": model, "video_length": 4, "fps": 12, "format": ["GIF", "PNG"], "loop_number": 1}
    said |= {"interp": "Off", "interp_x": 10, "closed_loop": "R-P", "batch_size": 4, "stride": 1, "overlap": 1}
    defaults = {field.name: field.default for field in SAVED_FIELDS}
    assert pasted(OLD[version] + end) == {**defaults, **said}


def test_png_info_has_one_entry_for_each_control():
    results = {"AnimateDiff": OLD["v1.13.1"]}
    infotext.expand_pasted("", results)
    assert results["AnimateDiff enable"] == "True" and results["AnimateDiff fps"] == "12"
    assert results["AnimateDiff format"] == "GIF PNG"


def test_axes_of_a_plot_override_panel_and_dictionary():
    assert read_arguments([False, "m.ckpt", 12], {"enable": True, "fps": 3})[0].fps == 3
    assert read_arguments([{"enable": True, "fps": 5}], {"fps": 3})[0].fps == 3
    assert read_arguments([{"enable": True}], {"enable": False}) == (Params(), [])


# --- names before the renaming ---

OLD_NAMES = (
    "enable: True, model: m.ckpt, video_length: 48, window_mode: share attention, window_order: shifting, window_fusion: flat, "
    "noise_mode: repeated window, image_mode: strength of each frame, image_reach: 0.5, anchor: 0.25, positions: stretch, "
    "model_2: n.ckpt, mix: chain, mix_share: 0.75, family: as found"
)
NEW_VALUES = {
    "enable": True, "model": "m.ckpt", "video_length": 48, "context_mode": "motion attention", "context_schedule": "uniform",
    "fuse_method": "flat", "noise_type": "repeated context", "image_mode": "strength ramp", "ramp_length": 0.5,
    "first_frame_attention": 0.25, "positional_encoding": "stretch", "model_2": "n.ckpt", "model_2_mode": "chain",
    "model_2_weight": 0.75, "family": "auto",
}  # fmt: skip
DEFAULTS = {field.name: list(field.default) if field.name == "format" else field.default for field in SAVED_FIELDS}


def test_infotexts_with_old_names_fill_the_panel_of_today():
    assert pasted(OLD_NAMES) == {**DEFAULTS, **NEW_VALUES}


def test_presets_with_old_names_fill_the_panel_of_today(monkeypatch):
    monkeypatch.syspath_prepend(str(EMBEDDED_HOST))
    presets = importlib.import_module("animatediff.page.presets")
    old = dict(entry.split(": ") for entry in OLD_NAMES.split(", "))
    preset = {**old, "video_length": 48, "image_reach": 0.5, "anchor": 0.25, "mix_share": 0.75}
    monkeypatch.setattr(presets.json_store, "read", lambda _name: {"mine": preset})
    loaded = dict(zip([field.name for field in presets.FIELDS], presets.load("mine")))
    assert {"enable": True, **loaded} == {**DEFAULTS, **NEW_VALUES}


def test_the_preset_with_sparse_ctrl_puts_its_adapter_into_the_prompt_once(monkeypatch):
    monkeypatch.syspath_prepend(str(EMBEDDED_HOST))
    presets = importlib.import_module("animatediff.page.presets")
    monkeypatch.setattr(presets.json_store, "read", lambda _name: {"mine": {}})
    once = presets.with_adapter(presets.IMAGE_TO_VIDEO, "a cat")
    assert once == "a cat <lora:v3_sd15_adapter:1>" == presets.with_adapter(presets.IMAGE_TO_VIDEO, once)
    assert presets.with_adapter(presets.IMAGE_TO_VIDEO, "<lora:v3_sd15_adapter:0.8>") == "<lora:v3_sd15_adapter:0.8>"
    assert presets.with_adapter("mine", "a cat") == presets.with_adapter(None, "a cat") == "a cat"


# --- parameters without effect ---

LONG = {"video_length": 48, "batch_size": 16}
EFFECTIVE = [
    (("overlap", "stride", "fuse_method", "context_schedule", "context_mode"), {"video_length": 16, "batch_size": 16}, LONG),
    (("offload",), LONG, {**LONG, "context_mode": "motion attention"}),
    (("closed_loop",), {"video_length": 16, "batch_size": 16}, LONG),
    (("noise_share",), {"noise_type": "constant"}, {"noise_type": "mixed"}),
    (("noise_type",), {"noise_type": "FreeNoise"}, {**LONG, "noise_type": "FreeNoise"}),
    (("interp_x",), {"interp": "Off"}, {"interp": "optical flow"}),
    (("interp", "loop_number"), {"format": ("PNG", "Frame")}, {"format": ("PNG", "WEBM")}),
    (("video_delivery",), {"format": ("GIF", "PNG")}, {"format": ("GIF", "MP4")}),
    (("freeinit_enable",), {"freeinit_iters": 1}, {"freeinit_iters": 2}),
    (
        ("freeinit_fast", "freeinit_iters", "freeinit_filter", "freeinit_ds", "freeinit_dt"),
        {"freeinit_enable": False},
        {"freeinit_enable": True},
    ),
    (
        ("detail_prompt", "detail_negative_prompt", "detail_strength", "detail_padding", "detail_steps", "detail_cfg"),
        {"detail": "Off"},
        {"detail": "box"},
    ),
    (("detail_size", "detail_controlnet"), {"detail": "Off"}, {"detail": "eyes"}),
    (("detail_most", "detail_confidence"), {"detail": "box"}, {"detail": "faces"}),
    (("detail_box",), {"detail": "faces"}, {"detail": "box"}),
    (("model_2_mode", "model_2_weight"), {"model_2": ""}, {"model_2": "n.ckpt"}),
    (("camera_strength", "camera_motion", "camera_poses"), {}, {"camera": "c.ckpt"}),
    (("speed_every",), {"speed": "Exact"}, {"speed": "Fast"}),
    (
        ("sparse_pictures", "sparse_frames", "sparse_init_image", "sparse_strength", "sparse_start", "sparse_end"),
        {"sparse_ctrl": ""},
        {"sparse_ctrl": "s.ckpt"},
    ),
    (("sparse_strength_frames",), {}, {"sparse_more": (SparseAsked("s.ckpt"),)}),
    (("pia_motion",), {"family": "v3"}, {"family": "pia"}),
    (("image_drift",), {"family": "lcm"}, {"family": "lcm-i2v"}),
    (("image_mode",), {"family": "pia"}, {"family": "v3"}),
    (("image_mode",), {"family": "lcm-i2v"}, {"family": "v3"}),
    (("source_start", "source_stride", "source_for_controlnet"), {}, {"video_path": "/frames"}),
    (("latent_power", "latent_scale"), {"image_mode": "strength ramp"}, {"image_mode": "blend with noise"}),
    (("latent_power_last", "latent_scale_last"), {}, {"last_frame": Image.new("RGB", (8, 8))}),
    (("ramp_length",), {"image_mode": "strength ramp", "video_source": "a.mp4"}, {"image_mode": "strength ramp"}),
]
"""Names, a request in which these parameters have no effect, and one in which they have one."""
IN_IMG2IMG = "denoising_strength_frames"


@pytest.mark.parametrize(("names", "without", "with_effect"), EFFECTIVE, ids=[names[0] for names, *_ in EFFECTIVE])
def test_the_table_says_when_a_parameter_has_an_effect(names, without, with_effect):
    for field in FIELDS:
        if field.name in names:
            needs = option_of(field).needs
            assert (needs.met_by(Params(**without), 1), needs.met_by(Params(**with_effect), 1)) == (False, True)


@pytest.mark.parametrize("images", [0, 4])
def test_what_acts_on_one_image_has_no_effect_on_none_or_several(images):
    of_image = [field.name for field in FIELDS if option_of(field).group is IMAGE and option_of(field).needs]
    acting = {"last_frame": Image.new("RGB", (8, 8))}
    for mode in ("strength ramp", "blend with noise"):
        params = Params(image_mode=mode, **acting)
        met = {name for name in of_image if option_of(KNOWN[name]).needs.met_by(params, images)}
        assert met == set(), mode


@pytest.mark.parametrize(("loop", "has_effect"), [("N", True), ("R-P", False), ("R+P", True), ("A", True)])
def test_only_r_p_has_no_effect_in_one_window(loop, has_effect):
    params = Params(closed_loop=loop, video_length=16, batch_size=16)
    assert option_of(KNOWN["closed_loop"]).needs.met_by(params, 0) == has_effect


@pytest.mark.parametrize(("images", "has_effect"), [(0, False), (1, True), (4, True)])
def test_denoising_strengths_of_frames_need_images(images, has_effect):
    assert option_of(KNOWN[IN_IMG2IMG]).needs.met_by(Params(), images) == has_effect
    without = without_img2img(Params(**{IN_IMG2IMG: "0: 1", "cfg_scale_frames": "0: 5"}))
    assert (without.denoising_strength_frames, without.cfg_scale_frames) == ("", "0: 5")


def test_a_schedule_may_be_for_one_unit_of_controlnet():
    text = "0: 1\n3: 0\nUnit 2: 0: 0.5\nunit 0\n1: 2, 2: 4"
    weights = weights_of_units(Params(controlnet_frames=text), 4)
    assert weights == {None: pytest.approx((1, 2 / 3, 1 / 3, 0)), 2: (0.5,) * 4, 0: (2, 2, 4, 4)}
    assert weights_of_units(Params(controlnet_frames="unit 1: 0: 3"), 2) == {1: (3, 3)}
    assert weights_of_units(Params(), 4) == {}
    with pytest.raises(RequestError, match=r"\(controlnet_frames\): “unit 1” is there twice. Write its keyframes below one"):
        weights_of_units(Params(controlnet_frames="unit 1: 0: 1\nunit 0: 0: 2\nunit 01: 0: 0.5"), 4)
    for wrong in ("unit 1: 0: 11", "unit 1: 4: 1", "unit x: 0: 1"):
        with pytest.raises(RequestError, match=r"ControlNet weight per frame \(controlnet_frames\)"):
            weights_of_units(Params(controlnet_frames=wrong), 4)


def test_empty_lines_cost_no_time():
    began = perf_counter()
    assert weights_of_units(Params(controlnet_frames="\n" * 60_000 + "0: 1"), 2) == {None: (1, 1)}
    assert perf_counter() - began < 2


def test_every_condition_of_the_table_is_tested_and_in_the_docs():
    conditional = {field.name for field in FIELDS if option_of(field).needs}
    assert conditional == {IN_IMG2IMG, *(name for names, *_ in EFFECTIVE for name in names)}
    assert "Has an effect only if Noise type (noise_type) is “mixed”." in schema()["properties"]["noise_share"]["description"]


@pytest.mark.parametrize("module", ["animatediff.settings", "animatediff.job.advice"])
def test_a_generation_reads_settings_and_advice_without_gradio(module):
    code = f"import sys, {module}; sys.exit('gradio' in sys.modules)"
    folders = os.pathsep.join(str(folder) for folder in (ROOT, EMBEDDED_HOST))
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": folders}, check=False).returncode == 0


@pytest.mark.parametrize("language", ["ja_JP", "ko_KR", "zh_CN"])
def test_labels_and_tooltips_are_translated(language):
    """The texts of buttons and notices are read from the page of a WebUI, in `test_page.py`."""
    translated = json.loads((ROOT / "localizations" / f"{language}.json").read_text(encoding="utf-8"))
    options = [option_of(field) for field in PANEL_FIELDS if field.name != "enable"]
    texts = {text for option in options for text in (option.label, option.full_help) if text}
    assert not texts - set(translated) - {"FPS", "FreeInit"}
