"""CameraCtrl's pose encoder and what it adds in motion layers, compared with the authors' maths in five dimensions."""

import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from motion_module.__main__ import main
from motion_module.attach import attached, blocks_by_name
from motion_module.camera_ctrl import Camera, CameraModule, PoseEncoder, channels_in, level_of, load_camera
from motion_module.camera_poses import read_poses
from motion_module.checkpoint import describe, load
from motion_module.context_windows import ContextWindows
from motion_module.motion_layers import Motion
from motion_module.row_layout import RowLayout, layout_of_call
from motion_module.weight_files import CheckpointError
from motion_module.windowed_unet import WindowedUNet
from support import sparse_files
from support.authors_unet import AuthorsUNet
from support.camera_weights import authors_features, authors_rays, camera_weights, nested, pose_file
from support.ldm_unet import inputs, make_unet
from support.published_layouts import WIDTHS, authors_layer, module_weights

HEIGHT, WIDTH = 64, 128
"""Of the video: latents of 8×16, so that the lowest level has one row of two."""


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(2)
    return camera_weights()


@pytest.fixture(scope="module")
def files(weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("camera")
    torch.save(nested(weights), folder / "CameraCtrl.ckpt")
    save_file(weights, folder / "CameraCtrl_pruned.safetensors")
    for dtype in (torch.float16, torch.bfloat16):
        save_file({key: value.to(dtype) for key, value in weights.items()}, folder / f"{dtype}.safetensors")
    torch.manual_seed(1)
    save_file(module_weights("v3"), folder / "v3.safetensors")
    return folder


@pytest.fixture(scope="module")
def module(files):
    return load_camera(files / "CameraCtrl.ckpt")


@pytest.fixture
def encoded(monkeypatch):
    """A list with an entry for each run of a pose encoder: the shape of its rays."""
    runs, forward = [], PoseEncoder.forward
    monkeypatch.setattr(PoseEncoder, "forward", lambda self, rays: (runs.append(tuple(rays.shape)), forward(self, rays))[1])
    return runs


def close(ours, theirs, tolerance=1e-5):
    """Whether the difference is below a part of the largest number, where numbers are large."""
    return (ours - theirs).abs().max() < tolerance * max(1.0, float(theirs.abs().max()))


def features_of(weights, text):
    """The authors' features of a pose file at each level, `(frames, channels, height, width)`."""
    with torch.no_grad():
        return [level[0].transpose(0, 1) for level in authors_features(weights, authors_rays(text, HEIGHT, WIDTH))]


def layer_of(weights, place):
    side, level, index = place.split("_")
    prefix = f"{side}_blocks.{level}.motion_modules.{index}.temporal_transformer."
    return {key[len(prefix) :]: value for key, value in weights.items() if key.startswith(prefix)}


# --- the encoder ---


@pytest.mark.parametrize("frames", [16, 5, 1])
def test_the_encoder_computes_what_the_authors_compute(weights, module, frames):
    text = pose_file(frames)
    ours = module.encode(read_poses(text), HEIGHT // 8, WIDTH // 8, torch.device("cpu"))
    for level, theirs in zip(ours, features_of(weights, text), strict=True):
        assert theirs.abs().max() > 0.5
        assert close(level, theirs)


def test_a_clip_beyond_the_encoders_positions_is_encoded_in_windows_and_blended(weights, module):
    text = pose_file(30)
    ours = module.encode(read_poses(text), HEIGHT // 8, WIDTH // 8, torch.device("cpu"))
    rays = authors_rays(text, HEIGHT, WIDTH)
    starts, pyramid = (0, 8, 14), [*range(1, 9), *range(8, 0, -1)]
    share = torch.zeros(30)
    for start in starts:
        share[start : start + 16] += torch.tensor(pyramid)
    expected = [torch.zeros_like(level) for level in ours]
    for start in starts:
        for total, level in zip(expected, authors_features(weights, rays[:, :, start : start + 16])):
            weight = torch.tensor(pyramid) / share[start : start + 16]
            total[start : start + 16] += weight.view(-1, 1, 1, 1) * level[0].transpose(0, 1)
    assert all(close(level, theirs) for level, theirs in zip(ours, expected, strict=True))


def test_a_camera_is_encoded_once_for_each_size(module, encoded):
    camera = Camera(module, read_poses(pose_file(4)))
    for height, width in [(8, 16), (8, 16), (12, 16), (12, 16)]:
        camera.prepare(height, width, torch.device("cpu"))
    assert encoded == [(4, 6, 64, 128), (4, 6, 96, 128)]
    camera.leave_device()
    camera.prepare(12, 16, torch.device("cpu"))
    assert len(encoded) == 3, "nothing was kept"
    assert {weight.dtype for weight in module.parameters()} == {torch.float32}


# --- in a layer ---


def layouts(clips, frames):
    """Layouts of the rows of a call, by name: (layout, the row of each frame of each clip)."""
    whole = torch.arange(clips * frames).view(clips, frames)
    yield "clip after clip", layout_of_call(clips * frames, frames), whole
    parts = clips - 1  # parts of the prompt joined by AND, frame by frame, and the negative prompt
    by_frame = layout_of_call(clips * frames, frames, parts)
    yield "frame by frame", by_frame, by_frame.to_clips(torch.arange(clips * frames))


@pytest.mark.parametrize("place", ["down_0_1", "down_2_0", "up_0_2", "up_3_1"])
@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_a_layer_merges_the_features_as_the_authors_do(files, weights, module, place, strength):
    frames, clips, text = 6, 3, pose_file(6)
    motion = load(files / "v3.safetensors")[1]
    pose = features_of(weights, text)[level_of(place)]
    x = torch.randn(clips, pose.shape[1], frames, *pose.shape[2:])
    layer = {**layer_of(module_weights_of(files), place), **layer_of(weights, place)}
    theirs = pose.transpose(0, 1).expand(clips, *x.shape[1:])
    expected = authors_layer(layer, x, pose=(theirs, strength)).transpose(1, 2)
    without = authors_layer(layer, x).transpose(1, 2)
    camera = Camera(module, read_poses(text), strength)
    camera.prepare(HEIGHT // 8, WIDTH // 8, torch.device("cpu"))
    for name, layout, rows in layouts(clips, frames):
        ours_in = torch.empty(clips * frames, *x.shape[1:2], *x.shape[3:])
        ours_in[rows] = x.transpose(1, 2)
        with torch.no_grad():
            ours = Motion(motion, camera=camera).animate(place, ours_in, layout)
        assert close(ours[rows], expected), name
        assert (expected - without).abs().max() > 0.1


def module_weights_of(files):
    return load_file(files / "v3.safetensors")


def test_windows_of_the_attention_merge_each_frames_own_features(files, weights, module):
    frames, place, text = 11, "up_3_0", pose_file(11)
    cut = ContextWindows(frames, 8, 3, closed_loop="few").at(1)
    pose = features_of(weights, text)[0]
    x = torch.randn(2, 32, frames, *pose.shape[2:])
    layer = {**layer_of(module_weights_of(files), place), **layer_of(weights, place)}
    windows = list(zip(cut.frames.tolist(), cut.weights.tolist()))
    theirs = pose.transpose(0, 1).expand(2, -1, -1, -1, -1)
    expected = authors_layer(layer, x, windows, pose=(theirs, 0.7)).transpose(1, 2).flatten(0, 1)
    camera = Camera(module, read_poses(text), 0.7)
    camera.prepare(HEIGHT // 8, WIDTH // 8, torch.device("cpu"))
    motion = Motion(load(files / "v3.safetensors")[1], camera=camera, step_windows=lambda: cut)
    with torch.no_grad():
        ours = motion.animate(place, x.transpose(1, 2).flatten(0, 1), layout_of_call(2 * frames, frames))
    assert close(ours, expected)


def test_without_strength_nothing_changes_to_the_bit(files, module, encoded):
    motion = load(files / "v3.safetensors")[1]
    x, layout = torch.randn(8, 32, 8, 16), layout_of_call(8, 4)
    camera = Camera(module, read_poses(pose_file(4)), 0.0)
    camera.prepare(8, 16, torch.device("cpu"))
    assert torch.equal(
        Motion(motion, camera=camera).animate("down_0_0", x, layout), Motion(motion).animate("down_0_0", x, layout)
    )
    assert encoded == []


def test_features_of_another_size_are_resized_to_the_layer(files, module):
    """At 72 pixels a level of the UNet has five rows of its nine, the encoder four."""
    camera = Camera(module, read_poses(pose_file(4)))
    camera.prepare(9, 16, torch.device("cpu"))
    x = torch.randn(4, 64, 5, 8)
    assert camera.in_layer("down_1_0", x, layout_of_call(4, 4)).features.shape == (1, 4, 64, 40)


# --- in the UNet ---


@pytest.fixture(scope="module")
def unet():
    return make_unet()


def run(unet, rows, seed=0):
    x, context = inputs(rows, seed)
    return unet(x, torch.full((rows,), 500), context)


def test_every_layer_gets_the_features_of_its_level(files, weights, module, unet, encoded):
    text, frames, found = pose_file(4), 4, {}
    motion_weights = module_weights_of(files)
    description, motion = load(files / "v3.safetensors")
    camera = Camera(module, read_poses(text))
    handles = [
        block.register_forward_hook(lambda _m, _i, out, at=at: found.update({at: [out]}))
        for at, block in blocks_by_name(unet).items()
    ]
    with attached(unet, Motion(motion, camera=camera), description.family, lambda rows: layout_of_call(rows, frames)):
        handles += [
            block.register_forward_hook(lambda _m, _i, out, at=at: found[at].append(out))
            for at, block in blocks_by_name(unet).items()
        ]
        run(unet, 2 * frames)
        run(unet, 2 * frames)
    for handle in handles:
        handle.remove()
    assert encoded == [(4, 6, 64, 64)], "once, for two calls of two clips"
    features = authors_features(weights, authors_rays(text, 64, 64))
    for place in (place for place in found if place != "mid_0"):
        before, after = (rows.unflatten(0, (2, frames)).transpose(1, 2) for rows in found[place])
        pose = features[level_of(place)].expand(2, -1, -1, -1, -1)
        layer = {**layer_of(motion_weights, place), **layer_of(weights, place)}
        assert close(after, authors_layer(layer, before, pose=(pose, 1.0)), 1e-4), place


ROWS = {  # parts of the prompt, and the (clip, frame) of each row of each call
    "one clip": (1, [[(0, k) for k in range(4)]]),
    "three clips": (1, [[(clip, k) for clip in range(3) for k in range(4)]]),
    "a call for each": (1, [[(clip, k) for k in range(4)] for clip in range(3)]),
    "joined by AND": (2, [[*((part, k) for k in range(4) for part in range(2)), *((2, k) for k in range(4))]]),
    "AND, negative apart": (2, [[(part, k) for k in range(4) for part in range(2)], [(2, k) for k in range(4)]]),
}


@pytest.mark.parametrize("rows", ROWS)
def test_the_unet_computes_what_the_authors_compute_in_every_layout(files, weights, module, unet, rows):
    """Within 1e-5 of the largest number."""
    text, frames = pose_file(4), 4
    features = authors_features(weights, authors_rays(text, 64, 64))
    merged = {**module_weights_of(files), **weights}
    authors = AuthorsUNet(dict(unet.state_dict()), merged, camera=lambda _height, _width: features)
    x, context = (values.unflatten(0, (3, frames)) for values in inputs(3 * frames))
    expected = authors(x.transpose(1, 2), 500, context).transpose(1, 2)
    description, motion = load(files / "v3.safetensors")
    parts, calls = ROWS[rows]
    layout_of = lambda count: layout_of_call(count, frames, parts)  # noqa: E731
    with attached(unet, Motion(motion, camera=Camera(module, read_poses(text))), description.family, layout_of):
        for call in calls:
            clip, frame = (torch.tensor(numbers) for numbers in zip(*call))
            ours = unet(x[clip, frame], torch.full((len(call),), 500), context[clip, frame])
            assert close(ours, expected[clip, frame])
    assert expected.std() > 0.1


def test_in_a_window_each_frame_has_its_own_features(files, module, unet, monkeypatch):
    frames, length = 20, 16
    description, motion = load(files / "v3.safetensors")
    camera, seen, in_layer = Camera(module, read_poses(pose_file(frames))), [], Camera.in_layer
    monkeypatch.setattr(Camera, "in_layer", lambda self, *args: seen.append((args, in_layer(self, *args))) or seen[-1][1])
    whole = WindowedUNet(ContextWindows(frames, length, 4, uniform=False), lambda: 0, lambda rows: layout_of_call(rows, frames))
    with whole.applied_to(unet), attached(unet, Motion(motion, camera=camera), description.family, whole.layout_of):
        run(unet, 2 * frames)
    monkeypatch.undo()
    x = torch.empty(2 * length, 32, 8, 8)
    first = [(layout, got.features) for (block, _, layout), got in seen if block == "down_0_0"]
    every = camera.in_layer("down_0_0", x, RowLayout(frames, frames)).features[0]
    assert [layout.frame_numbers[0].tolist() for layout, _ in first] == [list(range(16)), list(range(4, 20))]
    for layout, features in first:
        assert torch.equal(features, every[layout.frame_numbers])


# --- files ---


def test_both_forms_of_the_file_have_the_same_weights(files, module, weights):
    flat = load_camera(files / "CameraCtrl_pruned.safetensors")
    assert all(
        torch.equal(one, other) for one, other in zip(module.state_dict().values(), flat.state_dict().values(), strict=True)
    )
    assert sum(value.numel() for value in module.state_dict().values()) == sum(value.numel() for value in weights.values())
    for name in ("CameraCtrl.ckpt", "CameraCtrl_pruned.safetensors"):
        assert describe(files / name).is_camera
        with pytest.raises(CheckpointError, match=r"Choose it as Camera module \(camera\), and a motion module"):
            describe(files / name).require_motion_module()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 5e-3), (torch.bfloat16, 4e-2)])
def test_files_in_half_precision_are_read_and_encode_in_single_precision(files, module, dtype, tolerance):
    half = load_camera(files / f"{dtype}.safetensors")
    assert {weight.dtype for weight in half.parameters()} == {dtype}
    one, other = (each.encode(read_poses(pose_file(4)), 8, 8, torch.device("cpu")) for each in (module, half))
    assert all(close(level, whole, tolerance) and level.dtype == torch.float32 for whole, level in zip(one, other))
    assert {weight.dtype for weight in half.parameters()} == {dtype}, "the module stays as it was read"


def test_inspect_says_what_the_file_is_for(files, tmp_path, weights, capsys):
    assert main(["inspect", str(files / "CameraCtrl.ckpt")]) == 0
    said = capsys.readouterr().out
    assert "kind: a CameraCtrl module" in said and "use: as Camera module (camera), beside a motion module" in said
    save_file({key: value for key, value in weights.items() if "conv_in" not in key}, tmp_path / "cut.safetensors")
    assert main(["inspect", str(tmp_path / "cut.safetensors")]) == 1
    assert "is not a complete CameraCtrl file" in capsys.readouterr().out


PUBLISHED = (320, 640, 1280, 1280)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", ["CameraCtrl.ckpt", "CameraCtrl_pruned.safetensors"])
def test_files_with_the_published_keys_and_shapes_are_recognised(tmp_path, name, dtype):
    with torch.device("meta"):
        entries = {key: (dtype, tuple(value.shape)) for key, value in camera_weights(PUBLISHED).items()}
    assert len(entries) == 190
    write = sparse_files.write_safetensors if name.endswith("safetensors") else sparse_files.write_torch
    write(tmp_path / name, entries)
    before = time.monotonic()
    description = describe(tmp_path / name)
    channels = channels_in(tmp_path / name)
    assert time.monotonic() - before < 2
    assert channels["down_0_0"] == channels["up_3_2"] == 320 and channels["up_0_0"] == 1280 and len(channels) == 20
    assert description.is_camera and description.parameters == sum(torch.Size(shape).numel() for _, shape in entries.values())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"encoder_down_conv_blocks.2.0.in_conv.bias": None}, "lacks encoder_down_conv_blocks.2.0.in_conv.bias. Download"),
        ({"encoder_conv_in.weight": torch.zeros(32, 6, 3, 3)}, r"encoder_conv_in.weight with the shape \[32, 384, 3, 3\]"),
        ({"encoder_down_conv_blocks.3.0.block1.bias": None}, "lacks encoder_down_conv_blocks.3.0.block1.bias"),
        ({"encoder_down_conv_blocks.0.0.block1.bias": torch.zeros(36)}, "lacks layers of usable sizes"),
    ],
)
def test_incomplete_files_are_refused(tmp_path, weights, change, said):
    changed = {key: value for key, value in {**weights, **change}.items() if value is not None}
    save_file(changed, tmp_path / "camera.safetensors")
    for read in (channels_in, load_camera):
        with pytest.raises(CheckpointError, match=said):
            read(tmp_path / "camera.safetensors")


def test_numbers_that_are_none_are_refused(tmp_path, weights):
    save_file({**weights, "encoder_conv_in.bias": torch.full((32,), torch.nan)}, tmp_path / "camera.safetensors")
    with pytest.raises(CheckpointError, match=r"encoder_conv_in\.bias contains values that are not numbers"):
        load_camera(tmp_path / "camera.safetensors")


def test_the_levels_of_blocks():
    assert [level_of(block) for block in ("down_0_0", "down_3_1", "up_0_0", "up_3_2")] == [0, 3, 3, 0]
    assert len(CameraModule(WIDTHS, 16).merges) == 20
