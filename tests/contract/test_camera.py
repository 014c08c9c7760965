"""CameraCtrl through the API: frames equal those of its authors' maths in their UNet, with the same sampler."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from support.animation import animate, difference, frames_of, info_of, recording, text_of_refusal
from support.camera_weights import camera_weights, nested, pose_file
from support.published_layouts import module_weights
from support.server import PROBE, REPOSITORY

FRAMES = 4
JOB = {"steps": 3, "negative_prompt": "bad"}
LIMIT = 2
"""The largest difference allowed, in levels of 255."""
POWER = 10
POSES = pose_file(FRAMES)
HALF = {torch.float16: "CameraCtrl-half.safetensors", torch.bfloat16: "CameraCtrl-brain.safetensors"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Motion modules and CameraCtrl's files as they are published, and copies of their weights for the authors' maths."""
    folder = tmp_path_factory.mktemp("camera")
    for name in ("motion", "authors", "poses"):
        (folder / name).mkdir()
    torch.manual_seed(1)
    for family in ("v3", "v2"):
        weights = module_weights(family)
        weights = {key: value * 0.5 if "proj_out" in key else value for key, value in weights.items()}
        save_file(weights, folder / "motion" / f"{family}.safetensors")
    camera = camera_weights()
    torch.save(nested(camera), folder / "motion" / "CameraCtrl.ckpt")
    save_file(camera, folder / "authors" / "CameraCtrl.ckpt")
    for dtype, name in HALF.items():
        stored = {key: value.to(dtype) for key, value in camera.items()}
        save_file(stored, folder / "motion" / name)
        save_file({key: value.float() for key, value in stored.items()}, folder / "authors" / name)
    save_file({key: value for key, value in camera.items() if "3.1.block1" not in key}, folder / "motion" / "cut.safetensors")
    wide = camera_weights((64, 64, 128, 128))
    save_file(wide, folder / "motion" / "wide.safetensors")
    (folder / "poses" / "walk.txt").write_text(POSES)
    (folder / "poses" / "long.txt").write_text(pose_file(FRAMES + 3))
    (folder / "poses" / "noise.txt").write_bytes(bytes(range(256)))
    (folder / "secret.txt").write_text(POSES)
    return folder


@pytest.fixture(scope="module")
def server(start_host, folder):
    options = {"animatediff_model_path": str(folder / "motion"), "animatediff_source_folders": str(folder / "poses")}
    server = start_host(extensions=[REPOSITORY, PROBE], options=options)
    yield server
    server.stop()


def asked(server, camera="CameraCtrl.ckpt", model="v3.safetensors", args=None, **request):
    values = {"model": model, "video_length": FRAMES, "camera": camera, **(args or {})}
    return server.txt2img(**animate(**values), **{**JOB, **request})


def ours(server, *names, **request):
    return frames_of(asked(server, *names, **request))


@pytest.fixture
def expected(server, folder):
    """Returns the frames of a request from the authors' maths, without the extension."""

    def run(camera="CameraCtrl.ckpt", poses=POSES, strength=1.0, **request):
        module = str(folder / "motion" / "v3.safetensors")
        facts = {"camera": str(folder / "authors" / camera), "poses": poses, "camera_strength": strength}
        assert server.post("/probe/v1/reference", {"module": module, "frames": FRAMES, **facts}).ok
        try:
            settings = {"override_settings": {"return_grid": False}}
            return frames_of(server.txt2img(batch_size=FRAMES, **settings, **{**JOB, **request}))
        finally:
            assert server.post("/probe/v1/reference", {}).ok

    return run


@pytest.mark.parametrize(
    ("args", "facts", "request_"),
    [
        ({}, {}, {}),
        ({"camera_strength": 0.5}, {"strength": 0.5}, {}),
        ({}, {}, {"width": 128, "height": 64}),
        ({}, {}, {"negative_prompt": "", "cfg_scale": 1}),
        ({}, {}, {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.7}),
    ],
    ids=["plain", "half strength", "wide", "one condition", "hires pass"],
)
def test_frames_equal_those_of_the_authors(server, expected, args, facts, request_):
    frames = ours(server, args={"camera_poses": POSES, **args}, **request_)
    assert difference(frames, expected(**facts, **request_)) <= LIMIT


@pytest.mark.parametrize("name", HALF.values())
def test_weights_in_half_precision_give_the_frames_of_these_weights(server, expected, name):
    frames = ours(server, name, args={"camera_poses": POSES})
    assert difference(frames, expected(name)) <= LIMIT


@pytest.mark.parametrize("fault", ["poses reversed", "pose encoder off"])
def test_the_comparison_detects_a_fault(server, expected, fault):
    """Wrong frames must differ by at least ten levels; right ones differ by at most two."""
    wanted = expected()
    server.post("/probe/v1/break-method", {"how": fault}).raise_for_status()
    try:
        frames = ours(server, args={"camera_poses": POSES})
    finally:
        server.post("/probe/v1/break-method", {"how": None})
    assert difference(frames, wanted) >= POWER


def test_prompt_parts_joined_by_and_have_the_same_camera(server):
    """Two equal parts add up to one prompt at twice the weight."""
    args = {"camera_poses": POSES}
    one = ours(server, args=args, prompt="a cat :2", cfg_scale=2)
    both = ours(server, args=args, prompt="a cat AND a cat", cfg_scale=2)
    assert difference(one, both) <= LIMIT


def test_a_file_has_the_same_poses_as_its_text(server, folder):
    text, file = (ours(server, args={"camera_poses": poses}) for poses in (POSES, str(folder / "poses" / "walk.txt")))
    assert difference(text, file) == 0


def test_strength_zero_is_without_a_camera_to_the_bit_and_a_still_camera_is_not(server):
    without = ours(server, "")
    assert difference(ours(server, args={"camera_strength": 0, "camera_motion": "pan left"}), without) == 0
    still, moving = ours(server), ours(server, args={"camera_motion": "pan left 4"})
    assert difference(still, without) > LIMIT and difference(still, moving) > LIMIT


@pytest.mark.parametrize("mode", ["whole UNet", "motion attention"])
def test_a_camera_moves_through_windows(server, mode):
    args = {"video_length": 8, "batch_size": 4, "overlap": 1, "context_mode": mode}
    one, other = (ours(server, args={**args, "camera_motion": f"4: {words}"}, steps=1) for words in ("pan left 8", "tilt up 8"))
    assert min(difference(one[frame : frame + 1], other[frame : frame + 1]) for frame in range(5, 8)) > LIMIT


def test_nothing_of_a_camera_is_kept_and_a_still_is_as_before(server):
    before = frames_of(server.txt2img(**JOB))
    ours(server, args={"camera_motion": "dolly in"})
    assert server.get("/probe/v1/cameras").json() == {"kept": 0}
    assert difference(frames_of(server.txt2img(**JOB)), before) == 0


def test_nothing_of_a_camera_is_kept_after_an_error(server):
    server.post("/probe/v1/late-fault", {"at": "layer"}).raise_for_status()
    assert asked(server, args={"camera_motion": "dolly in"}).status_code == 500
    assert server.get("/probe/v1/cameras").json() == {"kept": 0}


# --- requests ---


def test_a_video_that_is_too_small_is_refused_before_any_step(server):
    said = "needs a width and a height of at least 64, but the video is 64×32"
    assert said in text_of_refusal(asked(server, width=64, height=32))


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"camera": "v2.safetensors"}, "v2.safetensors cannot be the camera module (camera): it is a motion module"),
        ({"camera": "none.ckpt"}, "Camera module (camera): The motion module 'none.ckpt' is missing"),
        ({"camera": "cut.safetensors"}, "cut.safetensors is not a complete CameraCtrl file: it lacks encoder_down_conv"),
        ({"camera": "wide.safetensors"}, "wide.safetensors (camera) does not fit the motion module"),
        ({"model": "CameraCtrl.ckpt"}, "Choose it as Camera module (camera), and a motion module"),
        ({"camera_motion": "pan up"}, "Camera motion (camera_motion): “pan up” is no move of the camera"),
        ({"camera_motion": "9: pan left"}, "The keyframe “9: pan left” is outside the video"),
        ({"camera_motion": "pan left", "camera_poses": POSES}, "Give only one of them"),
        ({"camera_poses": pose_file(3)}, "has 3 poses for 4 frames. Set Number of frames (video_length) to 3 or less"),
        ({"camera_poses": POSES.replace(" 0.800000000", " 80")}, "The focal lengths in line 2 are 0.45 and 80"),
        ({"camera_poses": "a\nb"}, "Line 2 has 1 numbers, not 19"),
        ({"camera_poses": "/nowhere/walk.txt"}, "lies outside the folders that may be read"),
        ({"camera_poses": "noise.txt"}, "noise.txt, is no text"),
        ({"camera_poses": "missing.txt"}, "missing.txt, cannot be read"),
        ({"camera_strength": 11}, "Camera strength (camera_strength) is 11, but must be at most 10"),
    ],
)
def test_impossible_cameras_are_refused_before_any_step(server, folder, args, said):
    if (name := args.get("camera_poses")) in ("noise.txt", "missing.txt"):
        args = {"camera_poses": str(folder / "poses" / name)}
    with recording(server) as record:
        assert said in text_of_refusal(asked(server, args=args))
    assert record["sampler_runs"] == [] and record["text_encoder_forwards"] == 0


def test_a_pose_file_outside_the_allowed_folders_is_refused(server, folder):
    text = text_of_refusal(asked(server, args={"camera_poses": str(folder / "secret.txt")}))
    assert "lies outside the folders that may be read" in text


def test_warnings_say_what_does_not_suit(server, folder):
    def warned(**args):
        info = info_of(asked(server, args=args, steps=1))
        return " ".join(info["extra_generation_params"].get("AnimateDiff warnings", []))

    assert "CameraCtrl was trained with AnimateDiff v3, so with AnimateDiff v2" in warned(model="v2.safetensors")
    assert "has 7 poses, of which the first 4 are used" in warned(camera_poses=str(folder / "poses" / "long.txt"))
    assert "Camera motion (camera_motion) is pan left, which has an effect only if" in warned(
        camera="", camera_motion="pan left"
    )
    assert warned(camera_motion="pan left") == ""


def test_the_infotext_has_the_camera_and_not_where_its_poses_lie(server, folder):
    words = "0: pan left 0.5, tilt up\n2: dolly in"
    answer = asked(server, args={"camera_motion": words, "format": ["GIF"]}, steps=1)
    png_info = {"image": "data:image/gif;base64," + answer.json()["images"][0]}
    pasted = server.post("/sdapi/v1/png-info", png_info).json()["parameters"]
    assert pasted["AnimateDiff camera"] == "CameraCtrl.ckpt" and pasted["AnimateDiff camera_motion"] == words
    (infotext, *_) = info_of(asked(server, args={"camera_poses": str(folder / "poses" / "walk.txt")}, steps=1))["infotexts"]
    assert "camera_poses: walk.txt" in infotext and str(folder) not in infotext
    (infotext, *_) = info_of(asked(server, args={"camera_poses": POSES}, steps=1))["infotexts"]
    assert "camera_poses: text" in infotext
