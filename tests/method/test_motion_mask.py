"""Masks of motion, with their exact effects in every layout of rows."""

from copy import deepcopy

import pytest
import torch
from safetensors.torch import save_file

from motion_module.checkpoint import load
from motion_module.context_windows import ContextWindows
from motion_module.motion_layers import Motion, SecondModule
from motion_module.motion_mask import MotionMask
from motion_module.motion_strength import LayerStrength, MotionStrength
from motion_module.row_layout import RowLayout, layout_of_call
from support.published_layouts import authors_layer, module_weights

FRAMES, PLACE = 4, "down_1_0"
KEYS = "down_blocks.1.motion_modules.0.temporal_transformer."
HEIGHT, WIDTH = 6, 10
LAYOUT = layout_of_call(2 * FRAMES, FRAMES)


@pytest.fixture(scope="module")
def weights():
    made = {}
    for seed, family in enumerate(("v3", "v2")):
        torch.manual_seed(seed)
        made[family] = module_weights(family)
    return made


@pytest.fixture(scope="module")
def modules(weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("modules")
    for family, tensors in weights.items():
        save_file(tensors, folder / f"{family}.safetensors")
    return [load(folder / f"{family}.safetensors")[1] for family in weights]


@pytest.fixture(scope="module")
def x():
    return torch.randn(2 * FRAMES, 64, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))


def animated(module, x, mask=None, strength=MotionStrength(), layout=LAYOUT, **how):
    """Returns the output of a layer. `mask`: the shares, or None."""
    given = None if mask is None else MotionMask(mask)
    with torch.no_grad():
        return Motion(module, strength, mask=None if given is None else lambda: given, **how).animate(PLACE, x, layout)


def levels(frames=1, side=(4 * HEIGHT, 4 * WIDTH)):
    """Returns shares of every kind between 0 and 1, four times as wide and high as `x`."""
    return torch.rand(frames, *side, generator=torch.Generator().manual_seed(1))


def seconds(modules):
    return [{}, *({"second": SecondModule(modules[1], how, 0.3)} for how in ("blend", "chain"))]


@pytest.mark.parametrize("effect", [1.0, 0.7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_white_mask_changes_no_bit_and_a_black_one_is_effect_zero(modules, x, effect, dtype):
    x, strength, modules = x.to(dtype), MotionStrength(LayerStrength(effect=effect)), deepcopy(modules)  # dtype is theirs too
    for how in seconds(modules):
        plain = animated(modules[0], x, strength=strength, **how)
        assert (plain - x).abs().max() > 0.3
        for side in ((HEIGHT, WIDTH), (8 * HEIGHT, 8 * WIDTH), (7, 9)):
            assert torch.equal(animated(modules[0], x, torch.ones(1, *side), strength, **how), plain)
            assert torch.equal(animated(modules[0], x, torch.zeros(1, *side), strength, **how), x)
            assert torch.equal(animated(modules[0], x, torch.ones(FRAMES, *side), strength, **how), plain)


def test_each_half_is_as_if_it_were_alone(modules, x):
    """A layer sees each pixel by itself but for its norm, which a mask leaves alone."""
    mask = torch.zeros(1, HEIGHT, WIDTH)
    mask[..., : WIDTH // 2] = 1
    for how in seconds(modules)[:2]:
        half, plain = animated(modules[0], x, mask, **how), animated(modules[0], x, **how)
        assert torch.equal(half[..., : WIDTH // 2], plain[..., : WIDTH // 2])
        assert torch.equal(half[..., WIDTH // 2 :], x[..., WIDTH // 2 :])
        assert not torch.equal(half, animated(modules[0], x, 1 - mask, **how))


def masked_authors(weights, clips, mask):
    """Returns the authors' layer with a mask, in five dimensions.

    `clips`: (clips, channels, frames, height, width). `mask`: (frames, height × 4, width × 4).
    """
    moved = authors_layer({key[len(KEYS) :]: value for key, value in weights.items() if key.startswith(KEYS)}, clips)
    share = torch.empty(len(mask), HEIGHT, WIDTH)
    for row in range(HEIGHT):
        for column in range(WIDTH):
            share[:, row, column] = mask[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].mean((1, 2))
    return (1 - share) * clips + share * moved


LAYOUTS = {
    "one clip": layout_of_call(FRAMES, FRAMES),
    "prompt and negative prompt": LAYOUT,
    "joined by AND": layout_of_call(3 * FRAMES, FRAMES, parts=2),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("masks", [1, FRAMES])
def test_levels_are_shares_of_the_effect_in_all_layouts_of_rows(modules, weights, name, masks):
    layout, mask = LAYOUTS[name], levels(masks)
    x = torch.randn(layout.rows, 64, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(2))
    clips = layout.to_clips(x).transpose(1, 2)
    expected = masked_authors(weights["v3"], clips, mask).transpose(1, 2)
    found = layout.to_clips(animated(modules[0], x, mask, layout=layout))
    assert (found - expected).abs().max() < 1e-5
    if masks > 1:
        assert (found - masked_authors(weights["v3"], clips, mask.roll(1, 0)).transpose(1, 2)).abs().max() > 0.1


def test_the_frames_of_a_window_have_their_own_masks(modules, weights):
    """As windows over the whole UNet call it: two windows of a clip of twelve frames, one of which goes around its end."""
    numbers = torch.tensor([[10, 11, 0, 1], [3, 5, 7, 9]])
    layout, mask = RowLayout(FRAMES, 2 * FRAMES, frame_numbers=numbers), levels(12)
    x = torch.randn(layout.rows, 64, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(3))
    found = layout.to_clips(animated(modules[0], x, mask, layout=layout))
    for clip, frames in enumerate(numbers):
        expected = masked_authors(weights["v3"], layout.to_clips(x)[clip : clip + 1].transpose(1, 2), mask[frames])
        assert (found[clip] - expected.transpose(1, 2)[0]).abs().max() < 1e-5


def test_windows_in_the_attention_leave_masks_with_their_frames(modules):
    count = 12
    windows = ContextWindows(count, FRAMES, 1, stride=2, closed_loop="few")
    layout, mask = layout_of_call(count, count), levels(count, (HEIGHT, WIDTH))
    x = torch.randn(count, 64, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(4))
    how = {"layout": layout, "step_windows": lambda: windows.at(3)}
    expected = torch.lerp(x, animated(modules[0], x, **how), mask[:, None])
    assert (animated(modules[0], x, mask, **how) - expected).abs().max() < 1e-5


def test_a_mask_is_scaled_to_each_resolution(modules):
    """Also to one that is no whole fraction of it, and in one job to several."""
    mask = MotionMask(levels(1, (8, 8)))
    for side in ((8, 8), (4, 4), (3, 5), (1, 1), (12, 12)):
        found = mask.of_rows(torch.zeros(FRAMES, 64, *side), layout_of_call(FRAMES, FRAMES))
        assert found.shape == (1, 1, *side) and abs(found.mean() - levels(1, (8, 8)).mean()) < 0.05
    whole = mask.of_rows(torch.zeros(FRAMES, 64, 1, 1), layout_of_call(FRAMES, FRAMES))
    assert abs(float(whole) - levels(1, (8, 8)).mean()) < 1e-6
