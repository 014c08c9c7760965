"""A subject that is made again as a clip flickers less than one whose frames are made one by one: with trained weights."""

import numpy as np
import pytest
from PIL import Image

from animatediff.detailer.boxes import Box
from animatediff.detailer.crops import crops_of
from animatediff.detailer.tracks import Tracker
from animatediff.request.params import Params
from demo.run import CFG_SCALE
from demo.world.model import world_in
from motion_module.evaluation import measures_of
from support.animation import animate, frames_of
from support.pictures import encode, pictures_of
from support.server import HOSTS, REPOSITORY

pytestmark = pytest.mark.not_on(("Forge", "Neo"), "it takes no checkpoint with a narrow VAE")
FRAMES, SIDE = 16, 128
SCENES = [
    ("red circle", "moving left on a blue background"),
    ("yellow star", "moving right on a purple background"),
]
SMALL = {"width": SIDE, "height": SIDE, "cfg_scale": CFG_SCALE, "sampler_name": "DDIM", "seed": 1}
STEPS = 12
MADE_ANEW = 0.75
"""The detail strength at which most of a subject is made anew. At less, the wobble of the clip itself stays."""


@pytest.fixture(scope="module")
def world(request, tmp_path_factory):
    """A host with the small world's weights, and the name of its motion module."""
    folder = tmp_path_factory.mktemp("world")
    checkpoint, motion, _ = world_in(folder)
    options = {"sd_model_checkpoint": checkpoint.name, "animatediff_model_path": str(motion.parent)}
    kind = HOSTS[request.config.getoption("--host")]
    with kind(tmp_path_factory.mktemp("host"), [REPOSITORY], weights=folder, options=options) as host:
        yield host, motion.name


def box_of(frame):
    """Returns the box of the shape on its plain background."""
    away = np.abs(frame.astype(int) - np.median(frame, axis=(0, 1))).sum(axis=-1) > 120
    rows, columns = np.nonzero(away)
    return Box(*map(float, (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)))


def crops_along(frames, box):
    tracker = Tracker(follows=True)
    for number, frame in enumerate(frames):
        tracker.add(frame, [] if number else [box])
    (track,) = tracker.tracks()
    return crops_of(track, (SIDE, SIDE), Params().detail_padding, SIDE)


def frame_by_frame(host, crops, frames, prompt):
    """Returns the frames with their crops made again as ADetailer makes them: each by itself, with the seed of its frame."""
    pictures, details = [Image.fromarray(frame) for frame in frames], []
    for number, picture in enumerate(pictures):
        size = {"width": crops.made[0], "height": crops.made[1], "seed": SMALL["seed"] + number, "steps": STEPS}
        cut = encode(np.asarray(crops.cut(picture, number)))
        request = {**SMALL, **size, "prompt": prompt, "denoising_strength": MADE_ANEW, "init_images": [cut]}
        details += [Image.fromarray(detail) for detail in pictures_of(host.img2img(**request))]
    return np.stack([np.asarray(frame) for frame in crops.pasted(pictures, details)])


def flicker_within(crops, frames):
    """Returns the mean flicker within the crops."""
    return measures_of([np.asarray(crops.cut(Image.fromarray(f), n)) for n, f in enumerate(frames)]).flicker.mean()


def test_subjects_flicker_at_most_half_as_much_as_frame_by_frame(world):
    host, module = world
    flicker = []
    for shape, motion in SCENES:
        prompt, subject = f"a small {shape} {motion}", f"a large {shape} standing still {motion[motion.index('on a') :]}"
        request = {**SMALL, "steps": 6, "prompt": prompt}
        args = {"model": module, "video_length": FRAMES}
        plain = frames_of(host.txt2img(**request, **animate(**args)))
        box = box_of(plain[0])
        crops = crops_along(plain, box)
        args |= {"detail": "box", "detail_box": ", ".join(f"{side:g}" for side in box), "detail_prompt": subject}
        args |= {"detail_size": SIDE, "detail_steps": STEPS, "detail_strength": MADE_ANEW}
        ours = frames_of(host.txt2img(**request, **animate(**args)))
        theirs = frame_by_frame(host, crops, plain, subject)
        assert np.abs(ours.astype(int) - plain).mean() > 0.2
        flicker.append((flicker_within(crops, ours), flicker_within(crops, theirs)))
    ours, theirs = np.mean(flicker, axis=0)
    assert ours <= theirs / 2
