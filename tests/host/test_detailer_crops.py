"""Crops of a track: cut out of the frames, and pasted back."""

import numpy as np
import pytest
from PIL import Image

from animatediff.detailer.boxes import Box
from animatediff.detailer.crops import MULTIPLE, crops_of
from animatediff.detailer.tracks import Track
from support.pictures import gradient

FRAME = 320, 240


def picture(size=FRAME):
    return Image.fromarray(gradient(*size))


def track(*boxes, presence=None):
    return Track(0, [Box(*box) for box in boxes], len(boxes), presence or [1.0] * len(boxes))


def grown(box, padding):
    return box[0] - padding * box[2], box[1] - padding * box[3], box[2] * (1 + 2 * padding), box[3] * (1 + 2 * padding)


@pytest.mark.parametrize("box", [(100.3, 80.7, 60, 50), (-20, 100, 80, 60), (290, 200, 60, 60), (150, 10.5, 20, 20)])
@pytest.mark.parametrize("padding", [0, 0.25, 1])
def test_outside_of_the_padded_box_the_frame_is_equal_to_the_bit(box, padding):
    crops = crops_of(track(box), FRAME, padding, 256)
    frame, white = picture(), Image.new("RGB", crops.made, "white")
    pasted = np.asarray(crops.pasted([frame], [white])[0]).astype(int)
    changed = np.abs(pasted - np.asarray(frame)).max(axis=-1) > 0
    x, y, width, height = grown(box, padding)
    columns, rows = np.meshgrid(np.arange(FRAME[0]) + 0.5, np.arange(FRAME[1]) + 0.5)
    inside = (columns > x) & (columns < x + width) & (rows > y) & (rows < y + height)
    assert changed.any() and not changed[~inside].any()


def test_the_box_itself_is_wholly_the_detail():
    crops = crops_of(track((100, 80, 60, 50)), FRAME, 0.25, 256)
    frame = Image.new("RGB", FRAME, (90, 90, 90))
    detail = np.array(crops.cut(frame, 0))
    (x, y), (width, height), (across, down) = crops.corners[0], crops.size, crops.made
    columns, rows = (np.arange(across) + 0.5) * width / across + x, (np.arange(down) + 0.5) * height / down + y
    detail[np.ix_((rows > 80) & (rows < 130), (columns > 100) & (columns < 160))] = (200, 20, 20)
    pasted = np.asarray(crops.pasted([frame], [Image.fromarray(detail)])[0])
    assert np.abs(pasted[84:126, 104:156].astype(int) - (200, 20, 20)).max() <= 2
    assert (pasted[:67] == 90).all() and (pasted[:, 176:] == 90).all()


@pytest.mark.parametrize("box", [(100.3, 80.7, 60, 50), (31.25, 40, 97.5, 122.5)])
def test_what_was_not_changed_comes_back(box):
    crops = crops_of(track(box), FRAME, 0.25, 512)
    frame = picture()
    pasted = np.asarray(crops.pasted([frame], [crops.cut(frame, 0)])[0]).astype(int)
    assert np.abs(pasted - np.asarray(frame)).max() <= 2


def test_at_the_seam_the_colours_are_the_frames():
    """Whatever the image model adds to all colours alike is taken away again."""
    crops = crops_of(track((100, 80, 60, 50)), FRAME, 0.25, 256)
    frame = Image.fromarray(np.clip(gradient(*FRAME), 40, 200))
    brighter = Image.fromarray(np.asarray(crops.cut(frame, 0)) + np.array([30, 10, 20], np.uint8))
    assert np.abs(np.asarray(crops.pasted([frame], [brighter])[0]).astype(int) - np.asarray(frame)).max() <= 2


def test_the_colours_at_the_seam_are_matched_steadily():
    """What crosses the seam in one frame does not make the whole subject flicker."""
    crops = crops_of(track(*[(100, 80, 60, 50)] * 9), FRAME, 0.25, 256)
    frames = [Image.new("RGB", FRAME, (100, 100, 100))] * 9
    details = [Image.new("RGB", crops.made, (120, 120, 120))] * 9
    details[4] = Image.new("RGB", crops.made, (150, 120, 120))
    middle = np.array([np.asarray(frame)[105, 130, 0] for frame in crops.pasted(frames, details)], dtype=int)
    assert np.abs(np.diff(np.delete(middle, 4))).max() <= 2 and abs(middle[3] - 100) < 5
    assert middle[4] - middle[3] == pytest.approx(30, abs=2)


def test_all_crops_of_a_track_have_one_size_of_whole_multiples():
    boxes = [(60 + 4 * number, 60, 40 + number, 60 + number) for number in range(20)]
    crops = crops_of(track(*boxes), FRAME, 0.2, 512)
    assert all(side % MULTIPLE == 0 for side in crops.made)
    assert crops.size[0] / crops.size[1] == pytest.approx(crops.made[0] / crops.made[1])
    assert crops.size[0] >= 59 * 1.4 and crops.size[1] >= 79 * 1.4
    steps = np.diff([corner[0] for corner in crops.corners])
    assert steps.max() - steps.min() < 0.01, "it moves as steadily as the boxes, by fractions of pixels too"


@pytest.mark.parametrize("box", [(-100, -50, 900, 700), (0, 0, 320, 240), (10, -300, 40, 900)])
def test_a_box_larger_than_the_frame_is_the_frame(box):
    crops = crops_of(track(box), FRAME, 0.25, 256)
    assert crops.size[1] == 240 and crops.size[0] <= 320
    frame = picture()
    assert crops.cut(frame, 0).size == crops.made
    pasted = np.asarray(crops.pasted([frame], [Image.new("RGB", crops.made, "red")])[0])
    assert pasted.shape == (240, 320, 3)


def test_a_crop_is_never_made_smaller():
    crops = crops_of(track((10, 10, 250, 200)), FRAME, 0.0, 128)
    assert crops.made == (256, 192)


def test_what_is_hardly_present_hardly_shows():
    crops = crops_of(track((100, 80, 60, 50), (100, 80, 60, 50), presence=[0.25, 1.0]), FRAME, 0.25, 256)
    frame = Image.new("RGB", FRAME, (100, 100, 100))
    detail = np.full((*crops.made[::-1], 3), 100, np.uint8)
    detail[:, crops.made[0] // 2 - 20 : crops.made[0] // 2 + 20] = 180
    pasted = crops.pasted([frame] * 2, [Image.fromarray(detail)] * 2)
    faint, full = (np.asarray(each).astype(int)[105, 130, 0] for each in pasted)
    assert faint - 100 == pytest.approx((full - 100) / 4, abs=1)


def test_crops_that_overlap_are_pasted_one_upon_the_other():
    """Where both are, the later one shows; elsewhere nothing is lost."""
    frame = Image.new("RGB", FRAME, (100, 100, 100))
    left, right = (crops_of(track(box), FRAME, 0.25, 256) for box in ((80, 80, 60, 60), (110, 80, 60, 60)))

    def with_bar(crops, crop, colour):
        pixels = np.array(crop)
        middle = crops.made[0] // 2
        pixels[:, middle - 10 : middle + 10] = colour
        return Image.fromarray(pixels)

    (once,) = left.pasted([frame], [with_bar(left, left.cut(frame, 0), (180, 100, 100))])
    (twice,) = right.pasted([once], [with_bar(right, right.cut(once, 0), (100, 100, 180))])
    pixels = np.asarray(twice).astype(int)
    assert pixels[110, 110, 0] > 160 and pixels[110, 140, 2] > 160


def test_the_infotext_of_a_frame_stays():
    crops = crops_of(track((100, 80, 60, 50)), FRAME, 0.25, 256)
    frame = picture()
    frame.info["parameters"] = "a cat"
    assert crops.pasted([frame], [crops.cut(frame, 0)])[0].info["parameters"] == "a cat"
