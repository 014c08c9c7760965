"""Masks for each frame in img2img: each frame is the still that its own mask gives."""

import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter
from safetensors.torch import load_file, save_file

from animatediff.video import ffmpeg, gif
from animatediff.video.clip import Clip, Quality
from demo.real_webui import REFORGE
from support.animation import FRAMES, animate, difference, frames_of, info_of
from support.pictures import encode, gradient, pictures_of

UNRELATED = 10
"""Levels of 255: by how much another mask changes a frame at least."""
inpaints = pytest.mark.webui_only("the embedded host has no inpainting")
IMAGES = [(gradient(shift=9 * index) * (1 - 0.2 * index)).astype(np.uint8) for index in range(FRAMES)]
ONLY_MASKED = {"inpaint_full_res": True, "inpaint_full_res_padding": 4}


def squares():
    """Returns a mask for each frame: a square that travels."""
    masks = []
    for index in range(FRAMES):
        masks.append(Image.new("L", (64, 64)))
        ImageDraw.Draw(masks[-1]).rectangle((2 + 10 * index, 8, 25 + 10 * index, 40), fill=255)
    return masks


def frames_with_gaps():
    """Returns a mask for each frame: what the WebUI crops to is the same for all."""
    masks = []
    for index in range(FRAMES):
        masks.append(Image.new("L", (64, 64)))
        draw = ImageDraw.Draw(masks[-1])
        draw.rectangle((8, 8, 39, 39), fill=255)
        draw.rectangle((12 + 4 * index, 16, 19 + 4 * index, 31), fill=0)
    return masks


@pytest.fixture(scope="module")
def save(source_folder):
    """Saves masks as a folder, and returns its path."""

    def save(masks, name):
        folder = source_folder / "masks" / name
        folder.mkdir(parents=True, exist_ok=True)
        for index, mask in enumerate(masks):
            mask.save(folder / f"{index}.png")
        return str(folder)

    return save


@pytest.fixture
def inpainting_checkpoint(weights, host):
    """A checkpoint for inpainting: its UNet sees the mask and what the mask leaves of the image in five more channels."""
    folder = weights / "checkpoints"
    file = folder / "tiny-inpainting.safetensors"
    tensors = load_file(folder / "tiny-a.safetensors")
    first = tensors["model.diffusion_model.input_blocks.0.0.weight"]
    more = torch.randn(len(first), 5, 3, 3, generator=torch.Generator().manual_seed(1)) * first.std()
    tensors["model.diffusion_model.input_blocks.0.0.weight"] = torch.cat([first, more.to(first)], dim=1)
    save_file(tensors, file)
    config = json.loads((folder / "tiny-a.yaml").read_text())
    config["model"]["params"]["conditioning_key"] = "hybrid"
    config["model"]["params"]["unet_config"]["params"]["in_channels"] = 9
    file.with_suffix(".yaml").write_text(json.dumps(config))
    host.post("/sdapi/v1/refresh-checkpoints").raise_for_status()
    yield file.name
    file.unlink()
    file.with_suffix(".yaml").unlink()


def clip(path, **args):
    """Returns the part of a request that asks for a clip whose frames do not influence each other."""
    return animate(**{"motion_effect": 0, "mask_path": path, **args})


def inpainting(**settings):
    """Returns the part of a request that is the same for a clip and a still."""
    whole = {"steps": 4, "denoising_strength": 0.75, "inpainting_fill": 1, "inpaint_full_res": False, "mask_blur": 4}
    return {**whole, **settings}


def moving(path, **args):
    return {**clip(path, **args), "init_images": [encode(image) for image in IMAGES], "seed": 5}


def stills(host, masks, **settings):
    """Returns the frames as stills, each with its own image, seed and mask."""
    found = []
    for index, (image, mask) in enumerate(zip(IMAGES, masks)):
        own = {"init_images": [encode(image)], "mask": encode(np.asarray(mask)), "seed": 5 + index}
        found.append(frames_of(host.img2img(**clip("", video_length=1), **own, **inpainting(**settings)))[0])
    return np.stack(found)


# --- each frame has its own mask ---


as_still = pytest.mark.not_on(("Forge", "Neo"), "the noise of a mask is drawn for a batch at once, so no frame is a still")


@inpaints
@as_still
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"mask_blur": 0},
        {"inpainting_mask_invert": 1},
        {"inpainting_fill": 0},
        {"inpainting_fill": 2},
        {"inpainting_fill": 3},
        {"sampler_name": "DDIM"},
        {"prompt": "a cat AND a dog"},
        {"override_settings": {"img2img_color_correction": True}},
        {"width": 96},
        ONLY_MASKED,
        {**ONLY_MASKED, "inpainting_fill": 0},
        {**ONLY_MASKED, "inpainting_fill": 2, "override_settings": {"img2img_color_correction": True}},
    ],
    ids=lambda settings: ", ".join(f"{name} {value}" for name, value in settings.items()) or "original",
)
def test_each_frame_is_the_still_of_its_own_mask(host, save, settings):
    masks = frames_with_gaps() if "inpaint_full_res" in settings else squares()
    path = save(masks, "gaps" if "inpaint_full_res" in settings else "squares")
    frames = frames_of(host.img2img(**moving(path), **inpainting(**settings)))
    # Matching histograms turns one level into several.
    several = 8 if getattr(host, "kind", None) is REFORGE else 4
    rounding = several if "override_settings" in settings else 1
    assert difference(frames, stills(host, masks, **settings)) <= rounding
    assert difference(frames, stills(host, masks[1:] + masks[:1], **settings)) >= UNRELATED
    assert all(difference(frame, image) >= UNRELATED for frame, image in zip(frames, IMAGES) if "width" not in settings)


@inpaints
@as_still
def test_inpainting_checkpoints_see_the_mask_of_each_frame(host, save, inpainting_checkpoint):
    settings = {"override_settings": {"sd_model_checkpoint": inpainting_checkpoint}}
    frames = frames_of(host.img2img(**moving(save(squares(), "squares")), **inpainting(**settings)))
    assert difference(frames, stills(host, squares(), **settings)) <= 1
    assert difference(frames, stills(host, squares())) >= UNRELATED


@inpaints
@as_still
def test_masks_go_with_the_frames_of_a_source_video_and_its_windows(host, save):
    source = save([Image.fromarray(image) for image in IMAGES], "images")
    request = clip(save(squares(), "squares"), video_path=source, video_length=0, batch_size=2, overlap=1)
    frames = frames_of(host.img2img(**request, **inpainting(), init_images=[], seed=5))
    assert difference(frames, stills(host, squares())) <= 1


@inpaints
def test_with_motion_what_masks_leave_out_stays(host, save):
    frames = frames_of(host.img2img(**moving(save(squares(), "squares"), motion_effect=1), **inpainting(mask_blur=0)))
    for frame, image, mask in zip(frames, IMAGES, squares()):
        covered = np.asarray(mask) > 0
        np.testing.assert_array_equal(frame[~covered], image[~covered])
        assert difference(frame[covered], image[covered]) >= UNRELATED


@inpaints
@as_still
def test_the_crop_is_that_of_all_masks_and_does_not_jump(host, save):
    """A still crops to what all masks cover if its own mask has one level, which paints nothing, at the corners of that."""
    settings = {**ONLY_MASKED, "mask_blur": 0}
    request = {**moving(save(squares(), "squares")), **inpainting(**settings)}
    frames = frames_of(host.img2img(**request))
    with_corners = squares()
    for mask in with_corners:
        for corner in ((2, 8), (55, 40)):
            mask.putpixel(corner, max(mask.getpixel(corner), 1))
    assert difference(frames, stills(host, with_corners, **settings)) <= 1
    assert difference(frames, stills(host, squares(), **settings)) >= UNRELATED
    assert info_of(host.img2img(**request))["extra_generation_params"]["Inpaint area"] == "Only masked"


@inpaints
def test_one_image_and_a_mask_that_travels(host, save):
    request = {**clip(save(squares(), "squares"), image_mode="strength ramp", ramp_length=0), "seed": 5}
    frames = frames_of(host.img2img(**request, **inpainting(mask_blur=0), init_images=[encode(IMAGES[0])]))
    for frame, mask in zip(frames, squares()):
        covered = np.asarray(mask) > 0
        np.testing.assert_array_equal(frame[~covered], IMAGES[0][~covered])
        assert difference(frame[covered], IMAGES[0][covered]) >= UNRELATED


@inpaints
@as_still
def test_one_mask_holds_for_all_frames(host, save):
    masks = [squares()[1]] * FRAMES
    frames = frames_of(host.img2img(**moving(save(masks[:1], "one")), **inpainting()))
    assert difference(frames, stills(host, masks)) <= 1


@inpaints
@pytest.mark.parametrize("suffix", ["mp4", "gif"])
def test_a_video_of_masks(host, source_folder, suffix):
    file = source_folder / f"masks.{suffix}"
    encode_clip = ffmpeg.encode_mp4 if suffix == "mp4" else gif.encode_gif
    file.write_bytes(encode_clip(Clip([mask.convert("RGB") for mask in squares()], 8), Quality()))
    frames = frames_of(host.img2img(**moving(str(file)), **inpainting(mask_blur=0)))
    for frame, image, mask in zip(frames, IMAGES, squares()):
        around = np.asarray(mask.filter(ImageFilter.MaxFilter(5))) > 0
        np.testing.assert_array_equal(frame[~around], image[~around])
        assert difference(frame[np.asarray(mask) > 0], image[np.asarray(mask) > 0]) >= UNRELATED


@inpaints
@as_still
def test_the_alpha_of_masks(host, save):
    """Black on transparent: the levels of grey alone would cover nothing."""
    masks = []
    for mask in squares():
        masks.append(Image.new("RGBA", mask.size))
        masks[-1].putalpha(mask)
    frames = frames_of(host.img2img(**moving(save(masks, "alpha")), **inpainting()))
    assert difference(frames, stills(host, squares())) <= 1


@inpaints
def test_masks_in_the_answer_are_those_of_the_frames(host, save):
    settings = inpainting(mask_blur=0, override_settings={"return_mask": True})
    images = pictures_of(host.img2img(**moving(save(squares(), "squares")), **settings))
    for given, returned in zip(squares(), images[FRAMES:], strict=True):
        np.testing.assert_array_equal(returned[:, :, 0], np.asarray(given))


@inpaints
def test_nothing_of_the_masks_stays(host, save):
    plain = {"init_images": [encode(IMAGES[0])], "seed": 5, **inpainting()}
    before = frames_of(host.img2img(**plain))
    frames_of(host.img2img(**moving(save(squares(), "squares")), **inpainting(**ONLY_MASKED)))
    np.testing.assert_array_equal(frames_of(host.img2img(**plain)), before)


@inpaints
@pytest.mark.not_on(("Neo",), "it saves no grid: “Invalid quality setting”, also of plain pictures")
def test_a_script_that_generates_again_with_the_same_request(host, save):
    """Loopback: the second clip starts from the first frame of the first one. Its answer has the first frame of each."""
    request = {**clip(save(squares(), "squares"), ramp_length=0, image_mode="strength ramp"), **inpainting(mask_blur=0)}
    loop = {"script_name": "Loopback", "script_args": [2, 0.75, "Linear", "None"]}
    answer = host.img2img(**request, **loop, init_images=[encode(IMAGES[0])], seed=5)
    first, second = (picture for picture in pictures_of(answer) if picture.shape == (64, 64, 3))  # the others are grids
    covered = np.asarray(squares()[0]) > 0
    for picture, before in ((first, IMAGES[0]), (second, first)):
        np.testing.assert_array_equal(picture[~covered], before[~covered])
        assert difference(picture[covered], before[covered]) >= UNRELATED


@inpaints
def test_masks_are_on_the_page_of_img2img_only(host):
    components = [component["props"] for component in host.get("/config").json()["components"]]
    visible = {props["elem_id"]: props["visible"] for props in components if "ad-mask-path" in (props.get("elem_id") or "")}
    assert visible == {"txt2img-ad-mask-path": False, "img2img-ad-mask-path": True}


# --- what cannot be done ---


def refused(answer, *words):
    assert answer.status_code == 422, answer.text
    assert all(word in answer.json()["detail"] for word in words), answer.json()["detail"]


def test_masks_are_of_no_use_in_txt2img(host, save):
    refused(host.txt2img(**clip(save(squares(), "squares"))), "Masks (mask_path)", "only in img2img")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/usr", ("folder or video of masks", "outside", "Add its folder")),
        ("{folder}/nowhere", ("folder or video of masks", "nowhere", "does not exist")),
        ("https://example.org/a.mp4", ("URL", "name the file")),
    ],
)
def test_paths_are_read_by_the_rules_of_source_videos(host, source_folder, path, words):
    refused(host.img2img(**moving(path.format(folder=source_folder)), **inpainting()), *words)


@inpaints
@pytest.mark.parametrize(
    ("masks", "settings", "args", "words"),
    [
        (squares()[:3], {}, {}, ("3 masks (mask_path) for 4 frames", "video_length", "to 3")),
        (squares(), {"mask": encode(np.asarray(squares()[0]))}, {}, ("Both Masks (mask_path)", "Remove one")),
        ([mask.resize((32, 64)) for mask in squares()], {}, {}, ("are 32×64", "img2img are 64×64")),
        ([*squares()[:2], squares()[2].resize((32, 32)), squares()[3]], {}, {}, ("frame 3 is 32×32", "the first is 64×64")),
        ([Image.new("L", (64, 64))] * FRAMES, {}, {}, ("black everywhere", "nothing would be painted")),
        ([Image.new("L", (64, 64), 255)] * FRAMES, {"inpainting_mask_invert": 1}, {}, ("white everywhere",)),
    ],
    ids=["fewer", "two masks", "another size", "sizes that change", "black", "white"],
)
def test_masks_that_do_not_fit_are_refused(host, save, request, masks, settings, args, words):
    path = save(masks, request.node.callspec.id.replace(" ", "-"))
    refused(host.img2img(**moving(path, **args), **inpainting(**settings)), *words)


@inpaints
def test_a_last_frame_is_refused(host, save):
    request = clip(save(squares(), "squares"), last_frame=encode(IMAGES[1]))
    refused(host.img2img(**request, **inpainting(), init_images=[encode(IMAGES[0])]), "Last frame", "mask for each frame")


@inpaints
def test_soft_inpainting_is_refused_by_name(host, save):
    request = moving(save(squares(), "squares"))
    request["alwayson_scripts"]["soft inpainting"] = {"args": [True, 1, 0.5, 4, 0, 0.5, 2]}
    refused(host.img2img(**request, **inpainting()), "Soft inpainting", "one mask")


@inpaints
def test_masks_of_which_blur_leaves_nothing_are_refused(host, save):
    masks = [Image.new("L", (64, 64)) for _ in range(FRAMES)]
    for index, mask in enumerate(masks):
        mask.putpixel((index, 5), 255)
    answer = host.img2img(**moving(save(masks, "dots")), **inpainting(**ONLY_MASKED, mask_blur=40))
    refused(answer, "Mask blur leaves nothing")


def test_a_webui_without_inpainting_refuses_masks(host, save, request):
    if request.config.getoption("--host") == "webui":
        pytest.skip("this WebUI has inpainting")
    refused(host.img2img(**moving(save(squares(), "squares")), **inpainting()), "does not have")
