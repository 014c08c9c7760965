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
    unet = load_image_model(write_base(tmp_path_factory.mktemp("base") / "base.safetensors")).unet
    for part in unet.modules():
        vars(part).pop("forward", None)  # the trainer's own attention: the WebUI changes classes, extensions change modules
    return unet


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


def test_a_layer_with_a_function_of_another_extension_gets_all_rows(unet, call, rows_seen):
    """Such as ControlNet's reference, whose banks have all rows, or Regional Prompter, which counts them."""
    (transformer,) = [part for part in unet.input_blocks[1].modules() if isinstance(part, SpatialTransformer)]
    block = transformer.transformer_blocks[0]
    given, own = [], block._forward

    def replaced(x, context=None):
        given.append(len(x))
        return own(x, context=context)

    block._forward = replaced
    with in_chunks(unet, 4):
        call()
    assert given == [ROWS] and 4 in rows_seen

    given.clear(), rows_seen.clear()
    block._forward = own  # so do extensions undo it
    with in_chunks(unet, 4):
        call()
    assert max(rows_seen) == 4
