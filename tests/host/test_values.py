"""One value of a request: its bounds, and the ways in which programs write it."""

import base64
import random
from io import BytesIO

import pytest
from PIL import Image

from animatediff.errors import RequestError
from animatediff.request.params import FIELDS, LEAST_FPS, MOST_FPS, MOST_GIF_FPS, option_of
from animatediff.request.reading import KNOWN, read_mapping
from animatediff.video.clip import Clip, Quality
from animatediff.video.formats import VIDEO_FORMATS


def refusal(**values):
    with pytest.raises(RequestError) as caught:
        read_mapping({"enable": True, **values})
    return str(caught.value)


# --- bounds: each at, below and above ---

NUMBERS = [field for field in FIELDS if str(field.type) in ("int", "float")]
TEXTS = [field for field in FIELDS if str(field.type) == "str" and not option_of(field).choices]
EMPTY_RANGE = {"motion_start": 1, "motion_end": 0}


@pytest.mark.parametrize("field", NUMBERS, ids=lambda field: field.name)
def test_every_number_has_bounds(field):
    """In an MP4 every number of frames per second is possible."""
    option, step = option_of(field), 1 if str(field.type) == "int" else 1e-6
    for value in {option.minimum, option.maximum} - {EMPTY_RANGE.get(field.name)}:
        assert getattr(read_mapping({"enable": True, "format": "MP4", field.name: value})[0], field.name) == value
    if option.zero_is_auto:
        assert read_mapping({"enable": True, "format": "MP4", field.name: 0})[0]
    just_outside = option.minimum - step, option.maximum + step
    for value in (*just_outside, -1e12, 1e12, 1e30, -1e308, 10**400, float("nan"), float("inf")):
        assert field.name in refusal(format="MP4", **{field.name: value})


@pytest.mark.parametrize("field", TEXTS, ids=lambda field: field.name)
def test_every_text_has_a_length(field):
    longest = option_of(field).longest
    fitting = ";" * longest if field.name == "motion_rules" else "é" * (longest // 2)
    assert getattr(read_mapping({"enable": True, field.name: fitting})[0], field.name) == fitting
    for value in (fitting + "é", "x" * 10**6, "a\ud800b"):
        text = refusal(**{field.name: value})
        assert field.name in text and len(text) < 400 and text.encode()


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_half_a_character_is_refused_everywhere(field):
    """The WebUI's answer repeats a request, also values that were taken as others, and cannot have half a character in it."""
    assert field.name in refusal(**{field.name: "\ud800"})


def test_an_error_is_short_and_can_be_sent_whatever_was_given():
    deep: list = []
    for _ in range(900):
        deep = [deep]
    values = ("x" * 10**6, "\ud800", 10**5000, ["a"] * 10**6, {"a": "b" * 10**6}, deep, True, [], {}, object())
    for field in FIELDS:
        for value in values:
            try:
                read_mapping({"enable": True, field.name: value})
            except RequestError as error:
                assert len(str(error)) < 600 and str(error).encode()
    (warning,) = read_mapping({"enable": True, **{f"\n{number}" * 100: 0 for number in range(1000)}})[1]
    assert (
        len(warning) < 1500
        and warning.encode()
        and warning.endswith("…; they were ignored. Correct their names, or leave them out.")
    )


def test_the_bounds_are_those_of_the_encoders():
    frames = [Image.new("RGB", (16, 16), (40 * number, 0, 0)) for number in range(4)]
    plays = int(option_of(KNOWN["loop_number"]).maximum)
    for name, video_format in VIDEO_FORMATS.items():
        for fps in (LEAST_FPS, MOST_GIF_FPS if name == "GIF" else MOST_FPS):
            file = BytesIO(video_format.encode(Clip(frames, fps, plays), Quality()))
            if video_format.is_picture:
                assert Image.open(file).n_frames == 4 and Image.open(file).info["loop"] == plays - (name == "GIF")
    with pytest.raises(Exception, match="65535"):
        VIDEO_FORMATS["APNG"].encode(Clip(frames, LEAST_FPS / 2), Quality())
    with pytest.raises(RuntimeError, match="WebP"):
        VIDEO_FORMATS["WEBP"].encode(Clip(frames, 8, plays + 1), Quality())


# --- what working programs send ---


@pytest.mark.parametrize("value", ["gif", "GIF", ["gif"], ("GIF",), ["GIF", "gif"], " gif "])
def test_formats_may_be_one_name_or_a_list_in_any_case(value):
    assert read_mapping({"enable": True, "format": value})[0].format == ("GIF",)


@pytest.mark.parametrize("value", [16, 16.0, "16", " 16 ", "16.0"])
def test_whole_numbers_may_come_as_json_has_them(value):
    assert read_mapping({"enable": True, "video_length": value})[0].video_length == 16


@pytest.mark.parametrize("value", [True, 1, 1.0, "true", "True", " TRUE ", "1"])
def test_true_may_be_written_in_other_ways(value):
    params, warnings = read_mapping({"enable": value, "offload": value})
    assert params.enable and params.offload and warnings == []


@pytest.mark.parametrize("value", [False, 0, 0.0, "false", "False", "0"])
def test_false_may_be_written_in_other_ways(value):
    assert not read_mapping({"enable": True, "offload": value})[0].offload
    assert not read_mapping({"enable": value})[0].enable


@pytest.mark.parametrize("value", ["NO", "no", "off", " OFF ", "None", "false", "", False, 0, "linear", "nearest x2"])
def test_every_word_for_off_and_every_unknown_one_switches_interpolation_off_with_a_warning(value):
    params, (warning,) = read_mapping({"enable": True, "interp": value})
    assert params.interp == "Off"
    assert f"Frame interpolation (interp) is {value!r}, which was taken as Off." in warning
    assert warning.endswith("The other choices are optical flow, RIFE.")


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("closed_loop", "None", "N"),
        ("closed_loop", "off", "N"),
        ("closed_loop", False, "N"),
        ("closed_loop", "r+p", "R+P"),
        ("closed_loop", " a", "A"),
        ("interp", "Optical Flow ", "optical flow"),
        ("noise_type", "freenoise", "FreeNoise"),
        ("family", "V3", "v3"),
    ],
)
def test_choices_in_another_case_are_taken_with_a_warning(name, value, meant):
    params, (warning,) = read_mapping({"enable": True, name: value})
    assert getattr(params, name) == meant and f"{value!r}, which was taken as {meant}." in warning


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_null_is_the_default(field):
    assert read_mapping({"enable": True, field.name: None})[0] == read_mapping({"enable": field.name != "enable"})[0]


@pytest.mark.parametrize(
    ("asked", "factor"),
    [
        ({}, 6),
        ({"interp_x": 10}, 6),
        ({"interp_x": 3}, 3),
        ({"fps": 50}, 1),
        ({"fps": 3}, 10),
        ({"format": ["MP4"]}, 10),
        ({"format": ["MP4"], "fps": 120}, 8),
        ({"format": ["MP4", "GIF"]}, 6),
        ({"format": ["MP4"], "interp_x": 30}, 30),
    ],
)
def test_the_default_factor_is_lowered_to_what_a_gif_can_play(asked, factor):
    params, _ = read_mapping({"enable": True, "interp": "optical flow", **asked})
    assert (params.factor, params.shown_fps) == (factor, params.fps * factor)
    assert read_mapping({"enable": True, **asked})[0].factor == 1


# --- the last frame ---


def in_base64(picture, format, **options):
    buffer = BytesIO()
    picture.save(buffer, format, **options)
    return base64.b64encode(buffer.getvalue()).decode()


PICTURE = Image.effect_noise((24, 16), 90).convert("RGB")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_a_last_frame_comes_in_any_common_format(format):
    text = in_base64(PICTURE, format)
    wrapped = "\n".join(text[at : at + 76] for at in range(0, len(text), 76))
    for sent in (text, wrapped, f"data:image/{format.lower()};base64,{text}"):
        assert read_mapping({"enable": True, "last_frame": sent})[0].last_frame.size == (24, 16)


@pytest.mark.parametrize("format", ["EPS", "TIFF", "PPM", "ICO", "DDS", "TGA", "PCX"])
def test_other_formats_are_left_to_nobody(format):
    text = refusal(last_frame=in_base64(PICTURE, format))
    assert text.endswith("Use one of these formats, in requests as base64: PNG, JPEG, WEBP, GIF, BMP.")


def broken_pictures():
    """Returns pictures cut off or changed at many places, each of which makes another decoder fail in another way."""
    chance = random.Random(7)
    for name in ("PNG", "JPEG", "WEBP", "GIF", "BMP"):
        whole = base64.b64decode(in_base64(PICTURE, name))
        for _ in range(40):
            cut = bytearray(whole[: chance.randrange(1, len(whole))])
            for _ in range(chance.randrange(4)):
                cut[chance.randrange(len(cut))] = chance.randrange(256)
            yield base64.b64encode(cut).decode()


def test_a_broken_last_frame_never_raises_anything_else():
    refused = 0
    for text in broken_pictures():
        try:
            read_mapping({"enable": True, "last_frame": text})
        except RequestError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("size", [(8193, 1), (1, 8193)])
def test_a_last_frame_has_a_largest_size(size):
    assert "8193" in refusal(last_frame=in_base64(Image.new("1", size), "PNG"))
    fitting = tuple(side - (side > 1) for side in size)
    assert read_mapping({"enable": True, "last_frame": in_base64(Image.new("1", fitting), "PNG")})[0].last_frame.size == fitting


def test_a_last_frame_has_a_largest_number_of_bytes():
    assert "64 MB" in refusal(last_frame="A" * 86_000_000)
