"""One motion layer, compared with the authors' maths."""

from copy import deepcopy
from itertools import product

import pytest
import torch
from safetensors.torch import save_file

from motion_module import network
from motion_module.checkpoint import load
from motion_module.context_windows import ContextWindows
from motion_module.network import TemporalTransformer, sinusoidal_positions
from motion_module.row_layout import layout_of_call
from support.published_layouts import authors_layer, layer_weights, module_weights, sinusoids


@pytest.fixture
def loaded_layer(tmp_path):
    """A layer that was loaded from a published file, and its weights by published keys."""
    torch.manual_seed(0)
    weights = module_weights("v3")
    prefix = "down_blocks.1.motion_modules.0.temporal_transformer."
    save_file(weights, tmp_path / "module.safetensors")
    layer = load(tmp_path / "module.safetensors")[1].layers["down_1_0"]
    return layer, {key[len(prefix) :]: value for key, value in weights.items() if key.startswith(prefix)}


@pytest.mark.parametrize(("clips", "frames"), [(1, 16), (2, 16), (3, 5), (2, 1), (1, 32)])
def test_a_layer_computes_what_the_authors_compute(loaded_layer, clips, frames):
    layer, weights = loaded_layer
    x = torch.randn(clips, 64, frames, 6, 5)
    rows = x.transpose(1, 2).reshape(clips * frames, 64, 6, 5)
    with torch.no_grad():
        ours = layer(rows, layout_of_call(clips * frames, frames))
    expected = authors_layer(weights, x).transpose(1, 2).reshape(rows.shape)
    assert (expected - rows).abs().max() > 0.5  # so that the layer has an effect
    assert torch.allclose(ours, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("frames", "closed_loop"), [(11, "none"), (17, "few"), (33, "many")])
def test_attention_is_limited_to_windows_which_are_blended(loaded_layer, frames, closed_loop):
    layer, weights = loaded_layer
    cut = ContextWindows(frames, 8, 3, stride=2, closed_loop=closed_loop).at(1)
    x = torch.randn(2, 64, frames, 3, 4)
    rows = x.transpose(1, 2).reshape(2 * frames, 64, 3, 4)
    with torch.no_grad():
        ours = rows + layer.residual(rows, layout_of_call(2 * frames, frames), windows=cut)
    windows = list(zip(cut.frames.tolist(), cut.weights.tolist()))
    expected = authors_layer(weights, x, windows).transpose(1, 2).reshape(rows.shape)
    assert torch.allclose(ours, expected, atol=1e-5, rtol=0)


def test_one_window_of_all_frames_gives_the_same_result(loaded_layer):
    """The tolerance is a millionth of the residual. A clip that fits into one window is not split at all."""
    layer, _ = loaded_layer
    x, layout = torch.randn(32, 64, 3, 4), layout_of_call(32, 16)
    with torch.no_grad():
        whole = layer.residual(x, layout)
        in_one_window = layer.residual(x, layout, windows=ContextWindows(16, 16).at(0))
    assert torch.allclose(in_one_window, whole, atol=1e-6 * float(whole.abs().max()), rtol=0)


def test_the_number_of_passes_does_not_change_the_result(loaded_layer, monkeypatch):
    layer, _ = loaded_layer
    x, layout = torch.randn(32, 64, 6, 5), layout_of_call(32, 16)
    with torch.no_grad():
        whole = layer(x, layout)
        monkeypatch.setattr(network, "CPU_TOKENS", 48)  # three pixels of sixteen frames
        assert network.pixels_per_pass(x.device, 64, 16) == 3  # of sixty: twenty passes
        assert torch.allclose(layer(x, layout), whole, atol=1e-6, rtol=0)


def test_passes_stay_below_the_launch_limit_of_cuda():
    for channels, (frames, windows) in product((320, 1280), ((16, 1), (32, 1), (16 * 11, 11), (32 * 40, 40))):
        positions = network.pixels_per_pass(torch.device("cuda"), channels, frames, windows)
        assert 0 < positions * windows * network.HEADS <= 65_535
        assert positions * frames * channels <= network.CUDA_NUMBERS


def test_a_new_layer_is_the_identity():
    x = torch.randn(8, 32, 4, 4)
    assert torch.equal(TemporalTransformer(32, 24)(x, layout_of_call(8, 4)), x)


def test_positional_encodings_are_those_of_the_files():
    assert torch.allclose(sinusoidal_positions(32, 320), sinusoids(32, 320)[0], atol=1e-5)


def test_layers_compute_in_other_dtypes():
    torch.manual_seed(0)
    layer = TemporalTransformer(32, 24)
    torch.nn.init.normal_(layer.proj_out.weight)
    x = torch.randn(8, 32, 4, 4)
    expected = layer(x, layout_of_call(8, 4))
    for dtype, tolerance in ((torch.bfloat16, 0.1), (torch.float64, 1e-4)):
        out = deepcopy(layer).to(dtype)(x.to(dtype), layout_of_call(8, 4))
        assert out.dtype == dtype
        assert torch.allclose(out.float(), expected, atol=tolerance, rtol=tolerance)


def test_layer_weights_of_the_reference_have_the_published_count():
    assert len(layer_weights(32, 24)) == 28
