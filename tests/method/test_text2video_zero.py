"""Text2Video-Zero, and the change of self-attention that it uses."""

import pytest
import torch

from motion_module.noise_schedule import STABLE_DIFFUSION
from motion_module.self_attention import self_attention_over
from motion_module.training.image_model import load_image_model
from motion_module.training.sampling import CLEAN, ddim, guided, timesteps
from motion_module.training.text2video_zero import shifted, text2video_zero_clip
from support.small_training import write_base


@pytest.fixture(scope="module")
def unet(tmp_path_factory):
    return load_image_model(write_base(tmp_path_factory.mktemp("base") / "base.safetensors")).unet


def found(unet, x):
    context = torch.randn(1, 77, 16, generator=torch.Generator().manual_seed(1)).expand(len(x), -1, -1)
    with torch.no_grad():
        return unet(x, torch.full((len(x),), 300), context=context)


@pytest.fixture
def x():
    return torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def test_attention_to_own_tokens_changes_nothing(unet, x):
    alone = found(unet, x)
    with self_attention_over(unet, lambda _attention, tokens: tokens):
        assert torch.equal(found(unet, x), alone)
    with self_attention_over(unet, lambda _attention, tokens: tokens.roll(1, 0)):
        assert not torch.allclose(found(unet, x), alone, atol=1e-3)
    assert torch.equal(found(unet, x), alone)


def test_keys_and_values_are_computed_from_the_given_tokens(unet):
    """Compares one layer with attention computed step by step."""
    attention = unet.input_blocks[1][1].transformer_blocks[0].attn1
    own, other = torch.randn(2, 64, 32), torch.randn(2, 64, 32)
    results = []
    attention.register_forward_hook(lambda _layer, _inputs, output: results.append(output))
    with self_attention_over(unet, lambda _attention, tokens: other), torch.no_grad():
        attention(own)
    query, key, value = attention.to_q(own), attention.to_k(other), attention.to_v(other)
    heads = [part.unflatten(-1, (attention.heads, -1)).transpose(1, 2) for part in (query, key, value)]
    weights = torch.softmax(heads[0] @ heads[1].transpose(-1, -2) / heads[0].shape[-1] ** 0.5, dim=-1)
    expected = attention.to_out((weights @ heads[2]).transpose(1, 2).flatten(2))
    assert torch.allclose(results[0], expected, atol=1e-5)


def test_cross_attention_still_attends_to_the_prompt(unet, x):
    seen = []
    attention = unet.middle_block[1].transformer_blocks[0].attn2
    hook = attention.register_forward_pre_hook(
        lambda _layer, _inputs, named: seen.append(named["context"].shape), with_kwargs=True
    )
    with self_attention_over(unet, lambda _attention, tokens: tokens[:1].expand_as(tokens)):
        found(unet, x)
    hook.remove()
    assert seen == [(3, 77, 16)]


@pytest.mark.parametrize(("part", "columns"), [(1 / 8, 1), (3 / 8, 3), (0, 0)])
def test_latents_are_moved_to_the_right_and_down(part, columns):
    latents = torch.zeros(1, 4, 8, 8)
    latents[..., 4, 4] = 1
    moved = shifted(latents, part)
    assert moved[0, 0, 4 + columns, 4 + columns] == 1
    assert moved.sum() == 4


def test_what_comes_in_at_the_edge_is_mirrored():
    latents = torch.arange(8.0).expand(1, 4, 8, 8).contiguous()
    assert shifted(latents, 2 / 8)[0, 0, 4].tolist() == [1, 0, 0, 1, 2, 3, 4, 5]


def test_timesteps_fall_from_the_last_one_to_clean():
    times = timesteps(STABLE_DIFFUSION, 25)
    assert (times[0], times[-1], len(times)) == (999, CLEAN, 26)
    assert times == sorted(set(times), reverse=True)


def test_ddim_reaches_the_latents_of_a_perfect_model():
    """A model that knows the clean latents predicts the exact noise, so that one step or many give these latents."""
    clean = torch.randn(1, 4, 8, 8)
    left = STABLE_DIFFUSION.alphas_cumprod()

    def predict(latents, times):
        part = left[times].view(-1, 1, 1, 1)
        return (latents - part**0.5 * clean) / (1 - part) ** 0.5

    noise = torch.randn(1, 4, 8, 8)
    for steps in (1, 7):
        assert torch.allclose(ddim(predict, noise, STABLE_DIFFUSION, timesteps(STABLE_DIFFUSION, steps)), clean, atol=1e-4)
    halfway = ddim(predict, noise, STABLE_DIFFUSION, [999, 500])
    expected = left[500] ** 0.5 * clean + (1 - left[500]) ** 0.5 * predict(noise, torch.tensor([999]))
    assert torch.allclose(halfway, expected, atol=1e-4)


def plain(unet, condition, empty, noise):
    times = timesteps(STABLE_DIFFUSION, 20)
    return ddim(guided(unet, condition, empty, 2.0), noise, STABLE_DIFFUSION, times)


def test_frames_of_a_clip_are_more_alike_than_single_frames(unet):
    """Compares them with frames that are generated separately from the same noise."""
    draw = torch.Generator().manual_seed(3)
    condition, empty = torch.randn(1, 77, 16, generator=draw), torch.randn(1, 77, 16, generator=draw)
    noise = torch.randn(4, 4, 8, 8, generator=draw)
    clip = text2video_zero_clip(unet, condition, empty, noise, frames=4, scale=2.0, steps=20)
    assert clip.shape == (4, 4, 8, 8)
    alone = torch.cat([plain(unet, condition, empty, noise[i : i + 1]) for i in range(4)])
    assert torch.allclose(clip[0], alone[0], atol=1e-4)  # the first frame is the same as alone
    assert clip.diff(dim=0).abs().mean() < alone.diff(dim=0).abs().mean()
