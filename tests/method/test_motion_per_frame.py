"""Motion scale and motion effect of single frames, against the authors' maths in five dimensions."""

from copy import deepcopy
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import save_file

from motion_module.checkpoint import load
from motion_module.context_windows import ContextWindows
from motion_module.motion_layers import Motion, SecondModule
from motion_module.motion_strength import LayerStrength, MotionStrength, parse_rules
from motion_module.row_layout import RowLayout, layout_of_call
from motion_module.windowed_unet import WindowedUNet
from support.published_layouts import authors_layer, module_weights

FRAMES, PLACE = 6, "down_1_0"
SCALES, EFFECTS = (1.0, 0.0, 2.0, 0.5, 1.0, 3.0), (1.0, 0.0, 0.5, -1.0, 2.0, 1.0)


@dataclass
class Published:
    """A loaded module, and the weights of its layer at PLACE by published keys."""

    module: torch.nn.Module
    layer: dict


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("modules"), []
    prefix = "down_blocks.1.motion_modules.0.temporal_transformer."
    for seed, family in enumerate(("v3", "v2")):
        torch.manual_seed(seed)
        weights = module_weights(family)
        save_file(weights, folder / f"{family}.safetensors")
        layer = {key[len(prefix) :]: value for key, value in weights.items() if key.startswith(prefix)}
        made.append(Published(load(folder / f"{family}.safetensors")[1], layer))
    return made


def clips_of(count, frames, seed=0):
    return torch.randn(count, 64, frames, 3, 4, generator=torch.Generator().manual_seed(seed))


def rows_of(clips):
    return clips.transpose(1, 2).flatten(0, 1)


def animated(published, rows, layout, strength, **how):
    with torch.no_grad():
        return Motion(published.module, strength, **how).animate(PLACE, rows, layout)


def authors(published, clips, scales=None, effects=None, windows=None):
    """Returns the rows of clips with what the authors' layer adds, frame by frame times the effect of the frame."""
    added = authors_layer(published.layer, clips, windows, scales=scales and list(scales)) - clips
    factors = torch.tensor(effects or [1.0] * clips.shape[2])
    return rows_of(clips + added * factors[None, None, :, None, None])


def close(first, second):
    return torch.allclose(first, second, atol=1e-5, rtol=0)


def test_each_frame_attends_with_its_own_scale(modules):
    clips, layout = clips_of(2, FRAMES), layout_of_call(2 * FRAMES, FRAMES)
    ours = animated(modules[0], rows_of(clips), layout, MotionStrength(LayerStrength(scale=SCALES)))
    assert close(ours, authors(modules[0], clips, SCALES))
    plain = authors(modules[0], clips)
    assert (ours - plain).view(2, FRAMES, -1)[:, 1].abs().max() > 0.01


def test_a_scale_changes_the_attention_of_its_own_frame_alone(modules):
    attention = modules[0].module.layers[PLACE].attentions[0]
    hidden = torch.randn(5, FRAMES, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        mixed = attention(hidden, torch.tensor(SCALES).expand(5, -1))
        for frame, scale in enumerate(SCALES):
            assert torch.equal(mixed[:, frame], attention(hidden, scale)[:, frame])


def test_each_frame_gets_its_own_share_of_the_effect(modules):
    clips, layout = clips_of(2, FRAMES), layout_of_call(2 * FRAMES, FRAMES)
    rows = rows_of(clips)
    ours = animated(modules[0], rows, layout, MotionStrength(LayerStrength(effect=EFFECTS)))
    assert close(ours, authors(modules[0], clips, effects=EFFECTS))
    for frame, effect in enumerate(EFFECTS):
        alike = animated(modules[0], rows, layout, MotionStrength(LayerStrength(effect=effect)))
        assert torch.equal(ours.view(2, FRAMES, -1)[:, frame], alike.view(2, FRAMES, -1)[:, frame])
    assert torch.equal(ours.view(2, FRAMES, -1)[:, 1], rows.view(2, FRAMES, -1)[:, 1])


def test_half_precision_rounds_an_effect_as_one_number_for_all(modules):
    rows, layout = rows_of(clips_of(1, FRAMES)).bfloat16(), layout_of_call(FRAMES, FRAMES)
    module = deepcopy(modules[0])  # since layers take on the precision of their input
    for strength in ({"effect": 0.3}, {"scale": 0.3}):
        number = next(iter(strength.values()))
        for_all = animated(module, rows, layout, MotionStrength(LayerStrength(**strength)))
        for_each = dict.fromkeys(strength, (number,) * FRAMES)
        assert torch.equal(animated(module, rows, layout, MotionStrength(LayerStrength(**for_each))), for_all)


def test_frames_of_parts_joined_by_and_are_found_among_their_rows(modules):
    """The rows of two parts are frame by frame; those of the negative prompt follow."""
    clips, layout = clips_of(3, FRAMES), layout_of_call(3 * FRAMES, FRAMES, parts=2)
    strength = MotionStrength(LayerStrength(SCALES, EFFECTS))
    ours = layout.to_clips(animated(modules[0], layout.to_rows(clips.transpose(1, 2)), layout, strength))
    assert close(ours.flatten(0, 1), authors(modules[0], clips, SCALES, EFFECTS))


@pytest.mark.parametrize("closed_loop", ["none", "many"])
def test_windows_of_the_attention_have_the_numbers_of_their_frames(modules, closed_loop):
    windows = ContextWindows(FRAMES, 4, 2, closed_loop=closed_loop).at(1)
    clips, layout = clips_of(2, FRAMES), layout_of_call(2 * FRAMES, FRAMES)
    strength = MotionStrength(LayerStrength(SCALES, EFFECTS))
    ours = animated(modules[0], rows_of(clips), layout, strength, step_windows=lambda: windows)
    cut = list(zip(windows.frames.tolist(), windows.weights.tolist()))
    assert close(ours, authors(modules[0], clips, SCALES, EFFECTS, cut))


def test_windows_of_the_unet_have_the_numbers_of_their_frames(modules):
    windows = ContextWindows(FRAMES, 4, 2, uniform=False)
    strength = MotionStrength(LayerStrength(SCALES, EFFECTS))
    clips = clips_of(2, FRAMES)

    class UNet(torch.nn.Module):
        def forward(self, x):
            return animated(modules[0], x, windowed.layout_of(len(x)), strength)

    unet = UNet()
    windowed = WindowedUNet(windows, lambda: 0, lambda rows: layout_of_call(rows, FRAMES))
    with windowed.applied_to(unet):
        ours = unet(rows_of(clips))
    blended = torch.zeros(2, FRAMES, 64, 3, 4)
    step = windows.at(0)
    for frames, weights in zip(step.frames.tolist(), step.weights.tolist()):
        part = [[numbers[frame] for frame in frames] for numbers in (SCALES, EFFECTS)]
        of_window = authors(modules[0], clips[:, :, frames], *part).view(2, len(frames), 64, 3, 4)
        for index, (frame, weight) in enumerate(zip(frames, weights)):
            blended[:, frame] += weight * of_window[:, index]
    assert close(ours, blended.flatten(0, 1))


def test_a_second_module_has_the_same_numbers(modules):
    clips, layout = clips_of(2, FRAMES), layout_of_call(2 * FRAMES, FRAMES)
    strength, rows = MotionStrength(LayerStrength(SCALES, EFFECTS)), rows_of(clips)
    one, other = (authors(published, clips, SCALES, EFFECTS) - rows for published in modules)
    blended = animated(modules[0], rows, layout, strength, second=SecondModule(modules[1].module, "blend", 0.3))
    assert close(blended, rows + 0.7 * one + 0.3 * other)
    halved = tuple(effect / 2 for effect in EFFECTS)
    between = (rows + one).view(2, FRAMES, 64, 3, 4).transpose(1, 2)
    chained = animated(modules[0], rows, layout, strength, second=SecondModule(modules[1].module, "chain", 0.5))
    assert close(chained, authors(modules[1], between, SCALES, halved))


def test_a_rule_decides_in_its_block_and_steps(modules):
    """It takes the place of the numbers of the frames, as of one number for all."""
    strength = MotionStrength(LayerStrength(SCALES, EFFECTS), rules=parse_rules("down_1 0.5-1: scale 0.5; mid: effect 2"))
    assert strength.at(PLACE, 0.4) == LayerStrength(SCALES, EFFECTS)
    assert strength.at(PLACE, 0.6) == LayerStrength(0.5, EFFECTS)
    assert strength.at("mid_0", 0.6) == LayerStrength(SCALES, 2.0)


def test_the_frames_of_a_video_are_those_of_its_windows():
    values = torch.arange(5.0)
    windows = torch.tensor([[3, 4, 0], [0, 1, 2]])
    assert RowLayout(3, 6, frame_numbers=windows).of_video(values).tolist() == windows.float().tolist()
    assert RowLayout(5, 10).of_video(values).tolist() == [[0, 1, 2, 3, 4]] * 2
