"""AnimateLCM-I2V: its file, its image encoder, and what that shows to motion layers."""

import math
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file

from motion_module.checkpoint import describe, load
from motion_module.convert import convert_file
from motion_module.families import LCM_I2V
from motion_module.image_encoder import ImageEncoder, ImageFeatures
from motion_module.motion_layers import Motion, SecondModule
from motion_module.motion_mask import MotionMask
from motion_module.motion_strength import LayerStrength, MotionStrength
from motion_module.row_layout import RowLayout, layout_of_call
from motion_module.weight_files import CheckpointError
from support.published_layouts import WIDTHS, authors_features, authors_layer, encoder_weights, module_weights, with_tables

FRAMES = 5
SEES = ["down_0_1", "down_1_1", "down_2_1", "down_3_1"]


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(0)
    return module_weights("lcm-i2v")


@pytest.fixture(scope="module")
def module(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("i2v") / "m.safetensors"
    save_file(weights, path)
    return load(path)[1]


def picture(height, width):
    return torch.randn(1, 4, height, width, generator=torch.Generator().manual_seed(1))


def features_of(module, size, drift=0.8):
    return ImageFeatures(module.image_encoder, picture(*size), drift)


def input_of(block, size, rows):
    """Returns the input of a motion layer in a UNet whose latents have this size."""
    level = SEES.index(block)
    height, width = (math.ceil(side / 2**level) for side in size)
    return torch.randn(rows, WIDTHS[level], height, width, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("size", [(8, 8), (9, 13), (11, 10), (1, 3)])
@pytest.mark.parametrize("drift", [0.0, 0.8, 1.5])
def test_features_are_the_authors(module, weights, size, drift):
    """Sizes that cannot be halved evenly are padded."""
    with torch.no_grad():
        found = module.image_encoder(picture(*size), FRAMES, drift)
    for level, (ours, authors) in enumerate(zip(found, authors_features(weights, picture(*size), FRAMES, drift), strict=True)):
        assert ours.shape == (FRAMES, WIDTHS[level], *(math.ceil(side / 2**level) for side in size))
        assert (ours - authors[0].transpose(0, 1)).abs().max() < 1e-5
        assert ours.std() > 0.1
        if drift:
            assert (ours[0] - ours[-1]).abs().max() > 0.05, "frames differ by their position"
        else:
            assert (ours - ours[:1]).abs().max() < 1e-5


def test_an_encoder_of_full_size_has_the_published_shapes():
    with torch.device("meta"):
        encoder, published = ImageEncoder((320, 640, 1280, 1280)), encoder_weights((320, 640, 1280, 1280))
    assert {f"img_encoder.{name}": value.shape for name, value in encoder.state_dict().items()} == {
        name: value.shape for name, value in published.items()
    }
    assert len(published) == 38


# --- what motion layers see ---


def animated(module, block, x, layout, size=(8, 8), strength=MotionStrength(), **how):
    with torch.no_grad():
        return Motion(module, strength, image=features_of(module, size), **how).animate(block, x, layout)


def expected(weights, block, clips, size=(8, 8)):
    """Returns the authors' output for `(clips, frames, channels, height, width)`: their layer after what the picture adds."""
    level = SEES.index(block)
    prefix = f"down_blocks.{level}.motion_modules.1.temporal_transformer."
    layer = {key[len(prefix) :]: value for key, value in with_tables(weights).items() if key.startswith(prefix)}
    shown = authors_features(weights, picture(*size), clips.shape[1])[level]
    return authors_layer(layer, clips.transpose(1, 2) + shown).transpose(1, 2)


@pytest.mark.parametrize("block", SEES)
@pytest.mark.parametrize("size", [(8, 8), (9, 13)])
def test_the_second_layer_of_each_level_sees_the_picture(module, weights, block, size):
    layout = layout_of_call(2 * FRAMES, FRAMES)
    x = input_of(block, size, layout.rows)
    found = layout.to_clips(animated(module, block, x, layout, size))
    assert (found - expected(weights, block, layout.to_clips(x), size)).abs().max() < 1e-5
    with torch.no_grad():
        assert (found - layout.to_clips(Motion(module).animate(block, x, layout))).abs().max() > 0.1


@pytest.mark.parametrize("block", ["down_0_0", "mid_0", "up_1_1"])
def test_other_layers_do_not(module, block):
    layout = layout_of_call(FRAMES, FRAMES)
    channels = {"down_0_0": WIDTHS[0], "mid_0": WIDTHS[3], "up_1_1": WIDTHS[2]}[block]
    x = torch.randn(FRAMES, channels, 4, 4)
    with torch.no_grad():
        assert torch.equal(animated(module, block, x, layout), Motion(module).animate(block, x, layout))


def test_frames_are_counted_within_their_window(module, weights):
    """As the positional encodings of motion layers count them, and in another order of rows."""
    numbers = torch.tensor([[7, 8, 9, 0, 1], [0, 2, 4, 6, 8]])
    in_windows = RowLayout(FRAMES, 2 * FRAMES, frame_numbers=numbers)
    by_and = layout_of_call(3 * FRAMES, FRAMES, parts=2)
    for layout in (in_windows, by_and):
        x = input_of("down_1_1", (8, 8), layout.rows)
        found = layout.to_clips(animated(module, "down_1_1", x, layout))
        assert (found - expected(weights, "down_1_1", layout.to_clips(x))).abs().max() < 1e-5


def test_strength_and_mask_apply_to_what_the_picture_adds(module):
    layout = layout_of_call(FRAMES, FRAMES)
    x = input_of("down_0_1", (8, 8), FRAMES)
    run = partial(animated, module, "down_0_1", x, layout)
    whole = run()
    assert torch.equal(run(strength=MotionStrength(LayerStrength(effect=0.0))), x)
    assert torch.equal(run(strength=MotionStrength(start=0.5)), x)
    assert (run(strength=MotionStrength(LayerStrength(effect=0.5))) - (x + whole) / 2).abs().max() < 1e-5
    left = torch.zeros(1, 8, 8)
    left[..., :4] = 1
    masked = run(mask=lambda: MotionMask(left))
    assert torch.equal(masked[..., :4], whole[..., :4]) and torch.equal(masked[..., 4:], x[..., 4:])


def test_a_second_module_does_not_see_the_picture(module, tmp_path):
    torch.manual_seed(5)
    save_file(module_weights("v2"), tmp_path / "v2.safetensors")
    other = load(tmp_path / "v2.safetensors")[1]
    layout = layout_of_call(FRAMES, FRAMES)
    x = input_of("down_0_1", (8, 8), FRAMES)
    first = animated(module, "down_0_1", x, layout)
    with torch.no_grad():
        second = Motion(other).animate("down_0_1", x, layout)
        after = Motion(other).animate("down_0_1", first, layout)
    blended = animated(module, "down_0_1", x, layout, second=SecondModule(other, "blend", 0.3))
    assert (blended - (0.7 * first + 0.3 * second)).abs().max() < 1e-5
    assert (animated(module, "down_0_1", x, layout, second=SecondModule(other, "chain", 1.0)) - after).abs().max() < 1e-5


def test_features_are_computed_once_for_all_layers_and_steps(module, monkeypatch):
    calls = []
    forward = ImageEncoder.forward
    monkeypatch.setattr(ImageEncoder, "forward", lambda *given: calls.append(given) or forward(*given))
    features = features_of(module, (8, 8))
    motion = Motion(module, image=features)
    with torch.no_grad():
        for frames in (FRAMES, FRAMES, 3):
            for block in SEES:
                layout = layout_of_call(frames, frames)
                motion.animate(block, input_of(block, (8, 8), frames), layout)
    assert len(calls) == 2, "once for each length"


# --- the file ---


def problem(path):
    with pytest.raises(CheckpointError) as caught:
        describe(path).require_motion_module()
    return str(caught.value)


def test_the_file_is_known_by_its_keys(weights, tmp_path):
    """Also with positional encodings, under `module.`, and whatever its name is."""
    for name, change in {
        "plain.safetensors": dict,
        "encodings.safetensors": lambda given: {key: value.clone() for key, value in with_tables(given).items()},
        "distributed.safetensors": lambda given: {f"module.{key}": value for key, value in given.items()},
    }.items():
        save_file(change(weights), tmp_path / name)
        description, module = load(tmp_path / name)
        assert description.family is LCM_I2V and description.alternatives == (LCM_I2V,) and not description.assumed
        assert not description.other and description.length == 64
        assert torch.equal(module.image_encoder.conv_in.weight, weights["img_encoder.conv_in.weight"])
        assert description.parameters == sum(value.numel() for value in change(weights).values())


def test_the_family_has_the_authors_facts():
    schedule = LCM_I2V.schedule
    assert (schedule.straight_in, schedule.first, schedule.last, LCM_I2V.original_steps) == ("betas", 0.00085, 0.014, 200)
    assert LCM_I2V.takes_image and LCM_I2V.lora == "AnimateLCM_sd15_i2v_lora" and LCM_I2V.unet_norms == "per frame"


def test_faults_of_the_encoder_are_named(weights, tmp_path):
    def refusal(**changes):
        changed = {**weights, **{f"img_encoder.{key.replace('__', '.')}": value for key, value in changes.items()}}
        save_file({key: value for key, value in changed.items() if value is not None}, tmp_path / "m.safetensors")
        return problem(tmp_path / "m.safetensors")

    assert "img_encoder.body.3.block1.bias is missing" in refusal(body__3__block1__bias=None)
    text = refusal(conv_in__weight=torch.zeros(32, 5, 3, 3))
    assert "img_encoder.conv_in.weight has the shape [32, 5, 3, 3], not [32, 4, 3, 3]" in text
    assert "img_encoder.body.8.block1.weight is unknown" in refusal(body__8__block1__weight=torch.zeros(2))


def test_it_keeps_its_encoder_in_the_authors_layout_and_is_not_for_diffusers(weights, tmp_path):
    torch.save({f"module.{key}": value for key, value in weights.items()}, tmp_path / "m.ckpt")
    back = load_file(convert_file(tmp_path / "m.ckpt", tmp_path / "out.safetensors", "original"))
    assert back.keys() == weights.keys() and all(torch.equal(value, weights[key]) for key, value in back.items())
    with pytest.raises(CheckpointError, match=r"m\.ckpt cannot be converted to diffusers, which has no image encoder"):
        convert_file(tmp_path / "m.ckpt", tmp_path / "folder", "diffusers")
    assert not (tmp_path / "folder").exists()


def test_its_encoder_alone_is_named(weights, tmp_path):
    save_file({key: value for key, value in weights.items() if key.startswith("img_encoder.")}, tmp_path / "m.safetensors")
    assert "the image encoder of AnimateLCM-I2V without its motion layers" in problem(tmp_path / "m.safetensors")
