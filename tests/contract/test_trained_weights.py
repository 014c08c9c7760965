"""Long clips with the demo's trained weights: what they show. Other tests check what windows compute."""

import numpy as np
import pytest

from demo.run import CFG_SCALE
from demo.world.judge import read
from demo.world.model import world_in
from demo.world.render import TRAVEL
from support.animation import animate, frames_of, info_of
from support.server import HOSTS, REPOSITORY

pytestmark = pytest.mark.not_on(("Forge", "Neo"), "it takes no checkpoint with a narrow VAE")
LEFT, RIGHT = (f"a red circle moving {side} on a blue background" for side in ("left", "right"))
WAYS = ["whole UNet", "motion attention"]


@pytest.fixture(scope="module")
def world(request, tmp_path_factory):
    """Makes clips in the small world. Returns their frames, and how much they change."""
    folder = tmp_path_factory.mktemp("world")
    checkpoint, motion, _ = world_in(folder)
    options = {"sd_model_checkpoint": checkpoint.name, "animatediff_model_path": str(motion.parent)}
    small = {"width": 128, "height": 128, "steps": 6, "cfg_scale": CFG_SCALE, "sampler_name": "DDIM"}
    kind = HOSTS[request.config.getoption("--host")]
    with kind(tmp_path_factory.mktemp("host"), [REPOSITORY], weights=folder, options=options) as host:

        def make(prompt, frames, **args):
            answer = host.txt2img(**small, prompt=prompt, **animate(model=motion.name, video_length=frames, **args))
            return frames_of(answer), info_of(answer)["extra_generation_params"]["AnimateDiff seams"][0]

        yield make


def places(frames):
    """Returns the position of the red circle on its blue background, in widths of the frame from the left: `(frames,)`."""
    red = frames[..., 0] > frames[..., 2]
    return np.array([np.nonzero(frame)[1].mean() for frame in red]) / frames.shape[2]


def turns(track, least=TRAVEL / 3):
    """Returns the frames at which a track reverses: extremes that it leaves by `least`, a third of a clip's movement."""
    found, extreme, direction = [], 0, 0.0
    for frame, place in enumerate(track):
        ahead = place - track[extreme]
        if direction == 0:
            direction = np.sign(ahead) * (abs(ahead) >= least)
        if ahead * direction > 0:
            extreme = frame
        elif ahead * direction <= -least:
            found.append(extreme)
            extreme, direction = frame, -direction
    return found


@pytest.mark.parametrize("way", WAYS)
def test_a_prompt_travel_from_left_to_right_changes_direction_once(world, way):
    frames, _ = world(f"0-11: {LEFT}\n23: {RIGHT}", 36, closed_loop="N", context_mode=way)
    reading = read(frames)
    assert (reading.shape, reading.colour, reading.background) == ("circle", "red", "blue")
    track = places(frames)
    (turn,) = turns(track)
    assert 8 <= turn <= 18 and track[0] - track[turn] > TRAVEL / 2 and track[-1] - track[turn] > TRAVEL
    assert np.abs(np.diff(track)).max() < TRAVEL / 2, "it does not jump"


@pytest.mark.parametrize(
    ("prompt", "frames", "closed_loop", "closes"),
    [
        (LEFT, 24, "N", False),
        (LEFT, 24, "R+P", True),
        ("a white star bouncing on a purple background", 24, "R+P", True),
        (LEFT, 16, "A", True),
    ],
)
def test_a_loop_changes_no_more_across_its_end_than_elsewhere(world, prompt, frames, closed_loop, closes):
    _, seams = world(prompt, frames, closed_loop=closed_loop)
    assert (seams["closing"] <= max(seams["steps"])) == closes, seams
