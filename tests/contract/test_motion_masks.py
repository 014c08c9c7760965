"""Masks of motion through the API: where motion acts in a clip, and where it does not."""

import numpy as np
import pytest
from PIL import Image

from support.animation import FRAMES, animate, difference, frames_of, info_of, made_once, text_of_refusal
from support.pictures import encode, gradient, mean_difference

LIMIT = 2
"""The largest difference from the authors' UNet allowed, in levels of 255."""
POWER = 10
SIDE = 8
"""Of the latents of 64 pixels."""
JOB = {"steps": 3, "negative_prompt": "bad"}


def halves(inverted=False):
    """Returns a mask of 64×64 whose left half moves."""
    mask = np.zeros((64, 64), np.uint8)
    mask[:, :32] = 255
    return 255 - mask if inverted else mask


def stripes():
    """Returns a mask for each frame: a stripe that travels, and levels of grey on its right."""
    masks = np.zeros((FRAMES, 64, 64), np.uint8)
    for index in range(FRAMES):
        masks[index, :, 16 * index : 16 * index + 16] = 255
        masks[index, 32:, 16 * index + 16 :] = 100
    return masks


def shares(masks):
    """Returns what one of our masks asks of the authors' UNet: the share of each element of the latents."""
    return (masks.reshape(len(masks), SIDE, 8, SIDE, 8).mean((2, 4)) / 255).tolist()


@pytest.fixture(scope="module")
def clip(host):
    make = made_once(host.txt2img)
    return lambda args=None, **request: make(**{**animate("v3", **(args or {})), **JOB, **request})


@pytest.fixture
def expected(host, weights):
    """Returns the frames of a request from the authors' UNet with a mask, without the extension."""

    def run(masks, **request):
        module = str(weights / "motion" / "mm_tiny_v3.safetensors")
        assert host.post("/probe/v1/reference", {"module": module, "frames": FRAMES, "shares": shares(masks)}).ok
        try:
            return frames_of(host.txt2img(batch_size=FRAMES, override_settings={"return_grid": False}, **JOB, **request))
        finally:
            assert host.post("/probe/v1/reference", {}).ok

    return run


@pytest.fixture(scope="module")
def save(source_folder):
    """Saves pictures as a folder, and returns its path."""

    def save(pictures, name):
        folder = source_folder / "motion masks" / name
        folder.mkdir(parents=True, exist_ok=True)
        for index, picture in enumerate(pictures):
            Image.fromarray(picture).save(folder / f"{index}.png")
        return str(folder)

    return save


def test_a_white_mask_changes_nothing_and_a_black_one_switches_motion_off(clip):
    whole = np.full((64, 64), 255, np.uint8)
    assert difference(clip({"motion_mask": encode(whole)}), clip()) == 0
    assert difference(clip({"motion_mask": encode(whole), "motion_effect": 0.7}), clip({"motion_effect": 0.7})) == 0
    assert difference(clip({"motion_mask": encode(whole - 255)}), clip({"motion_effect": 0})) == 0
    assert difference(clip(), clip({"motion_effect": 0})) >= POWER


def test_half_a_picture_moves_as_in_the_authors_unet(clip, expected):
    frames, wanted = clip({"motion_mask": encode(halves())}), expected(halves()[None].repeat(FRAMES, 0))
    assert difference(frames, wanted) <= LIMIT
    assert difference(clip({"motion_mask": encode(halves(inverted=True))}), wanted) >= POWER
    assert difference(clip(), wanted) >= POWER


def test_each_frame_has_its_own_mask(clip, expected, save):
    frames, wanted = clip({"motion_mask_path": save(stripes(), "stripes")}), expected(stripes())
    assert difference(frames, wanted) <= LIMIT
    assert difference(clip({"motion_mask_path": save(stripes()[::-1], "backwards")}), wanted) >= POWER


def test_one_picture_on_the_server_is_the_mask_of_all_frames(clip, save):
    path = save([halves()], "one")
    for given in (path, f"{path}/0.png"):
        assert difference(clip({"motion_mask_path": given}), clip({"motion_mask": encode(halves())})) == 0


@pytest.mark.parametrize(
    "windows",
    [{}, {"context_mode": "motion attention"}, {"stride": 2}, {"closed_loop": "R-P"}, {"closed_loop": "A", "batch_size": 16}],
    ids=lambda windows: ", ".join(map(str, windows.values())) or "whole UNet",
)
def test_masks_go_with_their_frames_in_windows(clip, save, windows):
    """Masks of one kind for all frames are one mask; and where another frame moves, another clip is made."""
    long = {"video_length": 8, "batch_size": 4, "overlap": 2, **windows}
    one = clip({**long, "motion_mask": encode(halves())})
    assert difference(clip({**long, "motion_mask_path": save([halves()] * 8, "eight")}), one) == 0
    moving = [halves()] * 4 + [halves(inverted=True)] * 4
    assert difference(clip({**long, "motion_mask_path": save(moving, "moving")}), one) >= POWER


def test_a_mask_has_the_size_of_the_hires_pass(clip):
    hires = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.7}
    larger = np.asarray(Image.fromarray(halves()).resize((128, 128), 0))
    frames = clip({"motion_mask": encode(halves())}, **hires)
    assert frames.shape[1:3] == (128, 128)
    assert difference(frames, clip({"motion_mask": encode(larger)}, **hires)) == 0
    assert difference(frames, clip({"motion_mask": encode(halves(inverted=True))}, **hires)) >= POWER


def test_what_is_black_holds_still_where_all_frames_have_the_same_noise(clip):
    """Otherwise its frames are stills of different noise."""
    black = {"motion_mask": encode(halves() * 0)}
    still = clip({**black, "noise_type": "constant"})
    assert difference(still[1:], still[:-1]) == 0
    assert difference(clip({"noise_type": "constant"})[0], clip({"noise_type": "constant"})[-1]) > 0
    unrelated = clip(black)
    assert mean_difference(unrelated[0], unrelated[-1]) >= POWER


def test_the_answer_tells_what_to_do_for_a_background_that_holds_still(host):
    for noise, told in (("per frame", 1), ("constant", 0)):
        args = {"motion_mask": encode(halves()), "noise_type": noise}
        answer = host.txt2img(**animate("v3", **args), **JOB)
        warnings = info_of(answer)["extra_generation_params"].get("AnimateDiff warnings", [])
        assert len(warnings) == told and all("Set Noise type (noise_type) to “constant”" in text for text in warnings)


def test_an_infotext_names_a_folder_of_masks_and_no_picture(host, save):
    path = save(stripes(), "private")
    infotext = info_of(host.txt2img(**animate("v3", motion_mask_path=path), **JOB))["infotexts"][0]
    assert "motion_mask_path: private" in infotext and "motion masks" not in infotext
    infotext = info_of(host.txt2img(**animate("v3", motion_mask=encode(halves())), **JOB))["infotexts"][0]
    assert "motion_mask" not in infotext


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"motion_mask": "no picture"}, ("Motion mask (motion_mask)", "base64")),
        ({"motion_mask_path": "/usr"}, ("motion masks (motion_mask_path)", "outside", "Add its folder")),
        ({"motion_mask_path": "{folder}/nowhere"}, ("motion masks (motion_mask_path)", "does not exist")),
        ({"motion_mask_path": "https://example.org/a.mp4"}, ("URL", "name the file")),
        ({"motion_mask_path": "{folder}/two"}, ("2 motion masks", "4 frames", "(video_length) to 2")),
        ({"motion_mask_path": "{folder}/broken"}, ("motion masks (motion_mask_path), broken, cannot be used", "1.png")),
        ({"motion_mask_path": "{folder}/two", "motion_mask": encode(halves())}, ("motion_mask", "motion_mask_path", "one of")),
    ],
)
def test_masks_that_cannot_be_used_are_refused(host, source_folder, save, args, words):
    save(stripes()[:2], "two")
    broken = source_folder / "motion masks" / "broken"
    save(stripes(), "broken")
    (broken / "1.png").write_bytes((broken / "1.png").read_bytes()[:70])
    folder = source_folder / "motion masks"
    request = animate("v3", **{name: value.format(folder=folder) for name, value in args.items()})
    text = text_of_refusal(host.txt2img(**request, **JOB))
    assert all(word in text for word in words), text


def test_img2img_fits_a_mask_like_its_picture(host):
    """A picture of 128×64 is squeezed to 64×64, and so is its mask."""
    make = made_once(host.img2img)
    request = {"init_images": [encode(gradient(128, 64))], "denoising_strength": 0.9, "width": 64, "height": 64, **JOB}
    wide = np.asarray(Image.fromarray(halves()).resize((128, 64), 0))
    one = make(**animate("v3", motion_mask=encode(wide)), **request)
    assert difference(one, make(**animate("v3", motion_mask=encode(halves())), **request)) <= 1  # the VAE has noise of its own
    assert difference(one, make(**animate("v3"), **request)) >= POWER
