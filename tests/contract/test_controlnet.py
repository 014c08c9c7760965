"""ControlNet in clips: each frame is the still that its own picture gives.

In the live WebUI with sd-webui-controlnet itself, on the embedded host with a stand-in for it.
"""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from support import control_models
from support.animation import LONG, animate, frames_of, info_of, stopped_while, text_of_refusal
from support.authors_sparse import sparse_weights
from support.browser import MINUTES, choose, choose_formats, file_of, generate, gif_in_gallery, open_panel, set_number
from support.control_models import controlnet_dir
from support.pictures import decode, encode
from support.server import PROBE, REPOSITORY

STAND_IN = REPOSITORY / "tests" / "support" / "stand_in_controlnet"
FRAMES = 4
LONG_CLIP = 40
LLLITE = {"model": "lllite_tiny_random", "weight": 2.0}
IP_ADAPTER = {"module": "ip-adapter_clip_h", "model": "ip-adapter_tiny_random", "weight": 2.0}
ADAPTER = {"model": "t2iadapter_tiny_random"}
UNRELATED = 10
"""Levels of 255, of the largest difference between pictures: what another hint changes at least."""


REAL = pytest.mark.webui_only("the stand-in for ControlNet does not have it")


def only_real(*values, id=None):
    """A case that the stand-in does not have."""
    return pytest.param(*values, id=id, marks=REAL)


@pytest.fixture(scope="module")
def pictures():
    """One picture for each frame, of coloured squares that have nothing to do with each other."""
    random = np.random.default_rng(3)
    squares = random.integers(0, 255, (LONG_CLIP, 8, 8, 3), dtype=np.uint8)
    return [np.asarray(Image.fromarray(square).resize((64, 64), Image.Resampling.NEAREST)) for square in squares]


@pytest.fixture(scope="module")
def folder(pictures, tmp_path_factory):
    """The same pictures as files; masks of them; the first four of them."""
    folder = tmp_path_factory.mktemp("controlnet")
    for index, picture in enumerate(pictures):
        for name in ("all", *(["four"] if index < FRAMES else ())):
            (folder / name).mkdir(exist_ok=True)
            Image.fromarray(picture).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def controlnet(start_host, weights, folder, request):
    """A host with ControlNet, random control models, and the tiny checkpoint."""
    options = {"animatediff_source_folders": str(folder)}
    if request.config.getoption("--host") == "embedded":
        return start_host(extensions=[REPOSITORY, PROBE, STAND_IN], options=options)
    if controlnet_dir() is None:
        pytest.skip("there is no sd-webui-controlnet for the live tests: set CONTROLNET_DIR")
    models = weights / "control"
    control_models.make_all(models)
    options |= {
        "control_net_models_path": str(models),
        "control_net_modules_path": str(models / "annotators"),
        "control_net_unit_count": 3,
        "control_net_model_cache_size": 4,
    }
    return start_host(extensions=[REPOSITORY, PROBE, controlnet_dir()], options=options)


@pytest.fixture(scope="module")
def large(start_host, weights, folder):
    """A WebUI with ControlNet and the checkpoint sd15, which is slow: most of ControlNet's models have its widths only."""
    if controlnet_dir() is None:
        pytest.skip("there is no sd-webui-controlnet for the live tests: set CONTROLNET_DIR")
    models = weights / "control"
    control_models.make_all(models)
    control_models.make_sparse(models)
    options = {
        "animatediff_source_folders": str(folder),
        "control_net_models_path": str(models),
        "control_net_model_cache_size": 1,
        "sd_model_checkpoint": "sd15.safetensors",
    }
    return start_host(extensions=[REPOSITORY, PROBE, controlnet_dir()], options=options)


def unit(**settings):
    """Returns an enabled unit as an API request has it."""
    return {"enabled": True, "module": "none", "weight": 1.0, **ADAPTER, **settings}


def with_units(request, *units):
    request["alwayson_scripts"]["controlnet"] = {"args": list(units)}
    return request


def clip(units, **args):
    """Returns the part of a request that asks for a clip whose frames have the same noise, and do not influence each other."""
    return with_units(animate(**{"motion_effect": 0, "noise_type": "constant", "video_length": FRAMES, **args}), *units)


def stills(make, pictures, units, seed=5, model="mm_tiny_v3.safetensors", frames=FRAMES, **settings):
    """Returns the first frames as stills: clips of one frame, whose units have that frame's picture."""
    made = []
    for picture in pictures[:frames]:
        request = clip([{**one, "image": encode(picture)} for one in units], video_length=1, model=model)
        made.append(frames_of(make(**{**request, "steps": 3, "seed": seed, **settings}))[0])
    return np.stack(made)


def largest_difference(frames, others):
    """Returns for each frame the largest difference in levels of 255."""
    return np.abs(frames.astype(int) - others.astype(int)).max(axis=(1, 2, 3))


def require_own_hints(frames, alone, within=1):
    """Each frame is its still, and none is that of another. `within`: levels of 255."""
    assert largest_difference(frames[: len(alone)], alone).max() <= within
    assert largest_difference(frames[1 : len(alone)], alone[:-1]).min() >= UNRELATED


# --- each frame has its own hint ---


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="together"),
        pytest.param({"negative_prompt": LONG}, id="conditions apart"),
        pytest.param({"prompt": "a cat AND a dog"}, id="AND"),
        only_real({"s_min_uncond": 100}, id="skipped uncond"),
        only_real({"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent", "denoising_strength": 0.7}, id="hires"),
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


def test_weights_of_a_unit_that_is_not_enabled_are_refused(controlnet, folder):
    request = clip([unit()], video_path=str(folder / "all"), controlnet_frames="unit 1: 0: 1")
    text = text_of_refusal(controlnet.txt2img(**request, steps=1))
    assert "names unit 1, but the enabled units are 0." in text


@REAL
@pytest.mark.parametrize("windows", [{}, {"batch_size": 2}, {"batch_size": 2, "context_mode": "motion attention"}])
def test_a_control_lllite_follows_frames(controlnet, folder, pictures, windows):
    request = clip([unit(**LLLITE)], video_path=str(folder / "all"), **windows)
    frames = frames_of(controlnet.txt2img(**request, steps=3, seed=5))
    require_own_hints(frames, stills(controlnet.txt2img, pictures, [unit(**LLLITE)]))


@REAL
@pytest.mark.parametrize("windows", [{}, {"batch_size": 2, "overlap": 1}], ids=["one window", "windows"])
@pytest.mark.parametrize("module", ["recolor_luminance", "recolor_intensity"])
def test_frames_keep_the_light_of_their_own_pictures(controlnet, folder, pictures, module, windows):
    """ControlNet cuts to bytes, then converts colours: one level more or less becomes up to three."""
    request = clip([unit(module=module)], video_path=str(folder / "all"), **windows)
    frames = frames_of(controlnet.txt2img(**request, steps=3, seed=5))
    require_own_hints(frames, stills(controlnet.txt2img, pictures, [unit(module=module)]), within=3)


@pytest.fixture
def same_noise(controlnet):
    """ControlNet adds noise to the pictures of reference units, and draws it unseeded."""
    controlnet.post("/probe/v1/same-noise", {"on": True}).raise_for_status()
    yield
    controlnet.post("/probe/v1/same-noise", {"on": False}).raise_for_status()


@REAL
@pytest.mark.parametrize(
    ("module", "settings"),
    [
        ("reference_only", {}),
        ("reference_only", {"batch_size": 2, "overlap": 1}),
        ("reference_only", {"batch_size": 2, "overlap": 1, "context_mode": "motion attention"}),
        ("reference_adain", {}),
        ("reference_adain+attn", {}),
    ],
)
@pytest.mark.usefixtures("same_noise")
def test_each_frame_has_its_own_reference(controlnet, folder, pictures, module, settings):
    """In img2img, where little noise hides the pictures of the units."""
    one = unit(module=module, model="None")
    start = {"init_images": [encode(pictures[20])], "denoising_strength": 0.4, "steps": 8, "seed": 5}
    unchanged = {"image_mode": "strength ramp", "ramp_length": 0, "source_for_controlnet": True}
    request = clip([one], video_path=str(folder / "all"), **unchanged, **settings)
    require_own_hints(frames_of(controlnet.img2img(**request, **start)), stills(controlnet.img2img, pictures, [one], **start))


@REAL
def test_reference_units_draw_the_same_noise_for_a_frame_in_every_window(controlnet, pictures):
    """With one picture for all frames, which is encoded once: the VAE's noise comes from the same generator."""
    one = unit(module="reference_only", model="None", image=encode(pictures[20]))
    request = clip([one], video_length=10)
    made = {}
    for mode in ("whole UNet", "motion attention"):
        request["alwayson_scripts"]["AnimateDiff"]["args"][0] |= {"batch_size": 4, "overlap": 1, "context_mode": mode}
        made[mode] = frames_of(controlnet.txt2img(**request, steps=3, seed=5))
    assert largest_difference(*made.values()).max() <= 1
    without = frames_of(controlnet.txt2img(**with_units(request), steps=3, seed=5))
    assert largest_difference(made["whole UNet"], without).min() >= UNRELATED


@REAL
@pytest.mark.parametrize(
    "settings",
    [{"model": "control_lora_sd15_random"}, {"model": "control_union_sd15_random", "union_control_type": "Depth"}],
    ids=["Control-LoRA", "union"],
)
def test_kinds_of_controlnets_follow_frames(large, folder, pictures, settings):
    module = {"model": "mm_sd15_v3.safetensors"}
    plain = frames_of(large.txt2img(steps=1))
    request = clip([unit(**settings)], video_path=str(folder / "all"), video_length=2, **module)
    frames = frames_of(large.txt2img(**request, steps=2, seed=5))
    require_own_hints(frames, stills(large.txt2img, pictures[:2], [unit(**settings)], **module, steps=2))
    np.testing.assert_array_equal(frames_of(large.txt2img(steps=1)), plain)


@pytest.mark.parametrize("mode", ["whole UNet", "motion attention"])
@pytest.mark.parametrize("loop", ["N", "A"])
def test_rows_of_windows_have_the_hints_of_their_frames(controlnet, folder, pictures, mode, loop):
    windows = {"video_length": 10, "batch_size": 4, "stride": 2, "closed_loop": loop, "context_mode": mode}
    request = clip([unit()], video_path=str(folder / "all"), **windows)
    frames = frames_of(controlnet.txt2img(**request, steps=3, seed=5))
    assert len(frames) == 10
    require_own_hints(frames, stills(controlnet.txt2img, pictures, [unit()]))


@pytest.fixture(scope="module")
def long_alone(controlnet, pictures):
    return stills(controlnet.txt2img, pictures, [unit()], frames=LONG_CLIP)


@pytest.mark.parametrize("mode", ["whole UNet", "motion attention"])
def test_every_frame_of_a_long_clip_has_its_own_hint(controlnet, folder, long_alone, mode):
    request = clip([unit()], video_path=str(folder / "all"), video_length=LONG_CLIP, batch_size=16, context_mode=mode)
    frames = frames_of(controlnet.txt2img(**request, steps=3, seed=5))
    assert len(frames) == LONG_CLIP
    require_own_hints(frames, long_alone)


def test_two_units_and_two_videos(controlnet, folder, pictures):
    units = [unit(), unit(weight=0.5, control_mode="ControlNet is more important")]
    request = clip(units, video_path=str(folder / "all"))
    frames = frames_of(controlnet.txt2img(**request, steps=3, seed=5, n_iter=2))
    require_own_hints(frames[:FRAMES], stills(controlnet.txt2img, pictures, units))
    require_own_hints(frames[FRAMES:], stills(controlnet.txt2img, pictures, units, seed=5 + FRAMES))


def test_an_empty_text_is_no_picture(controlnet, folder, pictures):
    """The library webuiapi sends it."""
    request = clip([unit(image="", mask=None)], video_path=str(folder / "all"))
    frames = frames_of(controlnet.txt2img(**request, steps=3, seed=5))
    require_own_hints(frames, stills(controlnet.txt2img, pictures, [unit()]))


def test_a_unit_with_a_picture_keeps_it(controlnet, pictures):
    request = clip([unit(image=encode(pictures[7]))])
    frames = frames_of(controlnet.txt2img(**request, steps=3, seed=5))
    require_alone = stills(controlnet.txt2img, [pictures[7]] * FRAMES, [unit()])
    assert largest_difference(frames, require_alone).max() <= 1


def test_img2img_drives_units_with_its_frames(controlnet, folder, pictures):
    request = clip([unit()], video_path=str(folder / "all"))
    settings = {"steps": 4, "seed": 5, "denoising_strength": 0.75}
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


@pytest.mark.webui_only("the embedded host has no inpainting")
def test_an_inpainting_unit_takes_the_mask_of_each_frame(large, folder, pictures):
    """With the large checkpoint, for which alone there are ControlNets that take a mask."""
    units, module = [unit(module="inpaint", model="control_sd15_random")], "mm_sd15_v3.safetensors"
    masks = np.zeros((3, 64, 64), np.uint8)
    (folder / "masks").mkdir(exist_ok=True)
    for index, mask in enumerate(masks):
        mask[8 * index : 8 * index + 24, 8:40] = 255
        Image.fromarray(mask).save(folder / "masks" / f"{index}.png")
    settings = {"steps": 3, "denoising_strength": 0.7, "inpainting_fill": 1, "mask_blur": 0}
    for images, area in ((3, {"inpaint_full_res": False}), (1, {"inpaint_full_res": True})):
        given = [encode(picture) for picture in pictures[:images]]
        how = {"model": module, "image_mode": "strength ramp", "ramp_length": 0, "video_length": 3}
        request = clip(units, mask_path=str(folder / "masks"), **how)
        frames = frames_of(large.img2img(**request, **settings, **area, seed=5, init_images=given))
        alone = []
        for index, mask in enumerate(masks):
            own = mask.copy()
            if area["inpaint_full_res"]:  # crops to what all masks cover; a level of one paints nothing
                own[[0, 39], [8, 39]] = np.maximum(own[[0, 39], [8, 39]], 1)
            still = {**clip(units, video_length=1, model=module), "mask": encode(own), "init_images": [given[index % images]]}
            alone.append(frames_of(large.img2img(**still, **settings, **area, seed=5))[0])
        require_own_hints(frames, np.stack(alone))


# --- folders and keyframes ---


def in_folder(text, **settings):
    return unit(input_mode="batch", batch_images=text, **settings)


def test_a_folder_drives_a_unit_and_tells_the_length(controlnet, folder, pictures):
    request = clip([in_folder(str(folder / "four"))], video_length=0)
    frames = frames_of(controlnet.txt2img(**request, steps=3, seed=5))
    assert len(frames) == FRAMES
    require_own_hints(frames, stills(controlnet.txt2img, pictures, [unit()]))


def test_a_shorter_folder_is_said(controlnet, folder):
    answer = controlnet.txt2img(**clip([in_folder(str(folder / "four"))], video_length=6), steps=1)
    assert len(frames_of(answer)) == FRAMES
    assert any("unit 0 has 4 pictures" in text for text in info_of(answer)["extra_generation_params"]["AnimateDiff warnings"])


def test_frames_between_keyframes_are_free(controlnet, folder, pictures):
    few = folder / "few"
    few.mkdir(exist_ok=True)
    for index in (0, 1):
        Image.fromarray(pictures[index]).save(few / f"{index}.png")
    request = clip([in_folder(f"{few}\nkeyframe:0,2")], video_length=FRAMES)
    frames = frames_of(controlnet.txt2img(**request, steps=3, seed=5))
    free = frames_of(controlnet.txt2img(**clip([]), steps=3, seed=5))
    at_keyframes = stills(controlnet.txt2img, [pictures[0], pictures[0], pictures[1], pictures[1]], [unit()])
    assert largest_difference(frames[1::2], free[1::2]).max() <= 1
    assert largest_difference(frames[::2], at_keyframes[::2]).max() <= 1
    assert largest_difference(frames[::2], free[::2]).min() >= UNRELATED


@pytest.fixture(scope="module")
def masks(folder, pictures):
    """A mask for each of four pictures, also as files."""
    masks = [np.where(picture[..., 0] > 127, 255, 0).astype(np.uint8) for picture in pictures[FRAMES : 2 * FRAMES]]
    for index, mask in enumerate(masks):
        for name in ("masks of four", *(["one mask"] if index == 0 else ())):
            (folder / name).mkdir(exist_ok=True)
            Image.fromarray(mask).save(folder / name / f"{index}.png")
    return masks


def masked_stills(make, pictures, masks, motion="mm_tiny_v3.safetensors", steps=3, **settings):
    made = []
    for picture, mask in zip(pictures, masks):
        request = clip([unit(image=encode(picture), mask=encode(mask), **settings)], video_length=1, model=motion)
        made.append(frames_of(make(**request, steps=steps, seed=5))[0])
    return np.stack(made)


@REAL
def test_a_unit_takes_the_mask_of_each_frame_or_one_for_all(controlnet, folder, pictures, masks):
    """ControlNet takes a mask as a scribble, in place of the picture, unless the unit is for inpainting."""
    alone = masked_stills(controlnet.txt2img, pictures, masks)
    each, one = (in_folder(f"{folder / 'four'}\nmask:{folder / name}") for name in ("masks of four", "one mask"))
    require_own_hints(frames_of(controlnet.txt2img(**clip([each]), steps=3, seed=5)), alone)
    for given, source in ((one, {}), (unit(mask=encode(masks[0])), {"video_path": str(folder / "all")})):
        frames = frames_of(controlnet.txt2img(**clip([given], **source), steps=3, seed=5))
        assert largest_difference(frames, np.stack([alone[0]] * FRAMES)).max() <= 1


@REAL
def test_an_inpainting_unit_takes_the_masks_of_its_folder(large, folder, pictures, masks):
    settings = {"model": "control_union_sd15_random", "module": "inpaint"}
    one = in_folder(f"{folder / 'four'}\nmask:{folder / 'masks of four'}", **settings)
    request = clip([one], video_length=2, model="mm_sd15_v3.safetensors")
    alone = masked_stills(large.txt2img, pictures[:2], masks, "mm_sd15_v3.safetensors", 2, **settings)
    require_own_hints(frames_of(large.txt2img(**request, steps=2, seed=5)), alone)


@REAL
@pytest.mark.parametrize("windows", [{}, {"batch_size": 2, "overlap": 1}], ids=["one window", "windows"])
@pytest.mark.parametrize("module", ["inpaint", "inpaint_only"])
def test_an_adapter_takes_the_masks_of_its_folder(controlnet, folder, pictures, masks, module, windows):
    """ControlNet draws the masks into the pictures."""
    one = in_folder(f"{folder / 'four'}\nmask:{folder / 'masks of four'}", module=module)
    alone = masked_stills(controlnet.txt2img, pictures, masks, module=module)
    require_own_hints(frames_of(controlnet.txt2img(**clip([one], **windows), steps=3, seed=5)), alone)
    unmasked = stills(controlnet.txt2img, pictures, [unit(module=module)])
    assert largest_difference(alone, unmasked).min() >= UNRELATED


# --- IP-Adapters ---


@REAL
@pytest.mark.parametrize("settings", [{}, {"batch_size": 2, "overlap": 1}], ids=["one window", "windows"])
def test_an_ip_adapter_has_a_picture_for_each_frame(controlnet, folder, pictures, settings):
    request = clip([in_folder(str(folder / "four"), **IP_ADAPTER)], **settings)
    frames = frames_of(controlnet.txt2img(**request, steps=3, seed=5))
    alone = stills(controlnet.txt2img, pictures, [unit(**IP_ADAPTER)])
    assert largest_difference(frames, alone).max() <= 1
    assert largest_difference(frames[1:], alone[:-1]).min() >= UNRELATED


@REAL
def test_embeddings_travel_between_keyframes(controlnet, folder, pictures):
    few = folder / "two"
    few.mkdir(exist_ok=True)
    for index in (0, 1):
        Image.fromarray(pictures[index]).save(few / f"{index}.png")
    request = clip([in_folder(f"{few}\nkeyframe:0,2", **IP_ADAPTER)], video_length=3)
    frames = frames_of(controlnet.txt2img(**request, steps=3, seed=5))
    first, middle, last = (
        stills(controlnet.txt2img, [pictures[index]] * 3, [unit(**IP_ADAPTER)])[frame]
        for index, frame in ((0, 0), (0, 1), (1, 2))
    )
    assert largest_difference(frames[::2], np.stack([first, last])).max() <= 1
    other = stills(controlnet.txt2img, [pictures[1]] * 3, [unit(**IP_ADAPTER)])[1]
    assert largest_difference(frames[1:2], middle[None]) > 1 and largest_difference(frames[1:2], other[None]) > 1


# --- beside other scripts ---


@REAL
def test_each_cell_of_a_plot_over_a_units_weight_is_the_clip_alone(controlnet, folder):
    info = controlnet.get("/sdapi/v1/script-info").json()
    axes = next(one for one in info if one["name"] == "x/y/z plot" and not one["is_img2img"])["args"][0]["choices"]
    axis = [axes.index("[ControlNet] Weight"), "0.2, 1", []]
    options = [True, True, False, False, False, False, False, 0, False]
    plot = {"script_name": "x/y/z plot", "script_args": [*axis, 0, "", [], 0, "", [], *options]}
    source = {"video_path": str(folder / "all"), "format": ["GIF"]}
    cells = [decode(text) for text in controlnet.txt2img(**clip([unit()], **source), **plot, steps=2).json()["images"][-2:]]
    for weight, cell in zip((0.2, 1), cells):
        alone = controlnet.txt2img(**clip([unit(weight=weight)], **source), steps=2).json()["images"][0]
        np.testing.assert_array_equal(np.stack(cell), np.stack(decode(alone)))
    assert largest_difference(*map(np.stack, cells)).min() >= UNRELATED


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


@pytest.mark.webui_only("the embedded host has no hires fix")
def test_with_hires_fix_the_maps_are_those_of_the_second_pass(controlnet, folder):
    hires = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent", "denoising_strength": 0.7}
    units = [unit(), unit(image=encode(np.zeros((64, 64, 3), np.uint8)), weight=0.1)]
    images = controlnet.txt2img(**clip(units, video_path=str(folder / "all"), format=["GIF"]), **hires, steps=1).json()[
        "images"
    ]
    sizes = []
    for text in images:
        with Image.open(io.BytesIO(base64.b64decode(text))) as animation:
            sizes.append((animation.size, getattr(animation, "n_frames", 1)))
    assert sizes == [((96, 96), FRAMES), ((96, 96), FRAMES), ((96, 96), 1)]


def test_maps_are_left_out_where_controlnets_setting_says_so(controlnet, folder):
    request = clip([unit()], video_path=str(folder / "all"), format=["GIF"])
    with controlnet.settings(control_net_no_detectmap=True):
        assert len(controlnet.txt2img(**request, steps=1).json()["images"]) == 1


def test_maps_are_kept_for_the_next_run(controlnet, folder):
    kept = controlnet.data_dir / "tmp" / "animatediff-maps"
    request = clip([unit(module="canny", processor_res=64, threshold_a=33)], video_path=str(folder / "all"))
    before = set(kept.glob("*.png"))
    first = frames_of(controlnet.txt2img(**request, steps=1))
    files = set(kept.glob("*.png"))
    assert len(files - before) == FRAMES
    np.testing.assert_array_equal(frames_of(controlnet.txt2img(**request, steps=1)), first)
    assert set(kept.glob("*.png")) == files


# --- the page ---


@REAL
def test_the_batch_tab_drives_units_with_its_images(browser, controlnet, folder):
    """A unit without a picture follows them, as it follows the source video of the same request by the API."""
    tab, ids = "img2img", "#img2img_controlnet_ControlNet-0_controlnet"
    page = browser.new_page(viewport={"width": 1400, "height": 1600})
    page.goto(controlnet.url, wait_until="domcontentloaded", timeout=2 * MINUTES)
    page.locator("#tabs > .tab-nav button", has_text=tab).click()
    open_panel(page, tab)
    page.locator("#img2img_prompt textarea").first.fill("a cat")
    for name, value in {"steps": 4, "width": 64, "height": 64, "denoising_strength": 0.75, "seed": 5}.items():
        set_number(page, f"{tab}_{name}", value)
    choose(page, f"{tab}-ad-motion-module", "mm_tiny_v3.safetensors")
    choose_formats(page, "GIF", "PNG", tab=tab)
    page.locator("#img2img_controlnet .label-wrap").first.click()
    page.locator(f"{ids}_enable_checkbox input").check()
    page.locator(f"{ids}_model_dropdown input").first.click()
    page.locator(f"{ids}_model_dropdown li[data-value^='t2iadapter_tiny_random']").dispatch_event("mousedown")
    page.locator("#mode_img2img > .tab-nav button", has_text="Batch").click()
    page.locator("#img2img_batch_source > .tab-nav button", has_text="From directory").click()
    page.locator("#img2img_batch_input_dir textarea").fill(str(folder / "four"))
    generate(page, tab)
    frames = sorted(file_of(gif_in_gallery(page, tab)).with_suffix("").glob("*.png"))
    page.close()
    request = animate(video_path=str(folder / "four"), video_length=FRAMES)
    settings = {"steps": 4, "seed": 5, "denoising_strength": 0.75, "sampler_name": "DPM++ 2M", "init_images": []}
    followed = frames_of(controlnet.img2img(**with_units(request, unit()), **settings))
    alone = frames_of(controlnet.img2img(**with_units(request), **settings))
    made = np.stack([np.asarray(Image.open(frame).convert("RGB")) for frame in frames])
    assert largest_difference(made, followed).max() <= 1
    assert largest_difference(made, alone).min() >= UNRELATED


# --- SparseCtrl ---


def sparse_unit(kind, **settings):
    return unit(model=f"sparsectrl_sd15_{kind}_random", **settings)


def sparse_clip(units, **args):
    """Like `clip`, with a motion module for the large checkpoint, which is slow."""
    return {**clip(units, **{"model": "mm_sd15_v3.safetensors", "video_length": 3, **args}), "steps": 2}


@pytest.fixture(scope="module")
def keyframes(folder, pictures):
    """Returns the text of a folder that has these pictures at these frames."""

    def text(numbers, frames=()):
        name = folder / "-".join(map(str, numbers))
        name.mkdir(exist_ok=True)
        for number in numbers:
            Image.fromarray(pictures[number]).save(name / f"{number}.png")
        return f"{name}\nkeyframe:{','.join(map(str, frames))}" if frames else str(name)

    return text


@REAL
@pytest.mark.parametrize("kind", ["rgb", "scribble"])
def test_sparse_ctrl_carries_its_pictures_to_all_frames(large, pictures, kind):
    """The motion module has no effect here, so it is the layers of SparseCtrl that carry them."""
    plain = frames_of(large.txt2img(steps=1))
    one, other = (
        frames_of(large.txt2img(**sparse_clip([sparse_unit(kind, image=encode(pictures[index]))]), seed=5)) for index in (0, 1)
    )
    assert largest_difference(one, other).min() > 0
    assert largest_difference(one, other)[0] >= UNRELATED
    np.testing.assert_array_equal(frames_of(large.txt2img(steps=1)), plain)


@REAL
def test_sparse_ctrl_takes_a_picture_for_the_first_frame_or_for_keyframes(large, pictures, keyframes):
    first = frames_of(large.txt2img(**sparse_clip([sparse_unit("rgb", image=encode(pictures[0]))]), seed=5))
    for at, is_first in (([0], True), ([2], False)):
        request = sparse_clip([sparse_unit("rgb", input_mode="batch", batch_images=keyframes([0], at))])
        difference = largest_difference(frames_of(large.txt2img(**request, seed=5)), first)
        assert (difference.max() <= 1) == is_first
        assert is_first or difference.min() > 0


@REAL
def test_with_animatediff_off_pictures_of_sparse_ctrl_are_apart(large, pictures):
    request = with_units({"alwayson_scripts": {}}, sparse_unit("rgb", image=encode(pictures[0])))
    one, two, plain = (frames_of(large.txt2img(**asked, steps=1))[:1] for asked in (request, {**request, "batch_size": 2}, {}))
    assert largest_difference(one, two).max() <= 1
    assert largest_difference(one, plain).min() >= UNRELATED


@REAL
def test_more_frames_at_once_than_sparse_ctrl_has_positions_for_are_refused(large, pictures):
    many = {"video_length": 33, "batch_size": 33, "positional_encoding": "extend"}
    answer = large.txt2img(**sparse_clip([sparse_unit("rgb", image=encode(pictures[0]))], **many))
    assert answer.status_code == 422, answer.text
    assert "unit 0 is SparseCtrl, which takes 32 frames at once" in answer.json()["detail"]


@REAL
def test_conditions_apart_have_the_hints_and_the_frames_of_both_together(large, keyframes):
    request = sparse_clip([sparse_unit("rgb", input_mode="batch", batch_images=keyframes([0, 1], [1, 2]))])
    together = frames_of(large.txt2img(**request, seed=5))
    with large.settings(batch_cond_uncond=False):
        apart = frames_of(large.txt2img(**request, seed=5))
    assert largest_difference(together, apart).max() <= 1


@REAL
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("scribble", {}),
        ("rgb", {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent", "denoising_strength": 0.7}),
    ],
    ids=["one pass", "hires"],
)
def test_windows_of_a_clip_are_clips_of_their_own_for_sparse_ctrl(large, keyframes, kind, settings):
    """Without overlap, each window is the clip that its own pictures make."""

    def frames(*numbers):
        one = sparse_unit(kind, input_mode="batch", batch_images=keyframes(numbers))
        windows = {"batch_size": 2, "overlap": 0, "context_schedule": "static"}
        request = sparse_clip([one], video_length=len(numbers), **windows)
        return frames_of(large.txt2img(**request, **settings, seed=5))

    whole = frames(0, 1, 2, 3)
    assert largest_difference(whole, np.concatenate([frames(0, 1), frames(2, 3)])).max() <= 1


# --- what cannot be done ---


@pytest.mark.parametrize(
    ("units", "args", "parts"),
    [
        ([unit()], {}, ("unit 0 (none) has no picture", "source video")),
        ([unit(enabled=False), in_folder("")], {}, ("unit 1", "no picture")),
        ([in_folder("{four}\nkeyframe:0,9,10,11")], {}, ("unit 0", "frame 9", "Number of frames (video_length)")),
        ([in_folder("{four}\nkeyframe:0,1,2," + "9" * 4000)], {}, ("unit 0", "frame 99999", "...99999", "video_length")),
        ([in_folder("{four}\nkeyframe:0,1")], {}, ("unit 0", "more than 2 pictures for 2 keyframes")),
        ([in_folder("{four}\nkeyframe:3,1")], {}, ("unit 0", "keyframes", "'3,1'")),
        ([in_folder("  ")], {}, ("unit 0", "no picture")),
        ([unit(input_mode="merge")], {"video_path": "{all}"}, ("unit 0", "no picture")),
        only_real([in_folder("{four}\nkeyframe:0,1,2,3", module="tile_colorfix")], {}, ("some frames only",)),
        ([in_folder("{four}\nfoo:3,1")], {}, ("unit 0", "'foo'", "keyframe:")),
        ([in_folder("/etc")], {}, ("folder of ControlNet unit 0", "lies outside")),
        only_real(
            [in_folder("{four}\nkeyframe:0,1,2,3", module="reference_only", model="None")], {}, ("unit 0", "some frames")
        ),
        ([unit(model="nothing")], {"video_path": "{all}"}, ("unit 0", "'nothing'", "list")),
        (
            [unit(), unit(model="t2iadapter_sdxl_random")],
            {"video_path": "{all}"},
            ("could not prepare unit 1", "not compatible"),
        ),
        only_real([unit(), unit(model="t2iadapter_large_random")], {"video_path": "{all}"}, ("unit 1 has a model for SDXL",)),
        ([unit(model="None")], {"video_path": "{all}"}, ("unit 0 has no model",)),
        ([unit(module="nonsense")], {}, ("ControlNet cannot read its units", "nonsense")),
        (
            [unit()],
            {"video_path": "{all}", "batch_size": 2, "context_mode": "motion attention", "offload": True},
            ("offload", "ControlNet", "whole UNet"),
        ),
        ([], {"video_path": "{all}"}, ("source video", "txt2img", "no unit takes it")),
    ],
)
def test_refusals_name_the_unit(controlnet, folder, units, args, parts):
    fill = lambda value: value.format(all=folder / "all", four=folder / "four") if isinstance(value, str) else value  # noqa: E731
    units = [{name: fill(value) for name, value in one.items()} for one in units]
    answer = controlnet.txt2img(**clip(units, **{name: fill(value) for name, value in args.items()}), steps=1)
    assert answer.status_code == 422, answer.text
    for part in parts:
        assert part in answer.json()["detail"]
    assert len(answer.json()["detail"]) < 500


@REAL
def test_another_unit_for_each_image_is_refused(browser, controlnet, folder):
    """ControlNet keeps the Batch Option of its page for requests by the API too."""
    request = clip([unit()], video_path=str(folder / "all"))
    page = browser.new_page()
    page.goto(controlnet.url, wait_until="domcontentloaded", timeout=2 * MINUTES)
    answers = []
    for option in ("Each", "All"):
        radio = page.locator("#txt2img_controlnet_controlnet_batch_option_radio label", has_text=option)
        radio.locator("input").dispatch_event("click")  # it lies in a folded group
        page.wait_for_timeout(2000)
        answers.append(controlnet.txt2img(**request, steps=1))
    page.close()
    refused, made = answers
    assert refused.status_code == 422, refused.text
    assert "Batch Option" in refused.json()["detail"]
    assert made.ok


def test_interrupt_while_frames_are_prepared_leaves_nothing(controlnet, folder):
    plain = frames_of(controlnet.txt2img(steps=2))
    request = clip([unit(module="canny", processor_res=2048)], video_path=str(folder / "all"), video_length=24)
    with controlnet.settings(animatediff_map_cache_mb=0):
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
    controlnet.post("/probe/v1/fault", {"step": 2}).raise_for_status()
    assert make(**request, steps=3).status_code == 500
    np.testing.assert_array_equal(frames_of(controlnet.txt2img(steps=2)), plain)
    np.testing.assert_array_equal(frames_of(make(**request, steps=3)), before)


@pytest.mark.parametrize("mode", ["whole UNet", "motion attention"])
def test_after_an_exception_in_a_control_model_everything_is_as_before(controlnet, folder, mode):
    """In the second context window, or in the second step where windows are in the motion attention."""
    request = clip([unit()], video_path=str(folder / "all"), batch_size=2, overlap=0, context_mode=mode)
    before = frames_of(controlnet.txt2img(**request, steps=2, seed=5))
    plain, state = frames_of(controlnet.txt2img(steps=2)), controlnet.get("/probe/v1/state").json()
    controlnet.post("/probe/v1/control-fault", {"call": 2 if mode == "whole UNet" else 1}).raise_for_status()
    answer = controlnet.txt2img(**request, steps=2, seed=5)
    seen = controlnet.post("/probe/v1/control-fault", {"call": 0}).json()
    assert (answer.status_code, seen["fired"]) == (500, 1), answer.text
    assert seen["moves"][-1] == "cpu"
    np.testing.assert_array_equal(frames_of(controlnet.txt2img(steps=2)), plain)
    assert controlnet.get("/probe/v1/state").json() == state
    np.testing.assert_array_equal(frames_of(controlnet.txt2img(**request, steps=2, seed=5)), before)


def test_another_checkpoint_between_two_clips_changes_neither(controlnet, folder):
    request = clip([unit()], video_path=str(folder / "all"))
    other = {"override_settings": {"sd_model_checkpoint": "tiny-b.safetensors"}}
    first, second = (
        frames_of(controlnet.txt2img(**request, steps=2)),
        frames_of(controlnet.txt2img(**request, **other, steps=2)),
    )
    assert largest_difference(first, second).min() >= UNRELATED
    np.testing.assert_array_equal(frames_of(controlnet.txt2img(**request, steps=2)), first)
    np.testing.assert_array_equal(frames_of(controlnet.txt2img(**request, **other, steps=2)), second)


# --- SparseCtrl of this extension, beside units ---


@REAL
@pytest.mark.parametrize("windows", [{}, {"batch_size": 2, "overlap": 0}], ids=["one window", "windows"])
def test_sparse_ctrl_without_controlnet_acts_beside_a_unit(controlnet, pictures, windows):
    models = controlnet.data_dir / "models" / "ControlNet"
    models.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    save_file(sparse_weights("RGB", text_width=64), models / "sparsectrl_tiny.safetensors")

    def frames(weight, strength):
        """`weight`: of the unit; None without any."""
        units = [] if weight is None else [unit(image=encode(pictures[0]), weight=weight)]
        sparse = {"sparse_ctrl": "sparsectrl_tiny", "sparse_pictures": [encode(pictures[1])], "sparse_strength": strength}
        return frames_of(controlnet.txt2img(**clip(units, **sparse, **windows), steps=3, seed=5))

    strength = 0.1  # more would drown the unit
    both, of_unit, of_sparse = (frames(*pair) for pair in ((1, strength), (1, 0), (0, strength)))
    changes = [largest_difference(both, other).min() for other in (of_unit, of_sparse)]
    assert min(changes) >= UNRELATED, changes
    assert largest_difference(of_sparse, frames(None, strength)).max() <= 1
