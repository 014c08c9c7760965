"""Spatial self-attention of every frame to the first one."""

import pytest
import torch

from motion_module.context_windows import ContextWindows
from motion_module.row_layout import RowLayout, layout_of_call
from motion_module.self_attention import FirstFrameAttention, self_attention_over
from motion_module.training.image_model import load_image_model
from motion_module.vram import WindowBudget
from motion_module.windowed_unet import WindowedUNet
from support.small_training import write_base

FRAMES = 4


@pytest.fixture(scope="module")
def unet(tmp_path_factory):
    return load_image_model(write_base(tmp_path_factory.mktemp("base") / "base.safetensors")).unet


def tokens(rows, seed=0):
    return torch.randn(rows, 64, 32, generator=torch.Generator().manual_seed(seed))


def attended(attention, x, seen):
    """Returns attention with queries from `x`, and keys and values from `seen`, row by row."""
    split = [part.unflatten(-1, (attention.heads, -1)).transpose(1, 2) for part in
             (attention.to_q(x), attention.to_k(seen), attention.to_v(seen))]  # fmt: skip
    weights = torch.softmax(split[0] @ split[1].transpose(-1, -2) / split[0].shape[-1] ** 0.5, dim=-1)
    return attention.to_out((weights @ split[2]).transpose(1, 2).flatten(2))


def layout_of(rows):
    return layout_of_call(rows, FRAMES)


@torch.no_grad()
def test_at_strength_one_every_frame_also_attends_to_the_first(unet):
    attention, x = unet.input_blocks[1][1].transformer_blocks[0].attn1, tokens(2 * FRAMES)
    first = torch.cat([x[:1].expand(FRAMES, -1, -1), x[FRAMES : FRAMES + 1].expand(FRAMES, -1, -1)])
    with self_attention_over(unet, FirstFrameAttention(layout_of)):
        found = attention(x)
    torch.testing.assert_close(found, attended(attention, x, torch.cat([x, first], dim=1)), atol=1e-5, rtol=0)
    torch.testing.assert_close(found[:1], attended(attention, x[:1], x[:1]), atol=1e-5, rtol=0)  # it attends to itself twice


@torch.no_grad()
def test_between_zero_and_one_it_is_interpolated(unet):
    attention, x = unet.input_blocks[1][1].transformer_blocks[0].attn1, tokens(FRAMES)
    plain, found = attention(x), {}
    for strength in (0.0, 0.25, 1.0):
        with self_attention_over(unet, FirstFrameAttention(layout_of), strength):
            found[strength] = attention(x)
    assert torch.equal(found[0.0], plain)
    torch.testing.assert_close(found[0.25], 0.75 * plain + 0.25 * found[1.0], atol=1e-6, rtol=0)
    assert (found[1.0] - plain).abs().max() > 1e-3
    assert torch.equal(attention(x), plain)


@torch.no_grad()
@pytest.mark.parametrize(("closed_loop", "step"), [("none", 0), ("none", 1), ("many", 1), ("many", 2)])
@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_windows_attend_to_the_first_frame_of_the_clip(unet, closed_loop, step, at_once):
    """The model is nothing but attention, so the result for each frame is known."""
    attention, frames = unet.input_blocks[1][1].transformer_blocks[0].attn1, 10
    windows = ContextWindows(frames, FRAMES, overlap=1, closed_loop=closed_loop)
    budget = WindowBudget(torch.device("cpu"))
    budget.windows = lambda _size: at_once
    whole = WindowedUNet(windows, lambda: step, lambda rows: RowLayout(frames, rows), budget)
    x = tokens(2 * frames).view(2 * frames, 64, 32, 1)
    first = x.view(2, frames, 64, 32)[:, :1].expand(-1, frames, -1, -1).flatten(0, 1)

    class Model(torch.nn.Module):
        def forward(self, rows):
            return attention(rows[..., 0])[..., None]

    model = Model()
    with whole.applied_to(model), self_attention_over(unet, FirstFrameAttention(whole.layout_of)):
        found = model(x)[..., 0]
    torch.testing.assert_close(found, attended(attention, x[..., 0], torch.cat([x[..., 0], first], dim=1)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("closed_loop", ["none", "few", "many"])
@pytest.mark.parametrize("step", range(8))
def test_a_window_with_the_first_frame_comes_first(closed_loop, step):
    assert 0 in ContextWindows(30, 8, overlap=2, stride=2, closed_loop=closed_loop).at(step).frames[0]
