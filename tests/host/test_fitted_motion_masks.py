"""Masks of motion: how they are fitted to the frames, and what is said of them."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from motion_module.row_layout import layout_of_call

ROOT = Path(__file__).resolve().parents[2]
PICTURE = (96, 64)


@pytest.fixture(scope="module")
def modules():
    """The modules, imported with the embedded host's `modules`: those of a job, and those of a request."""
    sys.path.insert(0, str(ROOT / "demo" / "host" / "webui"))
    yield importlib.import_module("animatediff.job.motion_masks"), importlib.import_module("animatediff.request.masks")
    sys.path.remove(str(ROOT / "demo" / "host" / "webui"))


def generation(width, height, **more):
    return SimpleNamespace(width=width, height=height, **more)


def img2img(width, height, resize_mode=0, **more):
    return generation(width, height, resize_mode=resize_mode, init_images=[Image.new("RGB", PICTURE)], **more)


def shares_of(modules, p, masks):
    """Returns the shares of the running pass, `(masks, height, width)` in latents."""
    mask = modules[0].MotionMasks(p, masks).of_pass()
    height, width = mask._shares.shape[1:]
    found = mask.of_rows(torch.zeros(len(masks), 4, height, width), layout_of_call(len(masks), len(masks)))
    return found[:, 0].numpy()


def square(size, left, top, right, bottom):
    mask = Image.new("L", size)
    mask.paste(255, (left, top, right, bottom))
    return mask


def expected(height, width, rows, columns):
    shares = np.zeros((height, width))
    shares[rows, columns] = 1
    return shares


WHOLE = square(PICTURE, 0, 0, 48, 32)


@pytest.mark.parametrize(
    ("p", "rows", "columns"),
    [
        (generation(96, 64), slice(0, 4), slice(0, 6)),
        (generation(64, 64), slice(0, 4), slice(0, 4)),  # a third of the width is cut off, a sixth on each side
        (img2img(64, 64), slice(0, 4), slice(0, 4)),
        (img2img(192, 64), slice(0, 4), slice(0, 12)),
        (img2img(192, 64, resize_mode=3), slice(0, 4), slice(0, 12)),
        (img2img(192, 128, resize_mode=1), slice(0, 8), slice(0, 12)),
        (img2img(96, 32, resize_mode=1), slice(0, 2), slice(0, 6)),
        (img2img(96, 128, resize_mode=2), slice(0, 8), slice(0, 6)),  # above and below, its edge goes on
        (img2img(192, 64, resize_mode=2), slice(0, 4), slice(0, 12)),
        (img2img(64, 64, paste_to=(32, 0, 32, 32)), slice(0, 8), slice(0, 4)),
        (img2img(64, 64, paste_to=None), slice(0, 4), slice(0, 4)),
        (generation(96, 64, is_hr_pass=True, hr_upscale_to_x=192, hr_upscale_to_y=128), slice(0, 8), slice(0, 12)),
        (generation(96, 64, is_hr_pass=False, hr_upscale_to_x=192, hr_upscale_to_y=128), slice(0, 4), slice(0, 6)),
        (
            generation(96, 64, is_hr_pass=True, hr_upscale_to_x=192, hr_upscale_to_y=128, truncate_x=8, truncate_y=0),
            slice(0, 8),
            slice(0, 8),
        ),
    ],
)
def test_a_mask_is_fitted_as_the_picture_is(modules, p, rows, columns):
    found = shares_of(modules, p, [WHOLE])[0]
    np.testing.assert_array_equal(found, expected(*found.shape, rows, columns))


def test_an_element_of_the_latents_has_the_mean_of_its_area(modules):
    levels = np.arange(16 * 24, dtype=np.float32).reshape(16, 24) % 256
    found = shares_of(modules, generation(24, 16), [Image.fromarray(levels.astype(np.uint8))])[0]
    for row in range(2):
        for column in range(3):
            mean = levels[8 * row : 8 * row + 8, 8 * column : 8 * column + 8].mean() / 255
            assert abs(found[row, column] - mean) < 1 / 255


@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize("size", [(64, 64), (90, 70), (8, 8), (200, 3), (3, 200), (640, 480)])
def test_white_and_black_stay_pure_at_any_size(modules, mode, size):
    for level in (0, 255):
        found = shares_of(modules, img2img(72, 64, resize_mode=mode), [Image.new("L", size, level)])
        np.testing.assert_array_equal(found, np.full((1, 8, 9), level / 255))


def test_each_frame_has_its_own_mask(modules):
    masks = [square(PICTURE, 8 * index, 0, 8 * index + 8, 8) for index in range(3)]
    found = shares_of(modules, generation(*PICTURE), masks)
    np.testing.assert_array_equal(found, [expected(8, 12, 0, index) for index in range(3)])


@pytest.mark.parametrize("mode", ["L", "RGB", "1", "P", "LA", "RGBA"])
def test_a_picture_is_read_by_its_levels_or_by_what_is_opaque(modules, mode):
    np.testing.assert_array_equal(modules[1].of_picture(WHOLE.convert(mode)), WHOLE)
    see_through = Image.new("RGBA", PICTURE, "#10e080")
    see_through.putalpha(WHOLE)
    np.testing.assert_array_equal(modules[1].of_picture(see_through), WHOLE)


# --- what is said of them ---


def plan(masks, images=None, noise="constant", frames=4):
    return SimpleNamespace(motion_masks=masks, images=images, frames=frames, params=SimpleNamespace(noise_type=noise))


@pytest.mark.parametrize(
    ("p", "mask", "images", "said"),
    [
        (generation(64, 64), Image.new("L", (640, 640), 255), None, ""),
        (generation(1920, 1080), Image.new("L", (250, 141), 255), None, ""),
        (
            generation(64, 64),
            WHOLE,
            None,
            "is 96×64, a shape that the frames do not have: they are 64×64, so only its middle was used. Give",
        ),
        (img2img(64, 64), WHOLE, [Image.new("RGB", PICTURE)], ""),
        (img2img(64, 64), Image.new("L", (32, 32)), [Image.new("RGB", PICTURE)], ""),
        (img2img(64, 64), Image.new("L", (32, 64)), [Image.new("RGB", PICTURE)], "so it was stretched."),
        (img2img(64, 64, 2), Image.new("L", (32, 64)), [Image.new("RGB", PICTURE)], "so its edges were extended."),
    ],
)
def test_another_shape_is_told(modules, p, mask, images, said):
    found = modules[0].warnings(p, plan([mask], images))
    assert len(found) == bool(said) and all(said in text for text in found), found


@pytest.mark.parametrize(
    ("mask", "images", "noise", "told"),
    [
        (WHOLE, None, "per frame", True),
        (WHOLE, None, "FreeNoise", True),
        (WHOLE, [Image.new("RGB", PICTURE)], "per frame", True),
        (WHOLE, None, "constant", False),
        (WHOLE, [Image.new("RGB", PICTURE)] * 4, "per frame", False),
        (Image.new("L", PICTURE, 200), None, "per frame", False),
    ],
)
def test_what_holds_still_needs_the_same_noise(modules, mask, images, noise, told):
    found = modules[0].warnings(generation(*PICTURE), plan([mask], images, noise))
    assert [("noise_type" in text) for text in found] == [True] * told


def test_there_is_one_mask_or_one_for_each_frame(modules):
    for count in (0, 1, 4):
        modules[0].require_matching(plan([WHOLE] * count))
    for count in (2, 3, 5):
        with pytest.raises(modules[0].RequestError, match=rf"{count} motion masks .* 4 frames.*video_length\) to {count}"):
            modules[0].require_matching(plan([WHOLE] * count))
