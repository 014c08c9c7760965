"""The table of parameters, and what is made of requests."""

from pathlib import Path

import pytest

from animatediff import infotext
from animatediff.params import (
    FIELDS,
    PANEL_FIELDS,
    Params,
    RequestError,
    as_markdown,
    read_arguments,
    read_mapping,
    schema,
)

DOCS = Path(__file__).parents[2] / "docs" / "parameters.md"


def refusal(**values):
    with pytest.raises(RequestError) as caught:
        read_mapping({"enable": True, **values})
    return str(caught.value)


@pytest.mark.parametrize("arguments", [(), (None,), (False,), ({},), ({"enable": False},), ({"enable": None, "fps": 0},)])
def test_what_asks_for_nothing_is_off(arguments):
    assert read_arguments(arguments) == (Params(), [])


def test_panel_values_come_in_the_order_of_the_table():
    params, warnings = read_arguments((True, "m.ckpt", 12, 10, ["GIF"], 3))
    assert (params.model, params.video_length, params.fps, params.format, params.loop_number) == ("m.ckpt", 12, 10, ("GIF",), 3)
    assert warnings == []
    assert PANEL_FIELDS[0].name == "enable"


def test_a_dictionary_in_the_first_place_is_the_whole_request():
    params, _ = read_arguments(({"enable": True, "video_length": 8}, "ignored.ckpt", 99))
    assert (params.model, params.video_length) == ("mm_sd15_v3.safetensors", 8)


def test_every_key_of_the_established_api_is_accepted_at_its_default():
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
        ({"fps": 0}, ("fps", "0", "at least 1")),
        ({"fps": -8}, ("fps", "-8")),
        ({"fps": 60}, ("fps", "60", "GIF", "50")),
        ({"enable": "yes"}, ("enable", "yes", "true or false")),
        ({"enable": 1}, ("enable", "true or false")),
        ({"format": []}, ("No save format", "GIF")),
        ({"format": ["GIF", "BMP"]}, ("BMP", "unknown")),
        ({"format": 5}, ("format", "list")),
        ({"model": 3}, ("model", "text")),
        ({"closed_loop": "Z"}, ("closed_loop", "R-P")),
        ({"interp": "FILM"}, ("interpolation", "not available yet")),
        ({"freeinit_enable": True}, ("FreeInit", "not available yet")),
        ({"video_path": "/tmp"}, ("Video input", "not available yet")),
        ({"last_frame": "abcd"}, ("last frame", "not available yet")),
        ({"latent_power": 2}, ("latent_power", "not available yet")),
        ({"video_length": 24, "closed_loop": "A"}, ("Context windows", "closed_loop")),
        ({"video_length": 24, "batch_size": 12}, ("Context windows", "batch_size")),
    ],
)
def test_what_cannot_be_met_is_refused_in_words(values, words):
    text = refusal(**values)
    assert all(word in text for word in words), text


def test_all_faults_are_said_at_once():
    text = refusal(fps=0, video_length=-3)
    assert "fps" in text and "video_length" in text


@pytest.mark.parametrize("value", ["gif", "GIF", ["gif"], ("GIF",), ["GIF", "gif"]])
def test_formats_may_be_one_name_or_a_list_in_any_case(value):
    assert read_mapping({"enable": True, "format": value})[0].format == ("GIF",)


@pytest.mark.parametrize("value", [16, 16.0, "16"])
def test_whole_numbers_may_come_as_json_has_them(value):
    assert read_mapping({"enable": True, "video_length": value})[0].video_length == 16


def test_window_settings_that_ask_for_nothing_are_accepted():
    params, _ = read_mapping(
        {"enable": True, "video_length": 8, "batch_size": 8, "closed_loop": "A", "stride": 4, "overlap": 2}
    )
    assert params.video_length == 8


def test_the_schema_and_the_docs_come_from_the_table():
    assert list(schema()["properties"]) == [field.name for field in FIELDS]
    assert schema()["properties"]["fps"] == {
        "description": "Frames shown in a second.", "default": 8, "type": "integer", "minimum": 1,
    }  # fmt: skip
    assert as_markdown() in DOCS.read_text(encoding="utf-8"), "run `python -m animatediff.params` and put it into the page"


def test_infotext_comes_back_as_it_was_written():
    params = Params(enable=True, model="a b.ckpt", video_length=12, fps=10, format=("GIF",), loop_number=2)
    results = {"AnimateDiff": infotext.write(params, "12345678")}
    infotext.expand_pasted("", results)
    assert "AnimateDiff" not in results
    pasted = {field.name: results[f"AnimateDiff {field.name}"] for field in PANEL_FIELDS}
    assert pasted == {
        "enable": "True", "model": "a b.ckpt", "video_length": "12", "fps": "10", "format": "GIF", "loop_number": "2",
    }  # fmt: skip


def test_a_name_with_commas_survives_the_infotext():
    name = "a, enable: False, 50%2C.ckpt"
    results = {"AnimateDiff": infotext.write(Params(enable=True, model=name, video_length=16), None)}
    infotext.expand_pasted("", results)
    assert results["AnimateDiff model"] == name and results["AnimateDiff enable"] == "True"


def test_infotext_says_only_what_differs_but_always_the_module_and_frames():
    text = infotext.write(Params(enable=True, video_length=16), "12345678")
    assert text.startswith("enable: True, model: mm_sd15_v3.safetensors, video_length: 16, mm_hash: 12345678, version: ")
    assert "fps" not in text


def test_pasting_puts_back_what_the_infotext_leaves_out():
    results = {"AnimateDiff": "enable: True, model: m.ckpt, video_length: 16, version: 0.1.0"}
    infotext.expand_pasted("", results)
    assert results["AnimateDiff fps"] == "8" and results["AnimateDiff format"] == "GIF PNG"


def test_the_infotext_of_a_still_turns_the_panel_off():
    results = {"Steps": "20"}
    infotext.expand_pasted("", results)
    assert results["AnimateDiff enable"] == "False"
