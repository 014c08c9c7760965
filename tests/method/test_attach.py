"""Motion layers in LDM's UNet."""

import pytest
import torch
from ldm.modules.diffusionmodules.openaimodel import ResBlock, Upsample
from safetensors.torch import save_file

from motion_module.attach import UnsuitableUNet, attached, blocks_by_name
from motion_module.checkpoint import load
from motion_module.context_windows import ContextWindows
from motion_module.layer_offload import in_chunks
from motion_module.motion_layers import Motion
from motion_module.motion_strength import LayerStrength, MotionStrength
from motion_module.pia import ConditionImage
from motion_module.row_layout import RowLayout, layout_of_call
from motion_module.windowed_unet import WindowedUNet
from support.ldm_unet import inputs, make_unet
from support.published_layouts import WIDTHS, authors_layer, module_weights

FRAMES = 4


@pytest.fixture(scope="module")
def unet():
    return make_unet()


@pytest.fixture
def module_of(tmp_path):
    def load_family(family, widths=WIDTHS):
        torch.manual_seed(1)
        path = tmp_path / f"{family}.safetensors"
        weights = module_weights(family, widths)
        save_file(weights, path)
        description, module = load(path)
        return description.family, module, weights

    return load_family


def run(unet, rows, seed=0):
    x, context = inputs(rows, seed)
    return unet(x, torch.full((rows,), 500), context)


def layout_of(rows):
    return layout_of_call(rows, FRAMES)


def state_of(unet):
    return {name: (len(m._forward_hooks), len(m._forward_pre_hooks), "forward" in vars(m)) for name, m in unet.named_modules()}


@pytest.mark.parametrize("family", ["v1", "v2", "v3"])
def test_an_attached_module_acts_and_leaves_nothing_afterwards(unet, module_of, family):
    facts, module, _ = module_of(family)
    before, keys, plain = state_of(unet), list(unet.state_dict()), run(unet, 2 * FRAMES)
    with attached(unet, Motion(module), facts, layout_of):
        assert list(unet.state_dict()) == keys
        moved = run(unet, 2 * FRAMES)
    assert (moved - plain).abs().max() > 0.01
    assert state_of(unet) == before
    assert torch.equal(run(unet, 2 * FRAMES), plain)


@pytest.mark.parametrize("family", ["v1", "v2", "v3"])
def test_nothing_is_left_after_an_exception(unet, module_of, family):
    facts, module, _ = module_of(family)
    before = state_of(unet)
    with pytest.raises(RuntimeError, match="in the middle"), attached(unet, Motion(module), facts, layout_of):
        raise RuntimeError("in the middle")
    assert state_of(unet) == before


@pytest.mark.parametrize("family", ["v1", "v3"])
def test_conditions_in_one_call_or_in_several_are_the_same(unet, module_of, family):
    facts, module, _ = module_of(family)
    generator = torch.Generator().manual_seed(0)
    x, context = torch.randn(8, 4, 8, 8, generator=generator), torch.randn(8, 7, 24, generator=generator)
    steps = torch.full((8,), 500)
    with attached(unet, Motion(module), facts, layout_of):
        together = unet(x, steps, context)
        apart = torch.cat([unet(x[:4], steps[:4], context[:4]), unet(x[4:], steps[4:], context[4:])])
    assert torch.allclose(together, apart, atol=1e-5)


def test_prompt_parts_frame_by_frame_are_the_same_as_one_after_another(unet, module_of):
    facts, module, _ = module_of("v1")
    generator = torch.Generator().manual_seed(0)
    x, context = torch.randn(12, 4, 8, 8, generator=generator), torch.randn(12, 7, 24, generator=generator)
    steps = torch.full((12,), 500)
    interleaved = torch.tensor([frame + part * FRAMES for frame in range(FRAMES) for part in range(2)] + list(range(8, 12)))
    with attached(unet, Motion(module), facts, layout_of):
        one_after_another = unet(x, steps, context)
    with attached(unet, Motion(module), facts, lambda rows: layout_of_call(rows, FRAMES, parts=2)):
        frame_by_frame = unet(x[interleaved], steps, context[interleaved])
    assert torch.allclose(frame_by_frame, one_after_another[interleaved], atol=1e-5)


def test_layers_follow_the_blocks_of_the_authors_and_come_before_upsampling(unet, module_of):
    """Compares input and output of each layer with the authors' maths."""
    facts, module, weights = module_of("v2")
    seen = {}
    for place, block in blocks_by_name(unet).items():
        block.register_forward_hook(lambda _m, _i, out, place=place: seen.setdefault(place, [out]) and None)
    with attached(unet, Motion(module), facts, layout_of):
        for place, block in blocks_by_name(unet).items():
            block.register_forward_hook(lambda _m, _i, out, place=place: seen[place].append(out))
        run(unet, 2 * FRAMES)
    for block in blocks_by_name(unet).values():
        block._forward_hooks.clear()
    assert len(seen) == 21
    for place, (before, after) in seen.items():
        side, *index = place.split("_")
        prefix = f"{side}_block{'' if side == 'mid' else 's.' + index[0]}.motion_modules.{index[-1]}.temporal_transformer."
        layer = {key[len(prefix) :]: value for key, value in weights.items() if key.startswith(prefix)}
        clips = before.reshape(2, FRAMES, *before.shape[1:]).transpose(1, 2)
        expected = authors_layer(layer, clips).transpose(1, 2).reshape(before.shape)
        assert torch.allclose(after, expected, atol=1e-4), place
    for block in (2, 5, 8):
        assert isinstance(unet.output_blocks[block][-1], Upsample)
        assert unet.output_blocks[block][-2] in blocks_by_name(unet).values()


def test_v1_norms_the_resblocks_and_the_output_over_frames_and_nothing_else(unet, module_of):
    facts, module, _ = module_of("v1")
    expected = {name for name, m in unet.named_modules() if isinstance(m, ResBlock)}
    norms = {f"{name}.{part}.0" for name in expected for part in ("in_layers", "out_layers")} | {"out.0"}
    with attached(unet, Motion(module), facts, layout_of):
        replaced = {name for name, m in unet.named_modules() if "forward" in vars(m)}
        assert replaced == norms
        norm = unet.out[0]
        x = torch.randn(2 * FRAMES, 32, 3, 5)
        clips = x.reshape(2, FRAMES, 32, 3, 5).transpose(1, 2)
        over_frames = torch.nn.functional.group_norm(clips, 32, norm.weight, norm.bias, norm.eps)
        assert torch.allclose(norm(x), over_frames.transpose(1, 2).reshape(x.shape), atol=1e-6)
    assert not torch.allclose(unet.out[0](x), over_frames.transpose(1, 2).reshape(x.shape), atol=1e-2)


def test_a_norm_that_another_extension_replaced_stays_replaced(unet, module_of):
    facts, module, _ = module_of("v1")
    norm = unet.out[0]
    theirs = lambda x: torch.nn.GroupNorm.forward(norm, x) + 1  # noqa: E731
    norm.forward = theirs
    try:
        x = torch.randn(FRAMES, 32, 4, 4)
        with attached(unet, Motion(module), facts, layout_of):
            assert norm(x).mean() > 0.9
        assert norm.forward is theirs
    finally:
        del norm.forward


class Scaler(torch.nn.Module):
    """What another extension may leave around a block, or a part of one."""

    def __init__(self, inner):
        torch.nn.Module.__init__(self)
        self.inner = inner

    def forward(self, *args):
        return self.inner(*args)


def wrapped(unet, place):
    parent, _, name = place.rpartition(".")
    modules = unet.get_submodule(parent)._modules
    kind = type(modules[name])  # LDM passes a part what its class asks for
    modules[name] = type("Scaler", (Scaler, kind), {})(modules[name]) if place.count(".") == 2 else Scaler(modules[name])


@pytest.mark.parametrize(
    ("family", "place"),
    [
        ("pia", "input_blocks.0"),
        *(
            ("v1", place)
            for place in ("input_blocks.1", "input_blocks.2.0", "input_blocks.2.1", "middle_block", "output_blocks.8.1")
        ),
        ("v1", "input_blocks.1.0.in_layers"),
        ("v1", "out"),
    ],
)
def test_layers_act_inside_modules_that_other_extensions_left(module_of, family, place):
    facts, module, _ = module_of(family)
    unet, image = make_unet(), ConditionImage(torch.ones(1, 4, 8, 8), [1.0] * FRAMES) if family == "pia" else None
    with attached(unet, Motion(module), facts, layout_of, image):
        expected = run(unet, 2 * FRAMES)
    wrapped(unet, place)
    with attached(unet, Motion(module), facts, layout_of, image):
        found = run(unet, 2 * FRAMES)
    assert torch.equal(found, expected)


def test_a_wrapped_block_can_be_run_in_chunks():
    unet = make_unet()
    expected = run(unet, 2 * FRAMES)
    for place in ("input_blocks.1", "middle_block", "output_blocks.4.1"):
        wrapped(unet, place)
    with in_chunks(unet, 3):
        torch.testing.assert_close(run(unet, 2 * FRAMES), expected)


@pytest.mark.parametrize("place", ["input_blocks.1", "middle_block", "output_blocks.5"])
def test_a_module_in_place_of_a_block_is_refused_by_name(module_of, place):
    facts, module, _ = module_of("v3")
    unet = make_unet()
    parent, _, name = place.rpartition(".")
    unet.get_submodule(parent)._modules[name] = Scaler(None)
    before = state_of(unet)
    with pytest.raises(UnsuitableUNet) as refusal, attached(unet, Motion(module), facts, layout_of):
        pass
    side = place.split(".")[0]
    assert f"A module Scaler of {__name__} is in the UNet's {side}" in str(refusal.value)
    assert "restart the WebUI" in str(refusal.value)
    assert state_of(unet) == before


@pytest.mark.parametrize("place", ["", "input_blocks.1"])
def test_a_compiled_unet_is_refused(module_of, place):
    """As `torch.compile` leaves it: hooks that are added afterwards are not called."""
    facts, module, _ = module_of("v3")
    unet = make_unet()
    unet.get_submodule(place)._modules["_orig_mod"] = torch.nn.Identity()
    with pytest.raises(UnsuitableUNet, match=r"compiled \(torch.compile\)"), attached(unet, Motion(module), facts, layout_of):
        pass


@pytest.mark.parametrize("effect", [1.0, 0.0])
def test_layers_tell_the_rows_that_they_are_called_with_at_any_strength(unet, module_of, effect):
    facts, module, _ = module_of("v3")
    told = []
    with attached(unet, Motion(module, MotionStrength(LayerStrength(effect=effect)), acts=told.append), facts, layout_of):
        run(unet, 2 * FRAMES)
    assert told == [RowLayout(FRAMES, 2 * FRAMES)] * 20


def test_layers_are_converted_to_the_dtype_of_the_unet(module_of):
    unet = make_unet()
    facts, module, _ = module_of("v3")
    block = blocks_by_name(unet)["down_3_0"]
    block.register_forward_hook(lambda _module, _inputs, output: output.double())
    with attached(unet, Motion(module), facts, layout_of):
        out = block(torch.randn(4, 128, 4, 4), torch.randn(4, 128))
    assert out.dtype == torch.float64
    assert {weight.dtype for weight in module.layers["down_3_0"].parameters()} == {torch.float64}


def test_wrong_channels_are_refused_before_anything_is_changed(unet, module_of):
    facts, module, _ = module_of("v3", (64, 64, 128, 128))
    before = state_of(unet)
    wrong = pytest.raises(UnsuitableUNet, match="down_0_0 it has 64 channels, and the checkpoint has 32")
    with wrong, attached(unet, Motion(module), facts, layout_of):
        pass
    assert state_of(unet) == before


def test_another_model_is_refused(module_of):
    facts, module, _ = module_of("v3")
    wrong = pytest.raises(
        UnsuitableUNet, match=r"does not have this block\. Choose a motion module and a checkpoint of the same kind"
    )
    with wrong, attached(make_unet((1, 2, 4)), Motion(module), facts, layout_of):
        pass
    wrong = pytest.raises(UnsuitableUNet, match=r"Choose a Stable Diffusion 1\.5 or SDXL checkpoint")
    with wrong, attached(make_unet((1, 2)), Motion(module), facts, layout_of):
        pass


# --- windows ---


def in_one_call(unet, module, family, frames, length):
    """Returns the noise of two clips from separate UNet calls for each window."""
    cut = ContextWindows(frames, length, length // 4).at(1)
    x, context = inputs(2 * frames)
    found = torch.zeros_like(x)
    with attached(unet, Motion(module), family, lambda rows: RowLayout(length, rows)):
        for window, weights in zip(cut.frames, cut.weights):
            for clip in (0, frames):
                rows = clip + window
                noise = unet(x[rows], torch.full((length,), 500), context[rows])
                for row, weight, frame in zip(rows.tolist(), weights.tolist(), noise):
                    found[row] += weight * frame
    return found


@pytest.mark.parametrize(("family", "frames"), [("v3", 17), ("v3", 33), ("v1", 32), ("v2", 40)])
def test_a_long_clip_is_the_blend_of_its_windows(unet, module_of, family, frames):
    found_family, module, _ = module_of(family)
    whole = WindowedUNet(ContextWindows(frames, 16, 4), lambda: 1, lambda rows: layout_of_call(rows, frames))
    before = state_of(unet)
    with whole.applied_to(unet), attached(unet, Motion(module), found_family, whole.layout_of):
        found = run(unet, 2 * frames)
    assert state_of(unet) == before
    torch.testing.assert_close(found, in_one_call(unet, module, found_family, frames, 16), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("closed_loop", ["none", "few"])
def test_windows_do_not_change_a_clip_that_fits_into_one(unet, module_of, closed_loop):
    family, module, _ = module_of("v3")
    with attached(unet, Motion(module), family, lambda rows: layout_of_call(rows, 16)):
        without = run(unet, 32)
    whole = WindowedUNet(ContextWindows(16, 16, 4, closed_loop=closed_loop), lambda: 3, lambda rows: layout_of_call(rows, 16))
    with whole.applied_to(unet), attached(unet, Motion(module), family, whole.layout_of):
        found = run(unet, 32)
    torch.testing.assert_close(found, without, rtol=1e-6, atol=1e-6)


def test_windows_of_a_model_for_inpainting_are_blended_in_the_channels_that_it_returns():
    model = torch.nn.Conv2d(9, 4, 1)
    whole = WindowedUNet(ContextWindows(6, 4, 2), lambda: 0, lambda rows: layout_of_call(rows, 6))
    x = torch.randn(12, 9, 8, 8)
    with torch.no_grad(), whole.applied_to(model):
        torch.testing.assert_close(model(x), torch.nn.functional.conv2d(x, model.weight, model.bias))


def test_in_a_window_each_frame_has_its_own_similarity_to_the_condition_image(unet, module_of):
    family, module, _ = module_of("pia")
    picture = ConditionImage(torch.randn(1, 4, 8, 8), [1.0, 0.5, 0.25, 0.0, 0.75, 0.125])
    whole = WindowedUNet(ContextWindows(6, 4, 2, uniform=False), lambda: 0, lambda rows: layout_of_call(rows, 6))
    seen, first = [], unet.input_blocks[0][0]
    with (
        whole.applied_to(unet),
        attached(unet, Motion(module), family, whole.layout_of, picture),
        first.register_forward_hook(lambda _module, _inputs, output: seen.append(output)),  # after the one under test
    ):
        run(unet, 12)
    x, added = inputs(12)[0], picture.convolved(module.condition_kernel)
    for rows, output in zip(([0, 1, 2, 3], [2, 3, 4, 5]), seen, strict=True):
        plain = first(torch.cat([x[rows], x[[row + 6 for row in rows]]]))
        torch.testing.assert_close(output, plain + added[rows].repeat(2, 1, 1, 1))
