"""The ControlNet built into Forge, reForge and Forge Neo: each frame of a clip is the still that its own picture gives."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from support import control_models
from support.animation import animate, frames_of, info_of, stopped_while
from support.pictures import encode
from support.server import PROBE, REPOSITORY

pytestmark = [
    pytest.mark.webui_only("it has no ControlNet of its own"),
    pytest.mark.not_on(("AUTOMATIC1111",), "it has no ControlNet of its own"),
]
FRAMES = 4
UNRELATED = 10
"""Levels of 255, of the largest difference between pictures: what another hint changes at least."""
CONTROLNET = {"model": "control_tiny_random"}
LLLITE = {"model": "lllite_tiny_random", "weight": 2.0}
HIRES = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "None", "denoising_strength": 0.7}


@pytest.fixture(scope="module")
def pictures():
    """Pictures of coloured squares that have nothing to do with each other."""
    random = np.random.default_rng(3)
    squares = random.integers(0, 255, (24, 8, 8, 3), dtype=np.uint8)
    return [np.asarray(Image.fromarray(square).resize((64, 64), Image.Resampling.NEAREST)) for square in squares]


@pytest.fixture(scope="module")
def folder(pictures, tmp_path_factory):
    """The same pictures as files; the first four of them; the first two of them."""
    folder = tmp_path_factory.mktemp("controlnet")
    for name, count in {"all": len(pictures), "four": FRAMES, "two": 2}.items():
        (folder / name).mkdir()
        for index, picture in enumerate(pictures[:count]):
            Image.fromarray(picture).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def controlnet(start_host, weights, folder):
    """A WebUI with random control models, and the tiny checkpoint."""
    models = weights / "control"
    control_models.make_all(models)
    control_models.make_narrow(models)
    options = {"animatediff_source_folders": str(folder), "control_net_models_path": str(models)}
    return start_host(extensions=[REPOSITORY, PROBE], options=options)


def unit(**settings):
    """Returns an enabled unit as requests to sd-webui-controlnet have it."""
    return {"enabled": True, "module": "none", "model": "t2iadapter_tiny_random", "weight": 1.0, **settings}


def in_folder(text, **settings):
    return unit(input_mode="batch", batch_images=text, **settings)


def clip(units, **args):
    """Returns the part of a request that asks for a clip whose frames have the same noise, and do not influence each other."""
    request = animate(**{"motion_effect": 0, "noise_type": "constant", "video_length": FRAMES, **args})
    request["alwayson_scripts"]["controlnet"] = {"args": units}
    return request


def stills(make, pictures, units, frames=FRAMES, seed=5, **settings):
    """Returns the first frames as stills: clips of one frame, whose units have that frame's picture."""
    made = []
    for picture in pictures[:frames]:
        request = clip([{**one, "image": encode(picture)} for one in units], video_length=1)
        made.append(frames_of(make(**{**request, "steps": 3, "seed": seed, **settings}))[0])
    return np.stack(made)


def largest_difference(frames, others):
    """Returns for each frame the largest difference in levels of 255."""
    return np.abs(frames.astype(int) - others.astype(int)).max(axis=(1, 2, 3))


def require_own_hints(frames, alone):
    """Each frame is its still, and none is that of another."""
    assert largest_difference(frames[: len(alone)], alone).max() <= 1
    assert largest_difference(frames[1 : len(alone)], alone[:-1]).min() >= UNRELATED


# --- each frame has its own hint ---


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="together"),
        pytest.param({"prompt": "a cat AND a dog"}, id="AND"),
        pytest.param({"s_min_uncond": 100}, id="skipped uncond"),
        pytest.param(HIRES, id="hires"),
    ],
)
def test_each_frame_has_its_own_hint(controlnet, folder, pictures, settings):
    request = clip([unit()], video_path=str(folder / "all"))
    frames = frames_of(controlnet.txt2img(**{**request, "steps": 3, "seed": 5, **settings}))
    require_own_hints(frames, stills(controlnet.txt2img, pictures, [unit()], **settings))


@pytest.mark.parametrize(
    "windows", [{}, {"batch_size": 2, "overlap": 1}, {"batch_size": 2, "context_mode": "motion attention"}]
)
@pytest.mark.parametrize("schedule", ["0: 1, 2: 0, 3: 1", "unit 0: 0: 1, 2: 0, 3: 1"])
def test_each_frame_has_its_own_weight(controlnet, folder, windows, schedule):
    def frames(units, **more):
        request = clip(units, video_path=str(folder / "all"), **windows, **more)
        return frames_of(controlnet.txt2img(**request, steps=3, seed=5))

    whole, half, without = (frames([unit(weight=weight)]) for weight in (1.0, 0.5, 0.0))
    weighted = frames([unit()], controlnet_frames=schedule)
    expected = np.stack([whole[0], half[1], without[2], whole[3]])
    assert largest_difference(weighted, expected).max() <= 1
    assert largest_difference(whole, without).min() >= UNRELATED


@pytest.mark.parametrize("mode", ["whole UNet", "motion attention"])
@pytest.mark.parametrize("loop", ["N", "A"])
def test_rows_of_windows_have_the_hints_of_their_frames(controlnet, folder, pictures, mode, loop):
    windows = {"video_length": 10, "batch_size": 4, "stride": 2, "closed_loop": loop, "context_mode": mode}
    request = clip([unit()], video_path=str(folder / "all"), **windows)
    frames = frames_of(controlnet.txt2img(**request, steps=3, seed=5))
    assert len(frames) == 10
    require_own_hints(frames, stills(controlnet.txt2img, pictures, [unit()], frames=10))


@pytest.mark.parametrize(
    "windows", [{}, {"batch_size": 2, "overlap": 1}, {"batch_size": 2, "context_mode": "motion attention"}]
)
def test_a_controlnet_follows_frames(controlnet, folder, pictures, windows):
    """In windows over the whole UNet it runs over some rows at a time."""
    request = clip([unit(**CONTROLNET)], video_path=str(folder / "all"), video_length=7, **windows)
    frames = frames_of(controlnet.txt2img(**request, steps=3, seed=5))
    require_own_hints(frames, stills(controlnet.txt2img, pictures, [unit(**CONTROLNET)], frames=7))


@pytest.mark.parametrize("windows", [{}, {"batch_size": 2, "context_mode": "motion attention"}])
def test_a_control_lllite_follows_frames(controlnet, folder, pictures, windows):
    request = clip([unit(**LLLITE)], video_path=str(folder / "all"), **windows)
    frames = frames_of(controlnet.txt2img(**request, steps=3, seed=5))
    require_own_hints(frames, stills(controlnet.txt2img, pictures, [unit(**LLLITE)]))


@pytest.mark.parametrize("windows", [{}, {"batch_size": 2, "context_mode": "motion attention"}])
def test_each_frame_has_its_own_reference(controlnet, folder, pictures, windows):
    """ControlNet adds other noise to each, so it is not that of the still: another picture of one frame changes that frame.

    Its weight says how many channels layers have at least in which it acts.
    """
    (folder / "third").mkdir(exist_ok=True)
    made = []
    for third in (2, 9):
        for index in range(FRAMES):
            Image.fromarray(pictures[third if index == 2 else index]).save(folder / "third" / f"{index}.png")
        request = clip([in_folder(str(folder / "third"), module="reference_only", model="None", weight=1.2)], **windows)
        made.append(frames_of(controlnet.txt2img(**request, steps=3, seed=5)))
    difference = largest_difference(*made)
    assert difference[2] >= 3 * max(1, *difference[[0, 1, 3]])


def test_two_units_and_two_videos(controlnet, folder, pictures):
    units = [unit(), unit(weight=0.5, control_mode="My prompt is more important")]
    request = clip(units, video_path=str(folder / "all"))
    frames = frames_of(controlnet.txt2img(**request, steps=3, seed=5, n_iter=2))
    require_own_hints(frames[:FRAMES], stills(controlnet.txt2img, pictures, units))
    require_own_hints(frames[FRAMES:], stills(controlnet.txt2img, pictures, units, seed=5 + FRAMES))


def test_black_pictures_and_empty_texts_are_no_drawings(controlnet, folder, pictures):
    """The library webuiapi sends empty texts. In place of a black picture, ControlNet looks for a drawing on it."""
    (folder / "black").mkdir(exist_ok=True)
    for index, picture in enumerate((pictures[0], np.zeros_like(pictures[0]))):
        Image.fromarray(picture).save(folder / "black" / f"{index}.png")
    request = clip([unit(image="", mask=None)], video_path=str(folder / "black"), video_length=2)
    first, second = frames_of(controlnet.txt2img(**request, steps=3, seed=5))
    dark = stills(controlnet.txt2img, [np.full_like(pictures[0], 6)], [unit()])[0]  # the darkest that it does not take for one
    alone = stills(controlnet.txt2img, pictures[:1], [unit()])[0]
    assert largest_difference(first[None], alone[None]).max() <= 1
    assert largest_difference(second[None], dark[None]).max() < UNRELATED <= largest_difference(second[None], alone[None]).max()


def test_a_unit_with_a_picture_keeps_it(controlnet, pictures):
    frames = frames_of(controlnet.txt2img(**clip([unit(image=encode(pictures[7]))]), steps=3, seed=5))
    alone = stills(controlnet.txt2img, [pictures[7]] * FRAMES, [unit()])
    assert largest_difference(frames, alone).max() <= 1


def test_img2img_drives_units_with_its_frames(controlnet, folder, pictures):
    settings = {"steps": 4, "seed": 5, "denoising_strength": 0.75}
    request = clip([unit()], video_path=str(folder / "all"))
    frames = frames_of(controlnet.img2img(**request, **settings, init_images=[]))
    alone = []
    for picture in pictures[:FRAMES]:
        answer = controlnet.img2img(**clip([unit()], video_length=1), **settings, init_images=[encode(picture)])
        alone.append(frames_of(answer)[0])
    require_own_hints(frames, np.stack(alone))


def test_in_img2img_the_source_can_drive_controlnet_alone(controlnet, folder, pictures):
    start = {"init_images": [encode(pictures[20])], "denoising_strength": 0.75}
    request = clip([unit()], video_path=str(folder / "all"), source_for_controlnet=True)
    frames = frames_of(controlnet.img2img(**request, **start, steps=4, seed=5))
    require_own_hints(frames, stills(controlnet.img2img, pictures, [unit()], **start, steps=4))


# --- folders, keyframes and masks ---


def test_a_folder_drives_a_unit_and_tells_the_length(controlnet, folder, pictures):
    request = clip([in_folder(str(folder / "four"))], video_length=0)
    frames = frames_of(controlnet.txt2img(**request, steps=3, seed=5))
    assert len(frames) == FRAMES
    require_own_hints(frames, stills(controlnet.txt2img, pictures, [unit()]))


def test_frames_between_keyframes_are_free(controlnet, folder, pictures):
    """Beside a unit with one picture, which acts on all frames."""
    other = unit(weight=0.3, image=encode(pictures[9]))
    request = clip([other, in_folder(f"{folder / 'two'}\nkeyframe:0,2")])
    frames = frames_of(controlnet.txt2img(**request, steps=3, seed=5))
    free = frames_of(controlnet.txt2img(**clip([other]), steps=3, seed=5))
    at_keyframes = []
    for picture in pictures[:2]:
        both = clip([other, unit(image=encode(picture))], video_length=1)
        at_keyframes.append(frames_of(controlnet.txt2img(**both, steps=3, seed=5))[0])
    assert largest_difference(frames[1::2], free[1::2]).max() <= 1
    assert largest_difference(frames[::2], np.stack(at_keyframes)).max() <= 1
    assert largest_difference(frames[::2], free[::2]).min() >= UNRELATED


@pytest.mark.not_on(("reForge",), "its ControlNet leaves out masks that weigh where a unit acts")
def test_a_unit_takes_the_mask_of_each_frame(controlnet, folder, pictures):
    """This ControlNet acts where the mask is white."""
    masks = [np.where(picture > 127, 255, 0).astype(np.uint8) for picture in pictures[FRAMES : 2 * FRAMES]]
    (folder / "masks").mkdir(exist_ok=True)
    alone = []
    for index, mask in enumerate(masks):
        Image.fromarray(mask).save(folder / "masks" / f"{index}.png")
        request = clip([unit(image=encode(pictures[index]), mask=encode(mask))], video_length=1)
        alone.append(frames_of(controlnet.txt2img(**request, steps=3, seed=5))[0])
    request = clip([in_folder(f"{folder / 'four'}\nmask:{folder / 'masks'}")])
    frames = frames_of(controlnet.txt2img(**request, steps=3, seed=5))
    require_own_hints(frames, np.stack(alone))
    assert largest_difference(frames, stills(controlnet.txt2img, pictures, [unit()])).min() >= UNRELATED


# --- maps ---


def test_maps_are_a_video_of_their_own(controlnet, folder, pictures):
    request = clip([unit()], video_path=str(folder / "all"), format=["GIF", "Frame"])
    answer = controlnet.txt2img(**request, steps=1)
    images = answer.json()["images"]
    assert len(images) == 2 + FRAMES
    (facts,) = info_of(answer)["extra_generation_params"]["AnimateDiff maps"]
    assert facts == {"unit": "controlnet0", "pictures": [1]}
    with Image.open(io.BytesIO(base64.b64decode(images[1]))) as maps:
        assert maps.n_frames == FRAMES
        shown = np.asarray(maps.convert("RGB"))
    assert np.abs(shown.astype(int) - pictures[0].astype(int)).mean() < 20  # a GIF has 256 colours


def test_with_hires_fix_the_maps_are_those_of_the_second_pass(controlnet, folder, pictures):
    units = [unit(), unit(image=encode(pictures[7]), weight=0.1)]
    answer = controlnet.txt2img(**clip(units, video_path=str(folder / "all"), format=["GIF"]), **HIRES, steps=1)
    sizes = []
    for text in answer.json()["images"]:
        with Image.open(io.BytesIO(base64.b64decode(text))) as animation:
            sizes.append((animation.size, getattr(animation, "n_frames", 1)))
    assert sizes == [((96, 96), FRAMES), ((96, 96), FRAMES), ((96, 96), 1)]


def test_maps_are_left_out_where_controlnets_setting_says_so(controlnet, folder):
    request = clip([unit()], video_path=str(folder / "all"), format=["GIF"])
    with controlnet.settings(control_net_no_detectmap=True):
        assert len(controlnet.txt2img(**request, steps=1).json()["images"]) == 1


# --- what cannot be done ---


@pytest.mark.parametrize(
    ("units", "args", "parts"),
    [
        ([unit()], {}, ("unit 0 (None) has no picture", "source video")),
        ([unit(enabled=False), in_folder("")], {}, ("unit 1", "no picture")),
        ([in_folder("{four}\nkeyframe:0,9,10,11")], {}, ("unit 0", "frame 9", "Number of frames (video_length)")),
        ([in_folder("/etc")], {}, ("folder of ControlNet unit 0", "lies outside")),
        ([unit(model="nothing")], {"video_path": "{all}"}, ("unit 0", "'nothing'", "list")),
        ([unit(model="None")], {"video_path": "{all}"}, ("unit 0", "no model")),
        ([unit(module="nothing")], {"video_path": "{all}"}, ("unit 0", "preprocessor 'nothing'")),
        ([unit(module="tile_colorfix")], {"video_path": "{all}"}, ("unit 0 (tile_colorfix)", "one image at a time")),
        ([unit(module="inpaint_only")], {"video_path": "{all}"}, ("unit 0 (inpaint_only)", "one picture for all frames")),
        ([unit(**LLLITE)], {"video_path": "{all}", "batch_size": 2}, ("unit 0", "context windows", "motion attention")),
        (
            [unit(module="reference_only", model="None")],
            {"video_path": "{all}", "batch_size": 2},
            ("unit 0 (reference_only)", "context windows", "motion attention"),
        ),
        (
            [in_folder("{four}\nkeyframe:0,1,2,3", module="reference_only", model="None")],
            {},
            ("unit 0 (reference_only)", "some frames"),
        ),
    ],
)
def test_what_cannot_be_done_is_said(controlnet, folder, units, args, parts):
    with_paths = lambda text: text.replace("{four}", str(folder / "four")).replace("{all}", str(folder / "all"))  # noqa: E731
    filled = json.loads(with_paths(json.dumps({"units": units, "args": args})))
    answer = controlnet.txt2img(**clip(filled["units"], **filled["args"]), steps=1)
    assert answer.status_code == 422, answer.text
    assert all(part in answer.json()["detail"] for part in parts), answer.json()["detail"]


def test_interrupt_while_frames_are_prepared_leaves_nothing(controlnet, folder):
    plain = frames_of(controlnet.txt2img(steps=2))
    request = clip([unit(module="canny", processor_res=2048)], video_path=str(folder / "all"), video_length=24)
    answer = stopped_while(controlnet, "ControlNet: frame", lambda: controlnet.txt2img(**request, steps=20))
    assert answer.status_code == 422, answer.text[:300]
    assert "interrupted at frame" in answer.json()["detail"]
    np.testing.assert_array_equal(frames_of(controlnet.txt2img(steps=2)), plain)


# --- afterwards ---


@pytest.mark.parametrize("tab", ["txt2img", "img2img"])
def test_after_an_exception_everything_is_as_before(controlnet, folder, pictures, tab):
    start = {"init_images": [encode(pictures[20])], "denoising_strength": 0.75} if tab == "img2img" else {}
    request = {**clip([unit()], video_path=str(folder / "all"), source_for_controlnet=True, batch_size=2), **start}
    make = getattr(controlnet, tab)
    plain, before = frames_of(controlnet.txt2img(steps=2)), frames_of(make(**request, steps=3))
    state = controlnet.get("/probe/v1/state").json()
    controlnet.post("/probe/v1/fault", {"step": 2}).raise_for_status()
    assert make(**request, steps=3).status_code == 500
    np.testing.assert_array_equal(frames_of(controlnet.txt2img(steps=2)), plain)
    assert controlnet.get("/probe/v1/state").json() == state
    np.testing.assert_array_equal(frames_of(make(**request, steps=3)), before)


def test_without_animatediff_units_of_a_batch_are_as_before(controlnet, folder, pictures):
    """A picture by ControlNet alone, before and after a clip that follows a source."""
    names = [name for name in controlnet.get("/controlnet/model_list").json()["model_list"] if "t2iadapter_tiny" in name]
    alone = {"controlnet": {"args": [unit(module="None", model=names[0], image=encode(pictures[3]))]}}
    before = controlnet.txt2img(alwayson_scripts=alone, steps=2, batch_size=2).json()["images"]
    frames_of(controlnet.txt2img(**clip([unit()], video_path=str(folder / "all")), steps=2))
    assert controlnet.txt2img(alwayson_scripts=alone, steps=2, batch_size=2).json()["images"] == before
