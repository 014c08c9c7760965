"""SparseCtrl through the API: frames equal those of the authors' networks, with the same sampler."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from support.animation import animate, difference, frames_of, info_of, text_of_refusal
from support.authors_sparse import in_diffusers_form, in_ldm_form, sparse_weights
from support.pictures import encode, gradient, mean_difference
from support.published_layouts import WIDTHS, module_weights
from support.server import PROBE, REPOSITORY

FRAMES = 4
JOB = {"steps": 3, "negative_prompt": "bad"}
TEXT_WIDTH = 64
LIMIT = 2
"""The largest difference allowed, in levels of 255."""
POWER = 10 * LIMIT
PICTURES = [encode(gradient(shift=shift)) for shift in (0, 20, 40)]
SCRIBBLE = encode(np.where(gradient() > 200, 255, 0).astype(np.uint8))
FILES = {"v3_sd15_sparsectrl_rgb.ckpt": "RGB", "sparsectrl-scribble/diffusion_pytorch_model.safetensors": "scribble"}
RGB, SCRIBBLES = "v3_sd15_sparsectrl_rgb.ckpt", "sparsectrl-scribble"
OF_CONTROLNET = "mm_sd15_v3_sparsectrl_rgb.safetensors"


def drawn(kind, **sizes):
    """Returns weights with which pictures change the frames by much."""
    torch.manual_seed(7)
    weights = sparse_weights(kind, **{"text_width": TEXT_WIDTH, **sizes})
    embedding, gain = ("weight", 3) if kind == "RGB" else ("conv_out.weight", 20)
    weights[f"controlnet_cond_embedding.{embedding}"] *= gain
    if kind == "scribble":
        weights["controlnet_cond_embedding.conv_in.weight"][:, 3] *= 5  # the mask, beside a picture of white on black
    for key in weights:
        if kind == "scribble" and key.startswith("controlnet_down_blocks"):
            weights[key] *= 3
    return weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sparse")
    (folder / "motion" / "sparsectrl-scribble").mkdir(parents=True)
    torch.manual_seed(1)
    motion = {key: value * (0.5 if "proj_out" in key else 1) for key, value in module_weights("v3").items()}
    save_file(motion, folder / "motion" / "v3.safetensors")
    rgb, scribble = drawn("RGB"), drawn("scribble")
    torch.save(rgb, folder / "motion" / RGB)
    save_file(in_diffusers_form(scribble), folder / "motion" / SCRIBBLES / "diffusion_pytorch_model.safetensors")
    save_file(in_ldm_form(rgb), folder / "motion" / OF_CONTROLNET)
    save_file(rgb, folder / f"{RGB}.safetensors")
    save_file(scribble, folder / f"{SCRIBBLES}.safetensors")
    save_file(drawn("RGB", widths=(64, 64, 128, 128)), folder / "motion" / "sparse_wide.safetensors")
    (folder / "motion" / "sparse_broken.safetensors").write_bytes(b"\0" * 100)
    Image.fromarray(gradient()).save(folder / "picture.png")
    return folder


@pytest.fixture(scope="module")
def server(start_host, folder):
    options = {"animatediff_model_path": str(folder / "motion"), "animatediff_source_folders": str(folder)}
    server = start_host(extensions=[REPOSITORY, PROBE], options=options)
    yield server
    server.stop()


def clip(**args):
    return animate(**{"model": "v3.safetensors", "video_length": FRAMES, "closed_loop": "N", **args})


def ours(server, pictures=PICTURES[:1], model=RGB, method="txt2img", request=JOB, **args):
    body = clip(sparse_ctrl=model, sparse_pictures=pictures, **args)
    return frames_of(getattr(server, method)(**body, **request))


@pytest.fixture(scope="module")
def authors(server, folder):
    """Returns the frames of a request from the authors' networks, without the extension."""

    def run(*networks, method="txt2img", **request):
        sparse = [{"file": str(folder / f"{model}.safetensors"), **facts} for model, facts in networks]
        body = {"module": str(folder / "motion" / "v3.safetensors"), "frames": FRAMES, "sparse": sparse}
        assert server.post("/probe/v1/reference", body).ok
        try:
            plain = {**JOB, "batch_size": FRAMES, "override_settings": {"return_grid": False}, **request}
            return frames_of(getattr(server, method)(**plain))
        finally:
            assert server.post("/probe/v1/reference", {}).ok

    return run


@pytest.mark.parametrize(
    ("model", "pictures", "frames"),
    [
        (RGB, PICTURES[:1], [0]),
        (RGB, PICTURES, [3, 0, 2]),
        (SCRIBBLES, [SCRIBBLE], [1]),
        (SCRIBBLES, [SCRIBBLE] * FRAMES, [0, 1, 2, 3]),
    ],
)
def test_frames_are_those_of_the_authors(server, authors, model, pictures, frames):
    expected = authors((model, {"pictures": pictures, "frames": frames}))
    made = ours(server, pictures, model, sparse_frames=", ".join(map(str, frames)))
    assert difference(made, expected) <= LIMIT
    assert difference(frames_of(server.txt2img(**clip(), **JOB)), made) >= POWER, "without SparseCtrl they are others"


@pytest.mark.parametrize(("model", "pictures"), [(RGB, PICTURES[:1]), (SCRIBBLES, [SCRIBBLE])])
def test_the_comparison_notices_a_wrong_frame_and_an_inverted_mask(server, authors, model, pictures):
    made = ours(server, pictures, model, sparse_frames="1")
    elsewhere = authors((model, {"pictures": pictures, "frames": [2]}))
    inverted = authors((model, {"pictures": pictures, "frames": [1], "mask_at": [0, 2, 3]}))
    assert min(difference(made, elsewhere), difference(made, inverted)) >= POWER


def test_all_forms_of_a_file_make_the_same_frames(server):
    assert difference(ours(server), ours(server, model=OF_CONTROLNET)) <= 1
    assert difference(ours(server), ours(server, model="V3_SD15_sparsectrl_RGB")) == 0, "without its suffix, in another case"


def test_several_models_act_together(server, authors):
    first = RGB, {"pictures": PICTURES[:1], "frames": [0], "strength": 0.5}
    second = SCRIBBLES, {"pictures": [SCRIBBLE], "frames": [3]}
    more = [{"sparse_ctrl": SCRIBBLES, "sparse_pictures": [{"frame": -1, "image": SCRIBBLE}]}]
    made = ours(server, sparse_strength=0.5, sparse_more=more)
    assert difference(made, authors(first, second)) <= LIMIT
    assert difference(made, ours(server, sparse_strength=0.5)) >= POWER


def test_hires_has_pictures_of_its_own_size(server, authors):
    hires = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.6}
    made = ours(server, request={**JOB, **hires})
    expected = authors((RGB, {"pictures": PICTURES[:1], "frames": [0]}), **hires)
    assert made.shape[1:3] == (128, 128) and difference(made, expected) <= LIMIT


def test_prompts_joined_by_and_have_it_too(server):
    """Two equal parts of half the weight are the prompt itself."""
    whole = ours(server, request={**JOB, "prompt": "a cat"})
    parts = ours(server, request={**JOB, "prompt": "a cat :0.5 AND a cat :0.5"})
    assert difference(whole, parts) <= LIMIT


def test_strength_start_and_end(server):
    plain, whole = frames_of(server.txt2img(**clip(), **JOB)), ours(server)
    assert difference(ours(server, sparse_strength=0), plain) == 0
    assert difference(ours(server, sparse_end=0.001), plain) > 0, "it acts in the first step"
    late = ours(server, sparse_start=0.5)
    assert difference(late, plain) > 0 and difference(late, whole) > 0


@pytest.mark.parametrize(
    "windows", [{}, {"batch_size": 2, "overlap": 1}, {"batch_size": 2, "context_mode": "motion attention"}]
)
def test_each_frame_has_its_own_strength(server, windows):
    """Without the motion module's effect frames do not change each other."""
    stills = {"motion_effect": 0, **windows}
    plain, whole = frames_of(server.txt2img(**clip(**stills), **JOB)), ours(server, **stills)
    mixed = ours(server, sparse_strength_frames="0-1: 1\n2: 0\n3: 0.5", **stills)
    half = ours(server, sparse_strength=0.5, **stills)
    for frame, alike in enumerate((whole, whole, plain, half)):
        assert difference(mixed[frame], alike[frame]) <= 1, frame
        assert difference(whole[frame], plain[frame]) > 3 and difference(half[frame], whole[frame]) > 3


def test_the_picture_of_img2img_is_the_first(server):
    start = {**JOB, "init_images": PICTURES[:1], "denoising_strength": 0.9}
    asked = {"method": "img2img", "request": start, "image_mode": "strength ramp", "ramp_length": 0}
    first = ours(server, [], sparse_init_image=True, **asked)
    assert difference(first, ours(server, **asked)) <= 1
    both = ours(server, PICTURES[1:2], sparse_init_image=True, **asked)
    assert difference(both, ours(server, PICTURES[:2], sparse_frames="0, -1", **asked)) <= 1


def test_pictures_may_be_files_in_folders_that_the_settings_allow(server, folder):
    by_path = ours(server, [{"path": str(folder / "picture.png"), "frame": 0}])
    assert difference(by_path, ours(server)) == 0


def test_a_picture_of_other_proportions_is_cropped(server):
    wide = np.concatenate([np.zeros((64, 32, 3), np.uint8), gradient(), np.zeros((64, 32, 3), np.uint8)], axis=1)
    assert difference(ours(server, [encode(wide)]), ours(server)) == 0


@pytest.mark.parametrize("mode", ["whole UNet", "motion attention"])
def test_a_window_has_the_pictures_of_its_own_frames(server, mode):
    """There are two windows without an overlap."""
    long = {"video_length": 8, "batch_size": 4, "overlap": 0, "context_schedule": "static", "context_mode": mode}
    first = ours(server, [{"frame": 0, "image": PICTURES[0]}], **long)
    both = ours(server, [{"frame": 0, "image": PICTURES[0]}, {"frame": 7, "image": PICTURES[1]}], **long)
    assert difference(first[:4], both[:4]) <= 1
    assert min(difference(one, other) for one, other in zip(first[4:], both[4:])) >= POWER


def test_a_loop_and_a_stride_are_possible(server):
    made = ours(server, video_length=10, batch_size=4, closed_loop="A", stride=2)
    assert len(made) == 10


def test_the_settings_are_in_the_infotext_and_pictures_are_not(server):
    answer = server.txt2img(
        **clip(sparse_ctrl=RGB, sparse_pictures=PICTURES[:2], sparse_frames="0, 2", sparse_strength=0.75), **JOB
    )
    text = info_of(answer)["infotexts"][0]
    assert f"sparse_ctrl: {RGB}, sparse_frames: 0%2C 2, sparse_strength: 0.75" in text and "sparse_pictures" not in text


def test_a_picture_without_animatediff_is_as_before(server):
    before = frames_of(server.txt2img(**JOB))
    ours(server)
    assert difference(before, frames_of(server.txt2img(**JOB))) == 0


ONE = {"sparse_pictures": PICTURES[:1]}
REFUSED = [
    ({"sparse_ctrl": RGB}, (RGB, "has no picture", "Upload one")),
    ({"sparse_ctrl": "nowhere.ckpt", **ONE}, ("nowhere.ckpt", "is missing", RGB)),
    ({"sparse_ctrl": "../x.ckpt", **ONE}, ("../x.ckpt", "Name a file")),
    ({"sparse_ctrl": "v3.safetensors", **ONE}, ("v3.safetensors is not a SparseCtrl network: it is a motion module",)),
    ({"sparse_ctrl": "sparse_broken.safetensors", **ONE}, ("sparse_broken.safetensors",)),
    (
        {"sparse_ctrl": "sparse_wide.safetensors", **ONE},
        ("sparse_wide.safetensors does not fit the checkpoint", "64, 64, 128, 128"),
    ),
    ({"sparse_ctrl": RGB, **ONE, "sparse_frames": "4"}, ("frame 4", "4 frames of the video")),
    ({"sparse_ctrl": RGB, **ONE, "sparse_frames": "0, 1"}, ("2 numbers", "1 picture needs one")),
    ({"sparse_ctrl": RGB, "sparse_pictures": [{"path": "/etc/passwd"}]}, ("/etc/passwd", "lies outside")),
    (
        {"sparse_ctrl": RGB, **ONE, "batch_size": 33, "video_length": 33, "positional_encoding": "extend"},
        ("32 frames at once", "33"),
    ),
    (
        {"sparse_ctrl": RGB, **ONE, "offload": True, "context_mode": "motion attention", "batch_size": 2, "overlap": 0},
        ("Offload", "SparseCtrl adds to the features"),
    ),
]


@pytest.mark.parametrize(("args", "words"), REFUSED, ids=[" ".join(words)[:40] for _, words in REFUSED])
def test_what_cannot_be_is_refused_before_any_step(server, args, words):
    text = text_of_refusal(server.txt2img(**clip(**args), **JOB))
    assert all(word in text for word in words), text
    assert mean_difference(*(frames_of(server.txt2img(**JOB)) for _ in range(2))) == 0


def test_a_file_that_is_no_picture_is_refused_without_its_content(server, folder):
    (folder / "no.png").write_text("secret")
    text = text_of_refusal(server.txt2img(**clip(sparse_ctrl=RGB, sparse_pictures=[{"path": str(folder / "no.png")}]), **JOB))
    assert "The picture no.png (sparse_pictures) is not a picture" in text and "secret" not in text


def test_a_module_for_sdxl_is_refused(server, folder):
    save_file(module_weights("hotshot"), folder / "motion" / "hsxl_temporal_layers.safetensors")
    text = text_of_refusal(server.txt2img(**clip(model="hsxl_temporal_layers.safetensors", sparse_ctrl=RGB, **ONE), **JOB))
    assert "is made for SD 1.5, but the motion module hsxl_temporal_layers.safetensors for SDXL" in text


def test_widths_of_the_test_files():
    assert WIDTHS == (32, 64, 128, 128), "those of the tiny checkpoint"


@pytest.mark.parametrize("speed", ["Fast", "Fast (deep blocks)"])
def test_light_steps_go_beside_it(server, speed):
    """Deep blocks rest in them, and find nothing to add to."""
    steps = {**JOB, "steps": 12}
    exact, light = ours(server, request=steps), ours(server, request=steps, speed=speed)
    plain = frames_of(server.txt2img(**clip(), **steps))
    assert mean_difference(exact, light) < mean_difference(exact, plain)
