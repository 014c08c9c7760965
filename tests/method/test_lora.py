"""LoRAs in every published layout: what they change, and that the change is undone."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from motion_module.checkpoint import describe, load
from motion_module.lora import load_lora
from motion_module.weight_files import CheckpointError
from motion_module.weight_patches import added_to_unet, merged
from support.published_layouts import module_weights

RANK = 4
TOWER = "down_blocks.1.motion_modules.0.temporal_transformer.transformer_blocks.0."
QUERY, OUT = TOWER + "attention_blocks.1.to_q", TOWER + "attention_blocks.0.to_out.0"
WIDEN = TOWER + "ff.net.0.proj"
SIZES = {QUERY: (64, 64), OUT: (64, 64), WIDEN: (512, 64)}

UP = TOWER + "attention_blocks.1.processor.to_q_lora.up.weight"
UNDERSCORES = {name: name.replace(".", "_") for name in SIZES}
DIFFUSERS = {
    name: name.replace("temporal_transformer.", "")
    .replace("attention_blocks.1", "attn2")
    .replace("attention_blocks.0", "attn1")
    for name in SIZES
}
PLAIN = TOWER.replace("temporal_transformer.", "")
FORMS = {
    "official": (
        {QUERY: TOWER + "attention_blocks.1.processor.to_q_lora", OUT: TOWER + "attention_blocks.0.processor.to_out_lora"},
        (".down.weight", ".up.weight"),
    ),
    "official under state_dict": ({QUERY: TOWER + "attention_blocks.1.processor.to_q_lora"}, (".down.weight", ".up.weight")),
    "diffusers, attention processors": (
        {QUERY: f"unet.{PLAIN}attn2.processor.to_q_lora", OUT: f"unet.{PLAIN}attn1.processor.to_out_lora"},
        (".down.weight", ".up.weight"),
    ),
    "diffusers, lora.down": (
        {QUERY: DIFFUSERS[QUERY], OUT: DIFFUSERS[OUT]},
        (".lora.down.weight", ".lora.up.weight"),
    ),
    "PEFT": ({name: "unet." + DIFFUSERS[name] for name in SIZES}, (".lora_A.weight", ".lora_B.weight")),
    "PEFT's own": (
        {name: "base_model.model." + DIFFUSERS[name] for name in SIZES},
        (".lora_A.default.weight", ".lora_B.default.weight"),
    ),
    "MotionDirector": (
        {
            QUERY: TOWER + "attention_blocks.1.processor.to_q_lora",
            OUT: TOWER + "attention_blocks.0.to_out.processor.0_lora",
            WIDEN: TOWER + "ff.net.0.processor.proj_lora",
        },
        (".down.weight", ".up.weight"),
    ),
    "underscores": (UNDERSCORES, (".lora_down.weight", ".lora_up.weight")),
    "kohya": (
        {name: "lora_unet_" + key for name, key in UNDERSCORES.items()},
        (".lora_down.weight", ".lora_up.weight"),
    ),
    "kohya, diffusers' names": (
        {name: "lora_unet_" + DIFFUSERS[name].replace(".", "_") for name in SIZES},
        (".lora_down.weight", ".lora_up.weight"),
    ),
}


def factors(name):
    generator = torch.Generator().manual_seed(len(name))
    rows, columns = SIZES[name]
    return torch.randn(RANK, columns, generator=generator), torch.randn(rows, RANK, generator=generator)


def save_form(folder, form, extra=None, header=None):
    keys, (down, up) = FORMS[form]
    tensors = dict(extra or {})
    for name, key in keys.items():
        tensors[key + down], tensors[key + up] = factors(name)
    if "state_dict" in form:
        path = folder / "lora.ckpt"
        torch.save({"state_dict": tensors, "global_step": 5}, path)
    else:
        path = folder / "lora.safetensors"
        save_file(tensors, path, header)
    return path


@pytest.fixture
def module(tmp_path):
    torch.manual_seed(0)
    save_file(module_weights("v2"), tmp_path / "module.safetensors")
    return load(tmp_path / "module.safetensors")[1]


def matrix(module, name):
    layer = module.layers["down_1_0"]
    if name == QUERY:
        return layer.attentions[1].to_qkv.weight[:64]
    return layer.attentions[0].to_out.weight if name == OUT else layer.feed_forward.widen.weight


def snapshot(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("form", FORMS)
def test_each_published_form_changes_the_same_matrices(module, tmp_path, form):
    lora = load_lora(save_form(tmp_path, form))
    before = snapshot(module)
    expected = {name: matrix(module, name) + 0.8 * up @ down for name in FORMS[form][0] for down, up in [factors(name)]}
    with merged(module, [(lora, 0.8)]):
        for name, weight in expected.items():
            assert (matrix(module, name) - weight).abs().max() < 1e-6
        changed = {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}
        assert len(changed) == len(expected)
        assert torch.equal(
            module.layers["down_1_0"].attentions[1].to_qkv.weight[64:],
            before["layers.down_1_0.attentions.1.to_qkv.weight"][64:],
        )
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_alpha_is_divided_by_rank_also_in_the_header_of_diffusers(module, tmp_path):
    down, up = factors(QUERY)
    alpha = load_lora(save_form(tmp_path, "kohya", {"lora_unet_" + UNDERSCORES[QUERY] + ".alpha": torch.tensor(1.0)}))
    with merged(module, [(alpha, 1)]):
        scaled = matrix(module, QUERY).clone()
    assert (scaled - (matrix(module, QUERY) + up @ down / RANK)).abs().max() < 1e-6
    header = {"lora_adapter_metadata": '{"unet.r": 4, "unet.lora_alpha": 8}'}
    peft = load_lora(save_form(tmp_path, "PEFT", header=header))
    with merged(module, [(peft, 1)]):
        doubled = matrix(module, QUERY).clone()
    assert (doubled - (matrix(module, QUERY) + 2 * up @ down)).abs().max() < 1e-5


def test_several_loras_add_up(module, tmp_path):
    (tmp_path / "two").mkdir()
    first, second = load_lora(save_form(tmp_path, "official")), load_lora(save_form(tmp_path / "two", "MotionDirector"))
    down, up = factors(QUERY)
    expected = matrix(module, QUERY) + (0.5 - 0.25) * up @ down
    with merged(module, [(first, 0.5), (second, -0.25)]):
        assert (matrix(module, QUERY) - expected).abs().max() < 1e-6


def test_a_lower_rank_keeps_the_first_components_and_the_scale(module, tmp_path):
    down, up = factors(QUERY)
    alpha = {"lora_unet_" + UNDERSCORES[QUERY] + ".alpha": torch.tensor(1.0)}
    lora = load_lora(save_form(tmp_path, "kohya", alpha))
    with merged(module, [(lora.of_rank(3), 1)]):
        truncated = matrix(module, QUERY).clone()
    assert (truncated - (matrix(module, QUERY) + up[:, :3] @ down[:3] / RANK)).abs().max() < 1e-6
    assert lora.of_rank(None) is lora and lora.of_rank(3).rank == 3


def test_strength_zero_changes_nothing(module, tmp_path):
    before = {name: tensor.data_ptr() for name, tensor in module.state_dict().items()}
    with merged(module, [(load_lora(save_form(tmp_path, "official")), 0.0)]):
        assert {name: tensor.data_ptr() for name, tensor in module.state_dict().items()} == before


def test_a_module_in_half_precision_is_merged_in_float32_and_restored(module, tmp_path):
    module.half()
    before = snapshot(module)
    down, up = factors(QUERY)
    with merged(module, [(load_lora(save_form(tmp_path, "official")), 0.3)]):
        assert (
            matrix(module, QUERY) - (before["layers.down_1_0.attentions.1.to_qkv.weight"][:64].float() + 0.3 * up @ down)
        ).abs().max() < 1e-6
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_moving_a_merged_module_does_not_change_its_own_tensors(module, tmp_path):
    before = dict(module.named_parameters())
    with merged(module, [(load_lora(save_form(tmp_path, "official")), 1.0)]):
        module.double()
    assert all(parameter is before[name] for name, parameter in module.named_parameters())


def test_unused_keys_are_listed_and_dora_is_refused(tmp_path):
    resnet = {"unet.down_blocks.0.resnets.0.conv1.lora_A.weight": torch.zeros(4, 32, 3, 3)}
    kohya = {"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": torch.zeros(4, 32)}
    assert load_lora(save_form(tmp_path, "PEFT", {**resnet, **kohya})).left_out == tuple(resnet)
    with pytest.raises(CheckpointError, match="dora_scale"):
        load_lora(save_form(tmp_path, "kohya", {"lora_unet_" + UNDERSCORES[QUERY] + ".dora_scale": torch.zeros(64)}))


def test_the_middle_block_is_left_out_if_the_module_has_none(tmp_path):
    save_file(module_weights("v3"), tmp_path / "v3.safetensors")
    module = load(tmp_path / "v3.safetensors")[1]
    key = "mid_block.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0.processor.to_q_lora"
    middle = {key + ".down.weight": torch.randn(RANK, 128), key + ".up.weight": torch.randn(128, RANK)}
    with merged(module, [(load_lora(save_form(tmp_path, "official", middle)), 1.0)]):
        pass


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors: tensors.pop(UP), "to_q_lora.down.weight, but no up matrix"),
        (lambda tensors: tensors.update({UP: torch.zeros(64, 5)}), "does not fit"),
        (lambda tensors: tensors.update({UP.replace("blocks.1", "blocks.7"): torch.zeros(64, 4)}), "blocks.7"),
        (lambda tensors: tensors.clear() or tensors.update({"other": torch.zeros(1)}), "neither a motion LoRA nor"),
    ],
)
def test_broken_files_are_refused_with_the_key(tmp_path, change, said):
    keys, (down, up) = FORMS["official"]
    tensors = {}
    for name, key in keys.items():
        tensors[key + down], tensors[key + up] = factors(name)
    change(tensors)
    save_file(tensors, tmp_path / "broken.safetensors")
    with pytest.raises(CheckpointError, match=r"broken\.safetensors") as caught:
        load_lora(tmp_path / "broken.safetensors")
    assert said in str(caught.value)


def test_wrong_shapes_are_refused_before_anything_is_changed(tmp_path):
    save_file(module_weights("v3", (64, 64, 128, 128)), tmp_path / "wide.safetensors")
    module = load(tmp_path / "wide.safetensors")[1]
    key = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0.processor.to_q_lora"
    other = {key + ".down.weight": torch.randn(RANK, 32), key + ".up.weight": torch.randn(32, RANK)}
    lora = load_lora(save_form(tmp_path, "official", other))
    before = snapshot(module)
    with pytest.raises(CheckpointError, match=r"down_0_0\..*to_q.*\[32, 32\]"), merged(module, [(lora, 1.0)]):
        pass
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


# --- the domain adapter ---


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.to_q = nn.Linear(32, 32, bias=False)
        self.to_out = nn.Sequential(nn.Linear(32, 32), nn.Dropout())


class Transformer(nn.Module):
    """A module with the names of LDM's SpatialTransformer."""

    def __init__(self):
        super().__init__()
        self.proj_in = nn.Conv2d(32, 32, 1)
        self.transformer_blocks = nn.ModuleList(nn.ModuleDict({"attn1": Attention()}) for _ in range(2))  # SDXL has several


ADAPTER = "down_blocks.0.attentions.1."


def adapter(folder, keys):
    tensors = {}
    for key in keys:
        tensors[key.format("down")], tensors[key.format("up")] = torch.randn(RANK, 32), torch.randn(32, RANK)
    save_file(tensors, folder / "adapter.safetensors")
    return tensors, load_lora(folder / "adapter.safetensors")


@pytest.mark.parametrize(
    "key",
    [
        ADAPTER + "transformer_blocks.0.attn1.processor.to_q_lora.{}.weight",
        "unet." + ADAPTER + "transformer_blocks.0.attn1.to_q.lora.{}.weight",
        ADAPTER + "transformer_blocks.0.attn1.processor.to_out_lora.{}.weight",
        ADAPTER + "proj_in_lora.{}.weight",
        "unet." + ADAPTER + "transformer_blocks.1.attn1.to_q.lora.{}.weight",
    ],
)
def test_an_adapter_adds_to_the_output_and_does_not_change_weights(tmp_path, key):
    torch.manual_seed(0)
    transformer = Transformer()
    block = "transformer_blocks.1." if "transformer_blocks.1." in key else "transformer_blocks.0."
    name = "proj_in" if "proj_in" in key else f"{block}attn1." + ("to_q" if "to_q" in key else "to_out.0")
    layer = transformer.get_submodule(name)
    tensors, lora = adapter(tmp_path, [key])
    x = torch.eye(32) if layer.weight.dim() == 2 else torch.eye(32)[:, :, None, None]
    with torch.no_grad():
        plain = layer(x)
        with added_to_unet({"down_0_1": transformer}, [(lora, 0.6)]):
            effective = layer(x) - plain
        expected = 0.6 * tensors[key.format("up")] @ tensors[key.format("down")]
        assert (effective.flatten(1).T - expected).abs().max() < 1e-5
        assert torch.equal(layer(x), plain)
        with added_to_unet({"down_0_1": transformer}, [(lora, 0.0)]):
            assert torch.equal(layer(x), plain)


def test_an_adapter_for_another_model_is_refused(tmp_path):
    _, lora = adapter(tmp_path, [ADAPTER + "transformer_blocks.0.attn1.processor.to_q_lora.{}.weight"])
    with pytest.raises(CheckpointError, match="no down_0_1"), added_to_unet({}, [(lora, 1.0)]):
        pass


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_{}.weight", "a LoRA"),
        (ADAPTER + "transformer_blocks.0.attn1.processor.to_q_lora.{}.weight", "a domain adapter"),
        (TOWER + "attention_blocks.0.processor.to_q_lora.{}.weight", "a motion LoRA"),
    ],
)
def test_inspect_says_which_kind_of_lora_it_is(tmp_path, key, kind):
    save_file({key.format(part): torch.randn(4, 4) for part in ("down", "up")}, tmp_path / "lora.safetensors")
    assert describe(tmp_path / "lora.safetensors").kind.startswith(kind)
