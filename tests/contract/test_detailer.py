"""Subjects of a finished clip are made again: on drawn faces, which the probe puts into the place of a clip's frames."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from animatediff.detailer.boxes import Box, around
from support.animation import animate, files_of, frames_of, info_of, recording, stopped_while
from support.drawn_faces import clip
from support.pictures import encode, mean_difference
from support.server import HOSTS, PROBE, REPOSITORY

FRAMES, SIZE = 6, (128, 96)
PADDING = 0.25
TINY = {"detail_size": 64, "detail_strength": 0.6, "detail_padding": PADDING}
NOTES = "AnimateDiff detail"


def large(part):
    return Box(10 + 25 * part, 15, 45, 55)


def small(part):
    return Box(85 - 5 * part, 45 - 15 * part, 34, 40)


def boxes(path, frames=FRAMES):
    return [path(number / (frames - 1)) for number in range(frames)]


PATHS = {"one": [large], "two": [large, small]}
BOX = ", ".join(map(str, large(0)))


@pytest.fixture(scope="module")
def drawn():
    return {name: clip(paths, FRAMES, SIZE) for name, paths in PATHS.items()}


@contextmanager
def in_place_of_the_frames(host, pictures):
    host.post("/probe/v1/other-frames", {"pictures": [encode(picture) for picture in pictures]}).raise_for_status()
    try:
        yield
    finally:
        host.post("/probe/v1/other-frames", {"pictures": []}).raise_for_status()


@pytest.fixture
def ask(host, drawn):
    """Asks for a clip whose frames are drawn. Returns the answer."""

    def asked(name="one", request=None, **args):
        with in_place_of_the_frames(host, drawn[name]):
            return host.txt2img(
                **animate(**{"video_length": len(drawn[name]), **TINY, **args}), **{"steps": 2, **(request or {})}
            )

    return asked


def warnings_of(answer):
    return info_of(answer)["extra_generation_params"].get("AnimateDiff warnings", [])


def notes_of(answer):
    return info_of(answer)["extra_generation_params"].get(NOTES, [])


def beyond(paths, frames=FRAMES, slack=15):
    """Returns which pixels are outside of the padded boxes, `(frames, height, width)`. `slack`: of a detector's boxes."""
    columns, rows = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    outside = np.ones((frames, *SIZE[::-1]), bool)
    for path in paths:
        for number, box in enumerate(boxes(path, frames)):
            x, y, width, height = around(box.centre, box.width * (1 + 2 * PADDING), box.height * (1 + 2 * PADDING))
            inside = (columns > x - slack) & (columns < x + width + slack) & (rows > y - slack) & (rows < y + height + slack)
            outside[number] &= ~inside
    return outside


def test_faces_are_made_again_and_all_else_is_equal_to_the_bit(ask, drawn):
    answer = ask(detail="faces")
    frames = frames_of(answer)
    changed = (frames != drawn["one"]).any(axis=-1)
    assert not changed[beyond([large])].any()
    assert all(frame.mean() > 0.1 for frame in changed)
    assert notes_of(answer) == [f"AnimateDiff: Faces were found in {FRAMES} of {FRAMES} frames, 1 track."]
    assert warnings_of(answer) == []


def test_the_same_request_makes_the_same_bits(ask):
    first, again = (frames_of(ask(detail="faces")) for _ in range(2))
    assert np.array_equal(first, again)
    assert mean_difference(first, frames_of(ask(detail="faces", request={"seed": 2}))) > 0.5


def test_off_nothing_changes(ask, drawn):
    answer = ask(detail="Off", detail_prompt="a face")
    assert np.array_equal(frames_of(answer), drawn["one"])
    assert NOTES not in info_of(answer)["extra_generation_params"]
    assert any("Detail prompt (detail_prompt) is a face, which has an effect only if" in text for text in warnings_of(answer))


def test_off_a_generated_clip_is_what_it_is_without_the_parameter(host):
    assert np.array_equal(frames_of(host.txt2img(**animate(detail="Off"))), frames_of(host.txt2img(**animate())))


def test_the_motion_module_acts_on_the_subject(ask):
    with_motion, without = (frames_of(ask(detail="faces", motion_effect=effect)) for effect in (1, 0))
    assert mean_difference(with_motion, without) > 1


@pytest.mark.parametrize(
    "change",
    [
        {"detail_prompt": "a dog"},
        {"detail_negative_prompt": "a dog"},
        {"detail_strength": 0.3},
        {"detail_steps": 6},
        {"detail_cfg": 15},
        {"detail_size": 128},
        {"detail_padding": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_setting_of_a_subject_has_an_effect(ask, change):
    assert mean_difference(frames_of(ask(detail="faces")), frames_of(ask(**{"detail": "faces", **change}))) > 0.1


def test_the_prompt_of_a_subject_may_have_loras(ask, host):
    plain, motion = (frames_of(ask(detail="faces", detail_prompt=prompt)) for prompt in ("a", "a <lora:lora_tiny:1>"))
    assert mean_difference(plain, motion) > 0.1


def test_the_largest_come_first(ask, drawn):
    answer = ask("two", detail="faces", detail_most=1)
    assert notes_of(answer) == [
        f"AnimateDiff: Faces were found in {FRAMES} of {FRAMES} frames, 2 tracks, of which the largest 1 were detailed."
    ]
    one = frames_of(answer)
    assert not (one != drawn["two"]).any(axis=-1)[beyond([large])].any()
    both = (frames_of(ask("two", detail="faces")) != drawn["two"]).any(axis=-1)
    assert not both[beyond([large, small])].any()
    assert both[~beyond([small], slack=-15)].any()


def test_a_box_is_followed(ask, drawn):
    answer = ask(detail="box", detail_box=BOX)
    changed = (frames_of(answer) != drawn["one"]).any(axis=-1)
    assert not changed[beyond([large], slack=3)].any() and changed[~beyond([large], slack=-20)].mean() > 0.5
    assert notes_of(answer) == [f"AnimateDiff: The subject in the box was followed through {FRAMES} of {FRAMES} frames."]


def test_each_video_is_detailed_with_noise_of_its_own(ask, drawn):
    frames = frames_of(ask(detail="box", detail_box=BOX, request={"n_iter": 2}))
    assert len(frames) == 2 * FRAMES
    first, second = frames[:FRAMES], frames[FRAMES:]
    assert (first != drawn["one"]).any() and mean_difference(first, second) > 0.5


def test_a_long_subject_is_made_in_windows(host):
    frames = clip([large], 20, SIZE)
    with in_place_of_the_frames(host, frames), recording(host) as record:
        args = {**TINY, "detail": "box", "detail_box": BOX, "batch_size": 8, "video_length": 20}
        frames_of(host.txt2img(**animate(**args), steps=2))
    whole, subject = record["sampler_runs"]
    assert all(len(step["unet_calls"]) > 1 for run in (whole, subject) for step in run["denoiser_calls"])


def test_saved_frames_are_the_detailed_ones(ask, host, drawn):
    """Also where the WebUI would have saved its own before."""
    request = {"save_images": True, "override_settings": {"animatediff_save_to_custom": False}}
    answer = ask(detail="box", detail_box=BOX, format=["PNG", "Frame"], request=request)
    files = [Path(file) for file in info_of(answer)["extra_generation_params"]["AnimateDiff files"]]
    saved = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    assert np.array_equal(saved, frames_of(answer)) and not np.array_equal(saved, drawn["one"])


def test_the_gif_is_made_of_the_detailed_frames(ask, drawn):
    (gif,) = files_of(ask(detail="box", detail_box=BOX, format=["GIF"]))
    gif.seek(FRAMES - 1)
    last = np.asarray(gif.convert("RGB"))
    detailed = frames_of(ask(detail="box", detail_box=BOX))[-1]
    assert mean_difference(last, detailed) < mean_difference(last, drawn["one"][-1]) / 2


# --- what cannot be ---


def test_without_a_subject_the_clip_comes_as_it_is(host):
    empty = np.full((FRAMES, *SIZE[::-1], 3), 90, np.uint8)
    with in_place_of_the_frames(host, empty):
        answer = host.txt2img(**animate(video_length=FRAMES, detail="faces", **TINY), steps=1)
    assert np.array_equal(frames_of(answer), empty)
    (text,) = warnings_of(answer)
    assert "Faces were found in none of 6 frames" in text and "detail_confidence" in text


def test_a_face_on_one_frame_is_taken_for_an_error(host, drawn):
    frames = np.full((FRAMES, *SIZE[::-1], 3), 90, np.uint8)
    frames[3] = drawn["one"][3]
    with in_place_of_the_frames(host, frames):
        answer = host.txt2img(**animate(video_length=FRAMES, detail="faces", **TINY), steps=1)
    assert np.array_equal(frames_of(answer), frames)
    assert "found in 1 of 6 frames only" in warnings_of(answer)[0]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"detail": "hands"}, ("Detail (detail)", "hands", "faces, upper bodies, eyes, box, or the name of a .pt file")),
        ({"detail": "box"}, ("Box on the first frame (detail_box)", "x, y, width and height")),
        ({"detail": "box", "detail_box": "1, 2, 3"}, ("detail_box", "1, 2, 3")),
        ({"detail": "box", "detail_box": "1, 2, 0, 9"}, ("detail_box",)),
        ({"detail": "faces", "detail_size": 32}, ("detail_size", "at least 64, or 0")),
    ],
)
def test_what_cannot_be_is_refused_before_any_step(host, args, words):
    with recording(host) as record:
        answer = host.txt2img(**animate(**args))
    assert answer.status_code == 422 and record["sampler_runs"] == []
    assert all(word in answer.json()["detail"] for word in words), answer.json()["detail"]


@pytest.fixture
def damaged_detectors(host):
    folder = host.data_dir / "models" / "adetailer"
    folder.mkdir(parents=True)
    for name in ("face.pt", "hand.pt"):
        (folder / name).write_text("<!DOCTYPE html><html>not found</html>")
    yield
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("name", "words"), [("face.pt", "face.pt is a web page"), ("../face.pt", "those that are there: face.pt, hand.pt, faces,")]
)
@pytest.mark.usefixtures("damaged_detectors")
def test_detectors_in_files_are_those_of_adetailer(host, name, words):
    answer = host.txt2img(**animate(detail=name))
    assert answer.status_code == 422 and words in answer.json()["detail"], answer.json()["detail"]


def test_a_box_larger_than_the_frame_is_the_frame(ask, drawn):
    frames = frames_of(ask(detail="box", detail_box="-50, -50, 900, 900"))
    assert frames.shape == drawn["one"].shape and (frames != drawn["one"]).any(axis=-1).mean() > 0.8


def test_a_box_outside_of_the_frame_changes_nothing(ask, drawn):
    answer = ask(detail="box", detail_box="900, 900, 40, 40")
    assert np.array_equal(frames_of(answer), drawn["one"])
    assert "outside" in warnings_of(answer)[0]


@pytest.mark.parametrize("how", ["interrupt", "skip"])
@pytest.mark.parametrize("words", ["looking for what to detail", "detailing face 1 of 1, step"])
def test_an_interrupt_leaves_the_frames_as_they_were(host, ask, drawn, words, how):
    answer = stopped_while(host, words, lambda: ask(detail="faces", detail_steps=60), how)
    assert np.array_equal(frames_of(answer), drawn["one"])
    assert "was interrupted, so the frames are as they were" in warnings_of(answer)[0]
    assert host.get("/animatediff/v1/unfinished").json() == []


def test_an_error_in_a_subject_leaves_the_frames_as_they_were(host, ask, drawn):
    host.post("/probe/v1/fault", {"step": 3})
    answer = ask(detail="faces")
    assert np.array_equal(frames_of(answer), drawn["one"])
    assert "could not detail the subjects, so the frames are as they were generated" in warnings_of(answer)[0]


def test_afterwards_the_host_is_as_it_was(host, ask):
    before, state = frames_of(host.txt2img()), host.get("/probe/v1/state").json()
    frames_of(ask(detail="faces"))
    assert np.array_equal(frames_of(host.txt2img()), before)
    assert host.get("/probe/v1/state").json() == state


# --- ControlNet ---


@pytest.fixture(scope="module")
def controlled(start_host, drawn):
    """Asks a host, whose ControlNet is a stand-in, for a clip of drawn frames with these units."""
    stand_in = REPOSITORY / "tests" / "support" / "stand_in_controlnet"
    server = start_host(HOSTS["embedded"], extensions=[REPOSITORY, PROBE, stand_in])
    pictures = [encode(picture) for picture in drawn["one"]]

    def frames(*units, **args):
        request = animate(**{"video_length": FRAMES, **TINY, "detail": "box", "detail_box": BOX, **args})
        request["alwayson_scripts"]["ControlNet"] = {"args": [{"enabled": True, "model": "x", **unit} for unit in units]}
        with server.settings(control_net_no_detectmap=True), in_place_of_the_frames(server, drawn["one"]):
            return frames_of(server.img2img(**request, steps=2, init_images=pictures))

    return frames


UNIT = {"module": "none", "weight": 5.0}


def test_controlnet_does_not_act_on_a_subject(controlled):
    assert np.array_equal(controlled(UNIT), controlled())


def test_if_asked_for_a_unit_takes_the_pictures_of_the_subject(controlled):
    assert mean_difference(controlled(UNIT, detail_controlnet=True), controlled()) > 0.5


def test_a_unit_with_a_picture_of_its_own_does_not_act_on_a_subject(controlled, drawn):
    own = {**UNIT, "image": encode(drawn["one"][0])}
    assert np.array_equal(controlled(own, detail_controlnet=True), controlled())
