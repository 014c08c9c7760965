"""The image UNet's layers run on some rows at a time."""

import pytest
import torch
from ldm.modules.attention import SpatialTransformer
from ldm.modules.diffusionmodules.openaimodel import ResBlock

from motion_module.layer_offload import in_chunks
from motion_module.training.image_model import load_image_model
from support.small_training import write_base

ROWS = 10


@pytest.fixture(scope="module")
def unet(tmp_path_factory):
    return load_image_model(write_base(tmp_path_factory.mktemp("base") / "base.safetensors")).unet


@pytest.fixture
def call(unet):
    draw = torch.Generator().manual_seed(0)
    x, context = torch.randn(ROWS, 4, 8, 8, generator=draw), torch.randn(ROWS, 77, 16, generator=draw)
    times = torch.arange(ROWS) * 90

    def run():
        with torch.no_grad():
            return unet(x, times, context=context)

    return run


@pytest.fixture
def rows_seen(unet):
    """Records the rows of every call of the UNet's layers."""
    seen, hooks = [], []
    for layer in unet.modules():
        inner = (
            layer.in_layers[-1]
            if isinstance(layer, ResBlock)
            else layer.norm
            if isinstance(layer, SpatialTransformer)
            else None
        )
        if inner is not None:
            hooks.append(inner.register_forward_pre_hook(lambda _inner, inputs: seen.append(len(inputs[0]))))
    yield seen
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize(("rows", "parts"), [(4, [4, 4, 2]), (5, [5, 5]), (16, [10])])
@pytest.mark.parametrize("device", [None, torch.device("cpu")])
def test_no_layer_has_more_rows_and_the_result_is_the_same(unet, call, rows_seen, rows, parts, device):
    expected = call()
    rows_seen.clear()
    with in_chunks(unet, rows, device):
        found = call()
    assert rows_seen[: len(parts)] == parts and set(rows_seen) == set(parts)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_afterwards_the_unet_is_unchanged(unet, call, rows_seen):
    before = forwards_of(unet)
    with in_chunks(unet, 4):
        call()
        assert forwards_of(unet) != before
    rows_seen.clear()
    call()
    assert set(rows_seen) == {ROWS} and forwards_of(unet) == before


def forwards_of(unet):
    """Returns the forward functions of instances that replace those of their classes."""
    return {name: module.forward for name, module in unet.named_modules() if "forward" in vars(module)}
