"""SparseCtrl: the network against the authors' maths, its files, and how it acts in LDM's UNet."""

import copy
import dataclasses
import time

import pytest
import torch
from safetensors.torch import save_file

from motion_module.attach import UnsuitableUNet, attached
from motion_module.checkpoint import describe, load
from motion_module.context_windows import ContextWindows
from motion_module.layer_offload import in_chunks
from motion_module.motion_layers import Motion
from motion_module.row_layout import RowLayout, layout_of_call
from motion_module.sparse_control import SparseControl, controlled, require_sparse_fit
from motion_module.sparse_ctrl import describe_sparse_ctrl, load_sparse_ctrl
from motion_module.weight_files import CheckpointError
from motion_module.windowed_unet import WindowedUNet
from support import sparse_files
from support.authors_sparse import AuthorsSparseCtrl, in_diffusers_form, in_ldm_form, sparse_weights
from support.authors_unet import AuthorsUNet
from support.ldm_unet import make_unet
from support.published_layouts import module_weights

KINDS = ("RGB", "scribble")
FRAMES, SIZE, TIMESTEP = 6, 8, 321


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


def weights_of(kind):
    torch.manual_seed(KINDS.index(kind))
    return sparse_weights(kind)


@pytest.fixture(scope="module")
def weights(kind):
    return weights_of(kind)


def loaded(folder, weights, name="v3_sd15_sparsectrl.safetensors"):
    save_file({key: tensor.contiguous() for key, tensor in weights.items()}, folder / name)
    return load_sparse_ctrl(folder / name)


@pytest.fixture(scope="module")
def network(weights, tmp_path_factory):
    return loaded(tmp_path_factory.mktemp("sparse"), weights)


def pictures_for(kind, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 4, SIZE, SIZE) if kind == "RGB" else (count, 3, 8 * SIZE, 8 * SIZE)
    draw = torch.randn if kind == "RGB" else torch.rand
    return draw(shape, generator=generator)


def contexts(clips, frames=FRAMES, seed=1):
    return torch.randn(clips, frames, 7, 24, generator=torch.Generator().manual_seed(seed))


def in_rows(clips, layout):
    """Returns `(clips, channels, frames, …)` as rows."""
    return layout.to_rows(clips.transpose(1, 2))


def authors_added(weights, kind, frames, clips=2, **changed):
    pictures = pictures_for(kind, len(frames)).transpose(0, 1)[None].expand(clips, -1, -1, -1, -1)
    return AuthorsSparseCtrl(weights).added(pictures, frames, FRAMES, TIMESTEP, contexts(clips), **changed)


def ours_added(network, kind, frames, layout, clips=2, **settings):
    control = SparseControl(network, frames, lambda *_: pictures_for(kind, len(frames)), **settings)
    rows = layout.rows
    context = layout.to_rows(contexts(clips))
    return control.added(torch.zeros(rows, 4, SIZE, SIZE), torch.full((rows,), TIMESTEP), context, layout, None)


LAYOUTS = {
    "one after another": RowLayout(FRAMES, 2 * FRAMES),
    "parts of AND": layout_of_call(2 * FRAMES, FRAMES, parts=2),
    "any order": RowLayout(FRAMES, 2 * FRAMES, torch.randperm(2 * FRAMES, generator=torch.Generator().manual_seed(3))),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("frames", [[0], [0, 5], [2, 4, 1], list(range(FRAMES))], ids=str)
def test_it_returns_what_the_authors_network_does(network, weights, kind, frames, layout):
    theirs = authors_added(weights, kind, frames)
    ours = ours_added(network, kind, frames, layout)
    assert len(ours) == len(theirs) == 13
    for index, (one, other) in enumerate(zip(ours, theirs)):
        expected = in_rows(other, layout)
        assert one.shape == expected.shape
        error = (one - expected).abs().max() / expected.abs().max()
        assert error < 1e-5, f"{index}: {error}"


def test_a_picture_at_another_frame_or_an_inverted_mask_is_something_else(network, weights, kind):
    """The bound of the test above is missed by far more than ten times."""
    layout = LAYOUTS["one after another"]
    ours = ours_added(network, kind, [0, 3], layout)
    outside = [frame for frame in range(FRAMES) if frame not in (0, 3)]
    for theirs in (authors_added(weights, kind, [0, 4]), authors_added(weights, kind, [0, 3], mask_at=outside)):
        errors = [((a - in_rows(b, layout)).abs().max() / b.abs().max()).item() for a, b in zip(ours, theirs)]
        assert min(errors) > 1e-3


def test_strength_multiplies_what_is_added(network, kind):
    layout = LAYOUTS["one after another"]
    whole, half = (ours_added(network, kind, [1], layout, strength=strength) for strength in (1, 0.5))
    assert all(torch.allclose(one * 0.5, other) for one, other in zip(whole, half))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_each_frame_has_its_own_strength(network, kind, layout):
    """In windows it is that of the frame's number in the video."""
    weights = tuple(0.1 * frame for frame in range(FRAMES + 2))
    numbers = torch.arange(2, FRAMES + 2).expand(2, -1)
    for at, first in ((layout, 0), (dataclasses.replace(layout, frame_numbers=numbers), 2)):
        expected = torch.tensor(weights)[first : first + FRAMES].view(1, -1, 1, 1, 1)
        whole, mixed = (ours_added(network, kind, [1], at, strength=0.5, weights=given) for given in (1.0, weights))
        for one, other in zip(whole, mixed):
            assert torch.allclose(at.to_clips(one) * expected, at.to_clips(other), atol=1e-6)


def test_a_window_has_the_pictures_of_its_frames_and_is_a_clip_of_its_own(network, weights, kind):
    """Its frames are those of the video from 3 on, and around its end."""
    numbers = [3, 4, 5, 6, 7, 0]
    layout = RowLayout(FRAMES, 2 * FRAMES, frame_numbers=torch.tensor([numbers, numbers]))
    ours = ours_added(network, kind, [0, 4], layout)
    pictures = pictures_for(kind, 2).transpose(0, 1)[None].expand(2, -1, -1, -1, -1)
    theirs = AuthorsSparseCtrl(weights).added(pictures, [5, 1], FRAMES, TIMESTEP, contexts(2))
    for one, other in zip(ours, theirs):
        assert (one - in_rows(other, layout)).abs().max() / other.abs().max() < 1e-5


def test_in_diffusers_it_is_the_same(network, weights, kind):
    """`SparseControlNetModel` of diffusers, with the same weights under its own keys.

    One thing differs there: the group norms of its motion layers are over all frames, while those of the authors are over each.
    """
    diffusers = pytest.importorskip("diffusers", reason="the WebUI's own environment has no diffusers")

    theirs = diffusers.SparseControlNetModel(
        conditioning_channels=4 if kind == "RGB" else 3,
        block_out_channels=(32, 64, 128, 128),
        cross_attention_dim=24,
        use_simplified_condition_embedding=kind == "RGB",
    ).eval()
    state = in_diffusers_form(weights)
    assert {*theirs.state_dict()} == {*state}
    theirs.load_state_dict(state)
    frames, layout = [0, 3], RowLayout(FRAMES, FRAMES)
    scale = 1 if kind == "RGB" else 8
    shown = torch.zeros(1, 4 if kind == "RGB" else 3, FRAMES, scale * SIZE, scale * SIZE)
    mask = torch.zeros(1, 1, FRAMES, scale * SIZE, scale * SIZE)
    shown[:, :, frames] = pictures_for(kind, 2).transpose(0, 1)[None]
    mask[:, :, frames] = 1
    context = contexts(1).flatten(0, 1)
    with torch.no_grad():
        down, middle = theirs(
            torch.randn(1, 4, FRAMES, SIZE, SIZE),
            torch.tensor(TIMESTEP),
            context,
            controlnet_cond=shown,
            conditioning_mask=mask,
            return_dict=False,
        )
    control = SparseControl(copy.deepcopy(network), frames, lambda *_: pictures_for(kind, 2))
    for level in control.network.down_blocks:
        for layer in level.motion_modules:
            layer.norm_over_frames = True
    ours = control.added(torch.zeros(FRAMES, 4, SIZE, SIZE), torch.full((FRAMES,), TIMESTEP), context, layout, None)
    for one, other in zip(ours, [*down, middle]):
        assert one.shape == other.shape
        assert (one - other).abs().max() / other.abs().max() < 1e-5


# --- files ---

FORMS = {"authors": lambda weights: weights, "diffusers": in_diffusers_form, "sd-webui-controlnet": in_ldm_form}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_of_a_file_gives_the_same_network(tmp_path, network, weights, kind, form):
    other = loaded(tmp_path, form(weights))
    assert other.kind == kind
    mine, theirs = network.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    description = describe(tmp_path / "v3_sd15_sparsectrl.safetensors")
    assert description.kind == f"a SparseCtrl network ({kind})"
    with pytest.raises(CheckpointError, match="cannot be used as a motion module: it is a SparseCtrl network"):
        description.require_motion_module()


def test_weights_nested_as_the_authors_load_them_are_found(tmp_path, weights, kind):
    torch.save({"controlnet": {f"module.{key}": value for key, value in weights.items()}, "epoch": 1}, tmp_path / "a.ckpt")
    assert load_sparse_ctrl(tmp_path / "a.ckpt").kind == kind


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_files_stay_half_until_they_act(tmp_path, weights, kind, dtype):
    layout = LAYOUTS["one after another"]
    stored = {key: value.to(dtype) for key, value in weights.items()}
    half = loaded(tmp_path, stored)
    assert {weight.dtype for name, weight in half.state_dict().items() if "positional" not in name} == {dtype}
    exact = AuthorsSparseCtrl({key: value.float() for key, value in stored.items()})
    pictures = pictures_for(kind, 1).transpose(0, 1)[None].expand(2, -1, -1, -1, -1)
    theirs = exact.added(pictures, [0], FRAMES, TIMESTEP, contexts(2))
    for one, other in zip(ours_added(half, kind, [0], layout), theirs):
        assert (one - in_rows(other, layout)).abs().max() / other.abs().max() < 1e-5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop("controlnet_mid_block.bias"), "controlnet_mid_block.bias is missing"),
        (lambda w: w.update({"more": torch.zeros(1)}), "more is unknown"),
        (lambda w: w.update({"conv_in.weight": torch.zeros(32, 4, 3)}), "conv_in.weight has the shape"),
        (
            lambda w: w.pop("down_blocks.3.motion_modules.1.temporal_transformer.proj_in.bias"),
            "down_blocks.3.motion_modules.1.temporal_transformer.proj_in.bias is missing",
        ),
        (lambda w: w.update({"down_blocks.0.resnets.0.conv1.weight": torch.zeros(0)}), "not those of Stable Diffusion 1"),
    ],
)
def test_incomplete_or_changed_files_are_refused(tmp_path, change, words):
    changed = dict(weights_of("RGB"))
    change(changed)
    with pytest.raises(CheckpointError, match="incomplete or changed SparseCtrl network") as caught:
        loaded(tmp_path, changed)
    assert words in str(caught.value) and "Download it again" in str(caught.value)


def test_other_files_are_refused_by_what_they_are(tmp_path):
    save_file(module_weights("v3"), tmp_path / "mm.safetensors")
    with pytest.raises(CheckpointError, match=r"is not a SparseCtrl network: it is a motion module\. Choose one"):
        load_sparse_ctrl(tmp_path / "mm.safetensors")


@pytest.mark.parametrize(
    ("name", "form", "dtype"),
    [
        ("v3_sd15_sparsectrl_{}.ckpt", "authors", torch.float32),
        ("animatediff-sparsectrl-{}/diffusion_pytorch_model.safetensors", "diffusers", torch.float32),
        ("mm_sd15_v3_sparsectrl_{}.safetensors", "sd-webui-controlnet", torch.float16),
    ],
)
def test_published_files_are_recognised_at_once(tmp_path, kind, name, form, dtype):
    """Keys, shapes and number formats of the published files, without their contents."""
    with torch.device("meta"):
        whole = FORMS[form](sparse_weights(kind, (320, 640, 1280, 1280), 768))
    path = tmp_path / name.format(kind.lower())
    path.parent.mkdir(exist_ok=True)
    write = sparse_files.write_torch if path.suffix == ".ckpt" else sparse_files.write_safetensors
    write(path, {key: (dtype, tuple(value.shape)) for key, value in whole.items()})
    before = time.monotonic()
    shape, description = describe_sparse_ctrl(path), describe(path)
    assert time.monotonic() - before < 2
    assert (shape.kind, shape.widths, shape.text_width) == (kind, (320, 640, 1280, 1280), 768)
    assert description.kind == f"a SparseCtrl network ({kind})" and description.dtypes == (str(dtype)[6:],)


# --- in the UNet ---


@pytest.fixture(scope="module")
def unet():
    return make_unet()


def x_of(clips, frames=FRAMES):
    return torch.randn(clips, 4, frames, SIZE, SIZE, generator=torch.Generator().manual_seed(5))


def run(unet, clips=2, frames=FRAMES, layout=None):
    layout = layout or RowLayout(frames, clips * frames)
    x, context = in_rows(x_of(clips, frames), layout), layout.to_rows(contexts(clips, frames))
    return unet(x, torch.full((layout.rows,), TIMESTEP), context)


def control_of(network, frames, count=None, **settings):
    return SparseControl(network, frames, lambda *_: pictures_for(network.kind, count or len(frames)), **settings)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_the_whole_unet_with_a_motion_module_is_that_of_the_authors(tmp_path, unet, network, weights, kind, layout):
    torch.manual_seed(1)
    motion = module_weights("v3")
    save_file(motion, tmp_path / "v3.safetensors")
    description, module = load(tmp_path / "v3.safetensors")
    added = authors_added(weights, kind, [0, 4])
    theirs = AuthorsUNet(dict(unet.state_dict()), motion)(x_of(2), TIMESTEP, contexts(2), added=added)
    with (
        attached(unet, Motion(module), description.family, lambda _rows: layout),
        controlled(unet, [control_of(network, [0, 4])], lambda _rows: layout),
    ):
        ours = run(unet, layout=layout)
    plain = AuthorsUNet(dict(unet.state_dict()), motion)(x_of(2), TIMESTEP, contexts(2))
    error = (ours - in_rows(theirs, layout)).abs().max() / theirs.abs().max()
    assert error < 2e-5
    assert (plain - theirs).abs().max() / theirs.abs().max() > 1000 * error, "it changes the result"


def test_several_networks_act_together(tmp_path, unet):
    rgb, scribble = (loaded(tmp_path, weights_of(kind), f"{kind}.safetensors") for kind in KINDS)
    first, second = authors_added(weights_of("RGB"), "RGB", [0]), authors_added(weights_of("scribble"), "scribble", [3])
    added = [0.5 * one + other for one, other in zip(first, second)]
    theirs = AuthorsUNet(dict(unet.state_dict()))(x_of(2), TIMESTEP, contexts(2), added=added)
    layout = LAYOUTS["one after another"]
    with controlled(unet, [control_of(rgb, [0], strength=0.5), control_of(scribble, [3])], lambda _rows: layout):
        ours = run(unet)
    assert (ours - in_rows(theirs, layout)).abs().max() / theirs.abs().max() < 2e-5


@pytest.mark.parametrize(
    ("start", "end", "progress", "acts"), [(0.2, 0.6, 0.1, False), (0.2, 0.6, 0.2, True), (0, 0.6, 0.6, False)]
)
def test_it_acts_from_start_to_end(unet, network, start, end, progress, acts):
    plain = run(unet)
    control = control_of(network, [0], start=start, end=end)
    with controlled(unet, [control], lambda rows: RowLayout(FRAMES, rows), lambda: progress):
        assert torch.equal(run(unet), plain) != acts


def test_windows_of_the_whole_unet_get_their_own_frames(unet, network):
    """Each window is what a clip of these frames alone is."""
    frames, length = 9, 4
    windows = ContextWindows(frames, length, overlap=1, uniform=False)
    whole = WindowedUNet(windows, lambda: 0, lambda rows: RowLayout(frames, rows))
    with controlled(unet, [control_of(network, [0, 5])], whole.layout_of), whole.applied_to(unet):
        ours = run(unet, frames=frames)
    x, context = x_of(2, frames), contexts(2, frames)
    results = []
    for chosen in windows.at(0).frames.tolist():
        held = [index for index, frame in enumerate([0, 5]) if frame in chosen]
        at = [chosen.index([0, 5][index]) for index in held]
        pictures = pictures_for(network.kind, 2)[held]
        control = SparseControl(network, at, lambda *_, given=pictures: given if len(given) else pictures_for(network.kind, 1))
        layout = RowLayout(length, 2 * length)
        with controlled(unet, [control], lambda _rows, layout=layout: layout):
            rows = unet(
                in_rows(x[:, :, chosen], layout), torch.full((2 * length,), TIMESTEP), layout.to_rows(context[:, chosen])
            )
        results.append(rows.unflatten(0, (2, length)))
    expected = windows.at(0).blended(torch.stack(results, dim=1)).flatten(0, 1)
    assert (ours - expected).abs().max() < 1e-4


def test_windows_of_attention_limit_its_motion_layers_too(unet, network):
    """There are two windows without an overlap, so nothing gets from one to the other."""
    frames = 8
    windows = ContextWindows(frames, 4, overlap=0, uniform=False)
    made = []
    for at in ([0], [0, 7]):
        control = control_of(network, at, 2)
        with controlled(unet, [control], lambda rows: RowLayout(frames, rows), step_windows=lambda: windows.at(0)):
            made.append(run(unet, frames=frames).unflatten(0, (2, frames)))
    difference = (made[0] - made[1]).abs().amax(dim=(0, 2, 3, 4))
    assert difference[4:].min() > 1e-3 and difference[:4].max() < 1e-5


def test_in_chunks_of_rows_it_is_the_same(unet, network):
    layout = lambda rows: RowLayout(FRAMES, rows)  # noqa: E731
    with controlled(unet, [control_of(network, [0])], layout):
        whole = run(unet)
        with in_chunks(unet, 4):
            assert torch.allclose(run(unet), whole, atol=1e-5)


def test_pictures_are_embedded_once_for_each_size(unet, network):
    asked = []

    def pictures_of(height, width):
        asked.append((height, width))
        return pictures_for(network.kind, 1)

    with controlled(unet, [SparseControl(network, [0], pictures_of)], lambda rows: RowLayout(FRAMES, rows)):
        run(unet)
        run(unet)
    assert asked == [(SIZE, SIZE)]


def test_nothing_is_left_afterwards_also_after_an_error(unet, network):
    def state():
        return {n: (len(m._forward_hooks), len(m._forward_pre_hooks), "forward" in vars(m)) for n, m in unet.named_modules()}

    before, plain = state(), run(unet)
    control = control_of(network, [0])
    with pytest.raises(RuntimeError, match="in the middle"), controlled(unet, [control], lambda rows: RowLayout(FRAMES, rows)):
        run(unet)
        raise RuntimeError("in the middle")
    assert state() == before and torch.equal(run(unet), plain)
    assert control._embedded is None


def test_a_network_of_other_widths_is_refused(unet):
    torch.manual_seed(0)
    shape = load_shape(sparse_weights("RGB", (64, 64, 64, 64)))
    with pytest.raises(UnsuitableUNet, match=r"a\.ckpt does not fit the checkpoint: it has 64, 64, 64, 64 channels"):
        require_sparse_fit(unet, shape, "a.ckpt")


def test_a_network_of_another_text_width_is_refused(unet, network):
    require_sparse_fit(unet, network.shape, "a.ckpt")
    with pytest.raises(UnsuitableUNet, match="does not fit"):
        require_sparse_fit(unet, load_shape(sparse_weights("RGB", text_width=48)), "a.ckpt")


def load_shape(weights):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        return loaded(Path(folder), weights).shape


def test_features_of_another_size_end_the_call(unet, network):
    """As where an extension resizes features inside the UNet."""
    larger = lambda _block, inputs: (torch.nn.functional.interpolate(inputs[0], scale_factor=2), *inputs[1:])  # noqa: E731
    resize = unet.output_blocks[11][0].register_forward_pre_hook(larger)
    try:
        with (
            controlled(unet, [control_of(network, [0])], lambda rows: RowLayout(FRAMES, rows)),
            pytest.raises(UnsuitableUNet, match="Kohya HRFix"),
        ):
            run(unet)
    finally:
        resize.remove()
