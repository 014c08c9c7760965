"""The settings of a motion module, with their exact effects."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from motion_module.checkpoint import load
from motion_module.motion_layers import Motion, SecondModule, same_device
from motion_module.motion_strength import LayerStrength, MotionStrength, MotionStrengthError, Rule, parse_rules
from motion_module.network import TemporalTransformer
from motion_module.pia import ConditionImage, similarity
from motion_module.row_layout import layout_of_call
from motion_module.weight_patches import resized_positional_encoding, resized_table
from support.published_layouts import module_weights, sinusoids

FRAMES, PLACE = 4, "down_1_0"
LAYOUT = layout_of_call(2 * FRAMES, FRAMES)


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("modules"), []
    for seed, family in enumerate(("v2", "v3")):
        torch.manual_seed(seed)
        save_file(module_weights(family), folder / f"{family}.safetensors")
        made.append(load(folder / f"{family}.safetensors")[1])
    return made


@pytest.fixture(scope="module")
def x():
    return torch.randn(2 * FRAMES, 64, 6, 5, generator=torch.Generator().manual_seed(0))


def animated(module, x, controls=MotionStrength(), progress=0.0, second=None):
    with torch.no_grad():
        return Motion(module, controls, lambda: progress, second=second).animate(PLACE, x, LAYOUT)


def close(first, second):
    return (first - second).abs().max() < 1e-6


def test_effect_zero_is_off_and_half_is_the_mean_of_on_and_off(modules, x):
    on = animated(modules[0], x)
    assert (on - x).abs().max() > 0.5
    assert torch.equal(animated(modules[0], x, MotionStrength(LayerStrength(effect=0.0))), x)
    assert close(animated(modules[0], x, MotionStrength(LayerStrength(effect=0.5))), (on + x) / 2)
    assert torch.allclose(animated(modules[0], x, MotionStrength(LayerStrength(effect=2.0))), 2 * on - x, atol=1e-5)


def test_scale_zero_attends_to_all_frames_alike(modules, x):
    """With keys of zero, all frames have the same attention weight."""
    attention = modules[0].layers[PLACE].attentions[0]
    hidden = torch.randn(3, FRAMES, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        values = (hidden + attention.positional_encoding[:FRAMES]) @ attention.to_qkv.weight[128:].T
        expected = values.mean(1, keepdim=True).expand_as(values) @ attention.to_out.weight.T + attention.to_out.bias
        assert close(attention(hidden, 0.0), expected)
        half = torch.nn.Module.__call__(attention, hidden, 0.5)
        attention.to_qkv.weight[64:128] *= 0.5
        assert close(half, attention(hidden))
        attention.to_qkv.weight[64:128] *= 2
    assert not close(animated(modules[0], x, MotionStrength(LayerStrength(scale=0.5))), animated(modules[0], x))


@pytest.mark.parametrize(
    ("start", "end", "progress", "on"),
    [
        (0.0, 1.0, 0.0, True),
        (0.0, 1.0, 0.99, True),
        (0.2, 0.6, 0.1, False),
        (0.2, 0.6, 0.2, True),
        (0.2, 0.6, 0.59, True),
        (0.2, 0.6, 0.6, False),
        (0.5, 1.0, 1.0, True),  # some samplers call the UNet once more at the end
    ],
)
def test_a_module_acts_in_its_range_of_the_steps_only(modules, x, start, end, progress, on):
    result = animated(modules[0], x, MotionStrength(start=start, end=end), progress)
    assert torch.equal(result, x) != on


@pytest.mark.parametrize(
    ("rules", "place", "progress", "strength"),
    [
        ("", PLACE, 0.5, LayerStrength(1.2, 0.9)),
        ("down: effect 0.5", PLACE, 0.5, LayerStrength(1.2, 0.5)),
        ("down_1: scale 2", PLACE, 0.5, LayerStrength(2, 0.9)),
        ("down_1_0: scale 2 effect 0", PLACE, 0.5, LayerStrength(2, 0)),
        ("down_2: scale 2; up: scale 3\nmid: effect 0", PLACE, 0.5, LayerStrength(1.2, 0.9)),
        ("mid: effect 0", "mid_0", 0.5, LayerStrength(1.2, 0)),
        ("all 0-0.5: scale 2", PLACE, 0.49, LayerStrength(2, 0.9)),
        ("all 0-0.5: scale 2", PLACE, 0.5, LayerStrength(1.2, 0.9)),
        ("all: scale 2; down 0.5 - 1 : scale 0.5, effect 0.1", PLACE, 0.5, LayerStrength(0.5, 0.1)),
    ],
)
def test_rules_are_for_blocks_and_ranges_of_the_steps(rules, place, progress, strength):
    assert MotionStrength(LayerStrength(1.2, 0.9), rules=parse_rules(rules)).at(place, progress) == strength


@pytest.mark.parametrize(
    "rule",
    ["left: scale 1", "down", "down: 1", "down: scale", "down_4: scale 1", "up 0.6-0.4: scale 1", "up 0-2: effect 1",
     "all: scale 1 speed 2", "all 1.1.1-2: scale 1", "all: scale 1..2"],
)  # fmt: skip
def test_a_rule_that_cannot_be_read_is_named(rule):
    with pytest.raises(MotionStrengthError) as caught:
        parse_rules(f"mid: effect 0.5; {rule}")
    assert f"“{rule}”" in str(caught.value)


def test_a_rule_acts_in_its_block_only(modules, x):
    rules = MotionStrength(rules=(Rule("up", 0.0, 1.0, None, 0.0),))
    assert torch.equal(animated(modules[0], x, rules), animated(modules[0], x))


def test_two_modules_are_blended_or_chained(modules, x):
    first, second = animated(modules[0], x), animated(modules[1], x)
    for share in (0.0, 0.3, 1.0):
        blended = animated(modules[0], x, second=SecondModule(modules[1], "blend", share))
        assert close(blended, (1 - share) * first + share * second)
    after = animated(modules[1], first)
    assert close(animated(modules[0], x, second=SecondModule(modules[1], "chain", 1.0)), after)
    assert close(animated(modules[0], x, second=SecondModule(modules[1], "chain", 0.25)), 0.75 * first + 0.25 * after)


def test_a_second_module_may_lack_the_middle_block(modules):
    x = torch.randn(2 * FRAMES, 128, 3, 3)
    motion = Motion(modules[0], second=SecondModule(modules[1], "blend", 0.5))
    assert motion.channels["mid_0"] == 128
    with torch.no_grad():
        alone = Motion(modules[0]).animate("mid_0", x, LAYOUT)
        assert close(motion.animate("mid_0", x, LAYOUT), (alone + x) / 2)


# --- devices ---


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("cuda", "cuda:1", True),
        ("cuda:1", "cuda", True),
        ("cuda:1", "cuda:1", True),
        ("cuda", "cuda:0", False),
        ("cuda:0", "cuda:1", False),
        ("mps", "mps:0", True),
        ("cpu", "cpu", True),
        ("cpu", "cuda", False),
        ("cpu", "meta", False),
    ],
)
def test_a_device_without_an_index_is_the_current_one(one, other, same, monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert same_device(torch.device(one), torch.device(other)) is same


def test_layers_on_the_right_device_are_not_moved(modules, x, monkeypatch):
    """The WebUI's device has no index; the devices of tensors have one."""
    moved = []
    monkeypatch.setattr(TemporalTransformer, "to", lambda *given: moved.append(given))
    motion = Motion(modules[0], device=lambda: torch.device("cpu", 0))
    with torch.no_grad():
        motion.animate(PLACE, x, LAYOUT)
    assert not moved


# --- positional encodings ---


def test_a_stretched_encoding_is_interpolated(modules):
    table = sinusoids(32, 64)[0]
    stretched = resized_table(table, "stretch", 24, trained_on=16)
    assert stretched.shape == (24, 64)
    for frame in range(24):  # linear between the two rows nearest to the centre of the stretched frame
        at = min(max((frame + 0.5) * 16 / 24 - 0.5, 0), 15)
        low, share = int(at), at - int(at)
        assert close(stretched[frame], (1 - share) * table[low] + share * table[min(low + 1, 15)])
    assert resized_table(table, "stretch", 16, trained_on=16) is table


def test_an_extended_encoding_continues_the_sinusoid():
    table = sinusoids(24, 64)[0]
    extended = resized_table(table, "extend", 40, trained_on=16)
    assert torch.equal(extended[:24], table)
    assert torch.allclose(extended, sinusoids(40, 64)[0], atol=1e-5)
    assert resized_table(table, "extend", 24, trained_on=16) is table
    assert resized_table(table, "as trained", 40, trained_on=16) is table


@pytest.mark.parametrize("how", ["stretch", "extend"])
def test_resized_encodings_allow_more_frames_and_are_restored(modules, how):
    module = modules[1]
    before = dict(module.named_buffers())
    x = torch.randn(48, 64, 3, 3)
    with torch.no_grad(), resized_positional_encoding(module, how, 48, trained_on=16):
        assert Motion(module).animate(PLACE, x, layout_of_call(48, 48)).shape == x.shape
    assert all(tensor is before[name] for name, tensor in module.named_buffers())


# --- PIA's picture ---


def test_the_curves_are_the_published_ones():
    assert similarity("small motion", 8) == [1, 0.9, 0.85, 0.85, 0.85, 0.8, 0.8, 0.8]
    assert similarity("large motion", 16) == [1, 0.8, *[0.7] * 8, 0.6, *[0.5] * 5]
    assert similarity("moderate motion, loop", 16)[-3:] == [0.8, 0.8, 1.0]
    assert similarity("large motion, new style", 4) == [0.5, 0.2, 0.2, 0.2]


def test_a_condition_image_acts_as_in_a_convolution_of_nine_channels():
    torch.manual_seed(0)
    noise, latents, kernel, bias = torch.randn(4, 4, 6, 5), torch.randn(1, 4, 6, 5), torch.randn(8, 9, 3, 3), torch.randn(8)
    curve = similarity("small motion", 4)
    mask = torch.tensor(curve)[:, None, None, None].expand(4, 1, 6, 5)
    expected = F.conv2d(torch.cat([noise, mask, latents.expand(4, -1, -1, -1)], 1), kernel, bias, padding=1)
    ours = F.conv2d(noise, kernel[:, :4], bias, padding=1) + ConditionImage(latents, curve).convolved(kernel[:, 4:])
    assert (ours - expected).abs().max() < 1e-5
