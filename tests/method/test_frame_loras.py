"""LoRAs with a strength for each frame, against the maths written out in five dimensions."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from motion_module.attach import blocks_by_name
from motion_module.camera_layer import LayerCamera
from motion_module.checkpoint import load
from motion_module.context_windows import ContextWindows
from motion_module.frame_loras import added_by_frame, changes_image_model, require_ordinary_fit
from motion_module.lora import load_lora
from motion_module.motion_layers import Motion
from motion_module.ordinary_loras import layers_by_name, load_ordinary
from motion_module.row_layout import RowLayout, layout_of_call
from motion_module.weight_files import CheckpointError
from motion_module.weight_patches import merged
from support.published_layouts import authors_layer, module_weights

FRAMES, PLACE, RANK = 5, "down_1_0", 3
STRENGTHS = (0.0, 1.0, -0.5, 2.0, 1.0)
LAYER = "down_blocks.1.motion_modules.0.temporal_transformer."
MATRICES = {
    "transformer_blocks.0.attention_blocks.0.to_q": "transformer_blocks.0.attention_blocks.0.processor.to_q_lora",
    "transformer_blocks.0.attention_blocks.0.to_v": "transformer_blocks.0.attention_blocks.0.processor.to_v_lora",
    "transformer_blocks.0.attention_blocks.1.to_k": "transformer_blocks.0.attention_blocks.1.processor.to_k_lora",
    "transformer_blocks.0.attention_blocks.1.to_out.0": "transformer_blocks.0.attention_blocks.1.processor.to_out_lora",
    "proj_in": "proj_in_lora",
    "proj_out": "proj_out_lora",
}
"""Matrices of a motion layer that the LoRA of these tests changes, and its keys for them."""


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A module, the weights of its layer at PLACE, and a LoRA for it with its changes of matrices."""
    folder = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    weights = module_weights("v3")
    save_file(weights, folder / "module.safetensors")
    layer = {key[len(LAYER) :]: value for key, value in weights.items() if key.startswith(LAYER)}
    tensors, changes = {}, {}
    for number, (name, key) in enumerate(MATRICES.items()):
        down, up = drawn(RANK, 64, seed=number) * 0.2, drawn(64, RANK, seed=100 + number) * 0.2
        tensors[f"{LAYER}{key}.down.weight"], tensors[f"{LAYER}{key}.up.weight"] = down, up
        changes[name] = up @ down
    save_file(tensors, folder / "lora.safetensors")
    return load(folder / "module.safetensors")[1], layer, load_lora(folder / "lora.safetensors"), changes


def animated(published, rows, layout, strengths, windows=None):
    module, _, lora, _ = published
    motion = Motion(module, step_windows=(lambda: windows) if windows else None)
    with torch.no_grad(), added_by_frame(UNet(), [module], [(lora, strengths)], lambda _: layout):
        return motion.animate(PLACE, rows, layout)


class UNet(nn.Module):
    """An LDM UNet with one attention in each block, small enough to compare every row."""

    def __init__(self):
        super().__init__()
        block = lambda: nn.Sequential(Resnet(), Transformer())  # noqa: E731
        self.input_blocks = nn.ModuleList(
            [nn.Sequential(nn.Conv2d(4, 8, 3, padding=1))]
            + [
                nn.Sequential(Resnet(), Transformer()) if number % 3 else nn.Sequential(Sampler("op"))
                for number in range(1, 12)
            ]
        )
        self.middle_block = nn.Sequential(Resnet(), Transformer(), Resnet())
        self.output_blocks = nn.ModuleList([block() for _ in range(12)])
        self.output_blocks[2].append(Sampler("conv"))
        self.time_embed = nn.Sequential(nn.Linear(4, 6), nn.SiLU(), nn.Linear(6, 6))
        self.out = nn.Sequential(nn.GroupNorm(1, 8), nn.SiLU(), nn.Conv2d(8, 4, 3, padding=1))


def block():
    return nn.Sequential(Resnet(), Transformer())


class Resnet(nn.Module):
    def __init__(self):
        super().__init__()
        self.in_layers = nn.Sequential(nn.GroupNorm(1, 8), nn.SiLU(), nn.Conv2d(8, 8, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(6, 8))
        self.out_layers = nn.Sequential(nn.GroupNorm(1, 8), nn.SiLU(), nn.Identity(), nn.Conv2d(8, 8, 3, padding=1))
        self.skip_connection = nn.Conv2d(8, 8, 1)
        self.out_channels = 8


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        attention = nn.Module()
        attention.to_q, attention.to_out = nn.Linear(8, 8, bias=False), nn.Sequential(nn.Linear(8, 8))
        inner = nn.Module()
        inner.attn1 = attention
        self.transformer_blocks, self.proj_in, self.in_channels = nn.ModuleList([inner]), nn.Conv2d(8, 8, 1), 8


class LinearOfForge(nn.Module):
    """A linear layer that is none of torch's."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(drawn(8, 8))

    def forward(self, x):
        return x @ self.weight.T


class Sampler(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.add_module(name, nn.Conv2d(8, 8, 3, stride=2 if name == "op" else 1, padding=1))


def rows_of(clips):
    return clips.transpose(1, 2).flatten(0, 1)


def close(first, second):
    return torch.allclose(first, second, atol=2e-5, rtol=0)


@pytest.mark.parametrize("closed_loop", ["one window", "none", "many"])
def test_a_motion_lora_changes_the_matrices_of_each_frame_by_its_strength(published, closed_loop):
    windows = None if closed_loop == "one window" else ContextWindows(FRAMES, 4, 2, closed_loop=closed_loop).at(1)
    clips, layout = drawn(2, 64, FRAMES, 3, 4), layout_of_call(2 * FRAMES, FRAMES)
    ours = animated(published, rows_of(clips), layout, STRENGTHS, windows)
    cut = windows and list(zip(windows.frames.tolist(), windows.weights.tolist()))
    expected = rows_of(authors_layer(published[1], clips, cut, changes=published[3], strengths=list(STRENGTHS)))
    assert close(ours, expected)
    assert not close(ours, rows_of(authors_layer(published[1], clips, cut)))


@pytest.mark.parametrize("closed_loop", ["one window", "many"])
def test_a_camera_acts_beside_a_motion_lora(published, closed_loop):
    module, weights, lora, changes = published
    windows = None if closed_loop == "one window" else ContextWindows(FRAMES, 4, 2, closed_loop=closed_loop).at(1)
    clips, pose = drawn(2, 64, FRAMES, 3, 4), drawn(2, 64, FRAMES, 3, 4, seed=1)
    merge, bias = drawn(64, 64, seed=2) * 0.1, drawn(64, seed=3)
    of_layer = LayerCamera(pose.permute(0, 2, 1, 3, 4).flatten(3), merge, bias, 0.7)
    camera, layout = SimpleNamespace(in_layer=lambda *_: of_layer), layout_of_call(2 * FRAMES, FRAMES)
    motion = Motion(module, step_windows=(lambda: windows) if windows else None, camera=camera)
    with torch.no_grad(), added_by_frame(UNet(), [module], [(lora, STRENGTHS)], lambda _: layout):
        ours = motion.animate(PLACE, rows_of(clips), layout)
    key = "transformer_blocks.0.attention_blocks.0.processor.qkv_merge."
    posed = {**weights, key + "weight": merge, key + "bias": bias}
    cut = windows and list(zip(windows.frames.tolist(), windows.weights.tolist()))
    facts = {"changes": changes, "strengths": list(STRENGTHS)}
    assert close(ours, rows_of(authors_layer(posed, clips, cut, pose=(pose, 0.7), **facts)))
    assert not close(ours, rows_of(authors_layer(weights, clips, cut, **facts)))


def test_the_frames_of_a_window_have_their_own_strengths(published):
    numbers = torch.tensor([[3, 4, 0]] * 2)
    clips, layout = drawn(2, 64, 3, 3, 4), RowLayout(3, 6, frame_numbers=numbers)
    ours = animated(published, rows_of(clips), layout, STRENGTHS)
    strengths = [STRENGTHS[number] for number in (3, 4, 0)]
    assert close(ours, rows_of(authors_layer(published[1], clips, changes=published[3], strengths=strengths)))


def test_equal_strengths_are_those_of_a_merged_lora(published):
    module, _, lora, _ = published
    rows, layout = drawn(2 * FRAMES, 64, 3, 4), layout_of_call(2 * FRAMES, FRAMES)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with torch.no_grad(), merged(module, [(lora, 0.7)]):
        together = Motion(module).animate(PLACE, rows, layout)
    assert close(animated(published, rows, layout, (0.7,) * FRAMES), together)
    layer = module.layers[PLACE]
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert not layer.tells_frames and layer.frames_now is None and not layer.proj_in._forward_hooks


NAMES = {
    "conv_in": "input_blocks.0.0",
    "down_blocks_0_resnets_1_conv1": "input_blocks.2.0.in_layers.2",
    "down_blocks_1_resnets_0_time_emb_proj": "input_blocks.4.0.emb_layers.1",
    "down_blocks_1_attentions_1_transformer_blocks_0_attn1_to_q": "input_blocks.5.1.transformer_blocks.0.attn1.to_q",
    "down_blocks_2_downsamplers_0_conv": "input_blocks.9.0.op",
    "mid_block_resnets_1_conv2": "middle_block.2.out_layers.3",
    "mid_block_attentions_0_proj_in": "middle_block.1.proj_in",
    "mid_block_attentions_0_transformer_blocks_0_attn1_to_q": "middle_block.1.transformer_blocks.0.attn1.to_q",
    "up_blocks_0_upsamplers_0_conv": "output_blocks.2.2.conv",
    "up_blocks_3_resnets_2_conv_shortcut": "output_blocks.11.0.skip_connection",
    "up_blocks_1_attentions_0_transformer_blocks_0_attn1_to_out_0": "output_blocks.3.1.transformer_blocks.0.attn1.to_out.0",
    "time_embedding_linear_2": "time_embed.2",
    "conv_out": "out.2",
    "output_blocks_3_1_transformer_blocks_0_attn1_to_q": "output_blocks.3.1.transformer_blocks.0.attn1.to_q",
    "middle_block_1_proj_in": "middle_block.1.proj_in",
}
"""Kohya's names for layers, by which diffusers and SGM call them, and LDM's."""


@pytest.mark.parametrize("name", NAMES)
def test_layers_of_the_unet_are_found_by_their_names_in_files(name):
    unet = UNet()
    assert layers_by_name(unet)[name] is unet.get_submodule(NAMES[name])


def ordinary(folder, unet, names, extra=None):
    """Saves an ordinary LoRA that changes layers, with an alpha. Returns it, and the changes of the weights."""
    tensors, changes = {"lora_te_text_model_encoder.lora_up.weight": torch.zeros(1), **(extra or {})}, {}
    for number, name in enumerate(names):
        weight = unet.get_submodule(NAMES[name]).weight
        down, up = drawn(RANK, *weight.shape[1:], seed=number), drawn(weight.shape[0], RANK, seed=50 + number)
        key = f"lora_unet_{name}"
        tensors[f"{key}.lora_down.weight"] = down
        tensors[f"{key}.lora_up.weight"] = up[:, :, None, None] if weight.ndim == 4 else up
        tensors[f"{key}.alpha"] = torch.tensor(1.5)
        changes[name] = 1.5 / RANK * torch.einsum("or,r...->o...", up, down)
    save_file(tensors, folder / "ordinary.safetensors")
    return load_ordinary(folder / "ordinary.safetensors"), changes


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("conv_in", (4, 6, 5)),
        ("down_blocks_2_downsamplers_0_conv", (8, 6, 5)),
        ("mid_block_attentions_0_proj_in", (8, 3, 2)),
        ("down_blocks_1_resnets_0_time_emb_proj", (6,)),
        ("up_blocks_1_attentions_0_transformer_blocks_0_attn1_to_out_0", (7, 8)),
    ],
)
@pytest.mark.parametrize("parts", [1, 2])
def test_an_ordinary_lora_changes_each_row_by_the_strength_of_its_frame(tmp_path, name, shape, parts):
    """With two parts joined by AND, the rows of the prompt are frame by frame; the negative prompt follows."""
    unet, order = UNet(), [*range(FRAMES)] * 2 if parts == 1 else [*(f for f in range(FRAMES) for _ in "ab"), *range(FRAMES)]
    lora, changes = ordinary(tmp_path, unet, [name])
    layer, layout = unet.get_submodule(NAMES[name]), layout_of_call(len(order), FRAMES, parts)
    x, own = drawn(len(order), *shape), layer.weight.detach().clone()
    with torch.no_grad(), added_by_frame(unet, [], [(lora, STRENGTHS)], lambda _: layout):
        ours = layer(x)
    assert torch.equal(layer.weight, own) and not layer._forward_hooks
    for row, frame in enumerate(order):
        with torch.no_grad():
            layer.weight.copy_(own + STRENGTHS[frame] * changes[name])
            assert close(ours[row], layer(x[row : row + 1])[0])
            if STRENGTHS[frame] == 0:
                assert torch.equal(ours[row], layer(x)[row])


@pytest.mark.parametrize("mode", ["circular", "reflect"])
def test_a_convolution_of_a_lora_pads_as_its_layer_does(tmp_path, mode):
    unet, name = UNet(), "down_blocks_2_downsamplers_0_conv"
    lora, changes = ordinary(tmp_path, unet, [name])
    layer = unet.get_submodule(NAMES[name])
    layer.padding_mode = mode  # as A1111's “Tiling” does
    x, own = drawn(FRAMES, 8, 6, 5), layer.weight.detach().clone()
    with torch.no_grad(), added_by_frame(unet, [], [(lora, STRENGTHS)], lambda _: layout_of_call(FRAMES, FRAMES)):
        ours = layer(x)
    for frame, strength in enumerate(STRENGTHS):
        with torch.no_grad():
            layer.weight.copy_(own + strength * changes[name])
            assert close(ours[frame], layer(x[frame : frame + 1])[0])


def test_classes_of_a_webui_for_layers_are_changed_too(tmp_path):
    unet, name = UNet(), "mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    layer = unet.middle_block[1].transformer_blocks[0].attn1.to_q = LinearOfForge()
    lora, changes = ordinary(tmp_path, unet, [name])
    x, layout = drawn(FRAMES, 7, 8), layout_of_call(FRAMES, FRAMES)
    with torch.no_grad(), added_by_frame(unet, [], [(lora, STRENGTHS)], lambda _: layout):
        ours = layer(x)
    expected = x @ layer.weight.T + torch.tensor(STRENGTHS)[:, None, None] * (x @ changes[name].T)
    assert close(ours, expected)


def test_one_number_for_all_frames_is_left_to_others(tmp_path):
    unet = UNet()
    lora, _ = ordinary(tmp_path, unet, ["conv_in"])
    with added_by_frame(unet, [], [(lora, 0.5)], lambda _: None):
        assert not unet.input_blocks[0][0]._forward_hooks
    assert changes_image_model([(lora, STRENGTHS)]) and not changes_image_model([(lora, 0.5)])


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"unet.mid_block.resnets.0.conv1.lora_A.weight": torch.zeros(2, 2)}, "key unet.mid_block.* not in kohya's layout"),
        ({"diffusion_model.out.2.lora_down.weight": torch.zeros(2, 2)}, "key diffusion_model.out.2.* not in kohya's layout"),
        ({"oft_unet_conv_in.oft_blocks": torch.zeros(2, 2)}, "key oft_unet_conv_in.* is not in kohya's layout"),
        ({"bundle_emb.name.string_to_param": torch.zeros(2, 2)}, "changes only the text encoder, which has no frames. Give it"),
    ],
)
def test_a_lora_that_would_change_nothing_by_frame_is_refused(tmp_path, tensors, said):
    with pytest.raises(CheckpointError, match=said):
        ordinary(tmp_path, UNet(), [], tensors)


def test_the_text_encoder_s_part_of_a_motion_lora_is_none_of_the_image_model_s(tmp_path):
    lora, _ = ordinary(tmp_path, UNet(), [], {f"{LAYER}proj_in_lora.down.weight": torch.zeros(2, 2), "stray": torch.zeros(1)})
    assert not lora.parts


def test_a_lora_of_another_kind_or_for_another_model_is_refused(tmp_path):
    unet = UNet()
    with pytest.raises(CheckpointError, match=r"no plain LoRA: it has the key lora_unet_conv_in.hada_w1_a. Give it one"):
        ordinary(tmp_path, unet, [], {"lora_unet_conv_in.hada_w1_a": torch.zeros(2, 2)})
    lora, _ = ordinary(tmp_path, unet, ["conv_out"])
    unet.out[2] = nn.Conv2d(8, 3, 3)
    with pytest.raises(CheckpointError, match=r"at conv_out it changes a matrix of \[4, 72\], and the model has \[3, 72\]"):
        require_ordinary_fit(unet, lora)
    unet.out[2] = nn.Identity()
    with pytest.raises(CheckpointError, match="this one has no conv_out"), added_by_frame(unet, [], [(lora, STRENGTHS)], None):
        pass
    assert blocks_by_name(unet)
