"""Identification of weight files, without running code in them."""

import json
import os
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from motion_module.__main__ import main
from motion_module.checkpoint import describe, load
from motion_module.families import HOTSHOT, XL_BETA
from motion_module.weight_files import CheckpointError, open_weights
from support.published_layouts import in_hotshots_layout, module_weights, save_as_the_beta


@pytest.fixture
def save(tmp_path):
    def save_weights(weights, name="module.safetensors"):
        path = tmp_path / name
        if path.suffix == ".safetensors":
            save_file(weights, path)
        else:
            torch.save(weights, path)
        return path

    return save_weights


def problem(path):
    with pytest.raises(CheckpointError) as caught:
        load(path)
    return str(caught.value)


@pytest.mark.parametrize(("family", "length", "layers"), [("v1", 24, 20), ("v2", 32, 21), ("v3", 32, 20)])
@pytest.mark.parametrize("name", ["any name.safetensors", "any name.ckpt"])
def test_families_are_identified_by_keys_and_shapes(save, family, length, layers, name):
    description, module = load(save(module_weights(family), name))
    assert description.family.key == family
    assert description.length == module.length == length
    assert len(module.layers) == layers
    assert description.channels["down_1_0"] == 64
    assert description.channels["up_3_2"] == 32


def test_training_dumps_are_unwrapped(save):
    weights = module_weights("v3")
    wrapped = {"state_dict": {f"module.{key}": value for key, value in weights.items()}, "epoch": 3, "global_step": 100}
    plain, dumped = load(save(weights))[1], load(save(wrapped, "dump.ckpt"))[1]
    for ours, theirs in zip(plain.parameters(), dumped.parameters()):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["m.safetensors", "m.ckpt"])
def test_weights_keep_the_dtype_of_the_file(save, dtype, name):
    description, module = load(save({key: value.to(dtype) for key, value in module_weights("v3").items()}, name))
    assert description.dtypes == (str(dtype)[6:],)
    assert {weight.dtype for weight in module.parameters()} == {dtype}


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_eight_bit_floats_are_widened_without_loss(save, dtype):
    weights = {key: value.to(dtype) for key, value in module_weights("v3").items()}
    description, module = load(save(weights))
    assert description.dtypes == (str(dtype)[6:],)
    key = "down_blocks.0.motion_modules.0.temporal_transformer.proj_in.weight"
    assert module.layers["down_0_0"].proj_in.weight.dtype == torch.float16
    assert torch.equal(module.layers["down_0_0"].proj_in.weight.float(), weights[key].float())


def test_eight_bit_floats_in_a_pickle_are_read(tmp_path):
    """Older versions than torch 2.2 cannot save them, so the file is written here: two bytes, 1.5 and -2, and their pickle."""
    data = (
        b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v3\n((X\x07\x00\x00\x00storagectorch.storage\n"
        b"UntypedStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x02tQK\x00K\x02\x85K\x01\x85\x89ccollections\n"
        b"OrderedDict\n)Rctorch\nfloat8_e4m3fn\ntRs."
    )
    with zipfile.ZipFile(tmp_path / "fp8.pt", "w") as archive:
        archive.writestr("fp8/data.pkl", data)
        archive.writestr("fp8/data/0", torch.tensor([1.5, -2.0]).to(torch.float8_e4m3fn).view(torch.uint8).numpy().tobytes())
    file = open_weights(tmp_path / "fp8.pt")
    assert file.entries["a"].dtype == torch.float8_e4m3fn
    assert file.read("a").float().tolist() == [1.5, -2.0]


def test_a_family_from_the_name_is_assumed_until_the_hash_is_known(save):
    weights = module_weights("v2")
    named = describe(save(weights, "AnimateDiff-Lightning 4-step.safetensors"))
    assert named.family.key == "lightning-4" and "assumed from its name" in named.assumed
    assert describe(save(weights, "lightning.safetensors")).family.key == "lightning-4"
    assert not describe(save(weights, "mm_sd_v15_v2.safetensors")).assumed
    plain = describe(save(weights, "my module.safetensors"))
    assert plain.family.key == "v2" and "others are built alike" in plain.assumed
    assert {family.key for family in plain.alternatives} >= {"v2", "lightning-1", "lightning-8", "lcm"}
    published = "29b4879520056657b897f48821760285b3eef371576e80c86c2ef1fdf95f6c1d"
    for description in (named, plain):
        sure = description.with_hash(published)
        assert sure.family.key == "lightning-2" and not sure.assumed
        assert description.with_hash("0" * 64) == description.with_hash(None) == description
    assert describe(save(module_weights("v3"))).with_hash(published).family.key == "v3", "a hash of other shapes"


def test_a_dump_with_an_adapter_is_a_motion_module(save):
    adapter = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora."
    parts = {adapter + "down.weight": torch.zeros(4, 32), adapter + "up.weight": torch.zeros(32, 4)}
    assert load(save({**module_weights("v3"), **parts}))[0].family.key == "v3"


def test_a_config_is_used_only_for_weights_of_diffusers(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "MotionAdapter", "motion_max_seq_length": 32}))
    for name in ("AnimateLCM_sd15_t2v.safetensors", "diffusion_pytorch_model.safetensors"):
        save_file(module_weights("lcm"), tmp_path / name)
        assert (describe(tmp_path / name).family.key, describe(tmp_path / name).length) == ("lcm", 64)


def test_unknown_keys_are_named(save):
    key = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.2.to_q.weight"
    assert f"{key} is unknown" in problem(save({**module_weights("v3"), key: torch.zeros(32, 32)}))
    key = "down_blocks.0.motion_modules.2.temporal_transformer.norm.weight"
    assert f"{key} is unknown" in problem(save({**module_weights("v3"), key: torch.zeros(32)}))


def test_tensors_that_share_storage_or_are_transposed_are_read_correctly(save):
    weights = module_weights("v3")
    key = "down_blocks.0.motion_modules.0.temporal_transformer.proj_in.weight"
    weights[key] = torch.arange(2 * 32 * 32, dtype=torch.float32).reshape(2, 32, 32)[1].T
    _, module = load(save(weights, "m.ckpt"))
    assert torch.equal(module.layers["down_0_0"].proj_in.weight, weights[key])


@pytest.mark.parametrize("wrap", [lambda evil: {**module_weights("v3"), "config": evil}, lambda evil: evil])
def test_code_in_a_pickle_is_refused_and_not_run(save, tmp_path, wrap):
    marker = tmp_path / "it ran"

    class Marking:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    text = problem(save(wrap(Marking()), "evil.ckpt"))
    assert "mkdir" in text and "evil.ckpt" in text
    assert not marker.exists()


def test_a_bare_pickle_is_refused_and_not_run(tmp_path):
    marker = tmp_path / "it ran"

    class Marking:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    path = tmp_path / "bare.ckpt"
    path.write_bytes(pickle.dumps(Marking()))
    assert "not a PyTorch file" in problem(path)
    assert not marker.exists()


def test_a_tensor_larger_than_its_data_is_refused(tmp_path, save):
    weights = module_weights("v3")
    path = save(weights, "good.ckpt")
    short = tmp_path / "short.ckpt"
    with zipfile.ZipFile(path) as good, zipfile.ZipFile(short, "w") as bad:
        for item in good.infolist():
            data = good.read(item)
            bad.writestr(item.filename, data[: len(data) // 8 * 4] if "/data/" in item.filename else data)
    assert "larger than its data" in problem(short)


def test_a_flipped_bit_and_a_missing_member_are_reported(tmp_path, save):
    path = save(module_weights("v3"), "good.ckpt")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "is damaged" in problem(path)
    path = save(module_weights("v3"), "good.ckpt")
    with zipfile.ZipFile(path) as good, zipfile.ZipFile(tmp_path / "part.ckpt", "w") as part:
        for item in good.infolist():
            if not item.filename.endswith("/data/7"):
                part.writestr(item.filename, good.read(item))
    assert "is damaged" in problem(tmp_path / "part.ckpt")


@pytest.mark.parametrize("name", ["m.safetensors", "m.ckpt"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_truncated_files_are_refused_before_weights_are_read(save, name, share):
    path = save(module_weights("v3"), name)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(CheckpointError, match="Download it again"):
        describe(path)


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        (["lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight"], "a LoRA"),
        (
            [
                "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0.processor.to_q_lora.down.weight"
            ],
            "a motion LoRA",
        ),
        (["down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight"], "a domain adapter"),
        (
            ["first_stage_model.encoder.conv_in.weight", "model.diffusion_model.input_blocks.0.0.weight"],
            "a Stable Diffusion checkpoint",
        ),
        (["encoder.conv_in.weight", "decoder.conv_in.weight"], "a VAE"),
        (["control_model.input_hint_block.0.weight"], "a ControlNet"),
        (["something.else"], "a file of an unknown kind"),
    ],
)
def test_other_kinds_of_files_are_identified(save, keys, kind):
    text = problem(save({key: torch.zeros(4, 4) for key in keys}))
    assert kind in text and "motion module" in text


def test_the_archive_of_the_beta_for_sdxl_is_read(tmp_path):
    weights = module_weights("xl-beta")
    save_as_the_beta(weights, tmp_path / "mm_sdxl_v10_beta.ckpt")
    description, module = load(tmp_path / "mm_sdxl_v10_beta.ckpt")
    assert description.require_motion_module().key == "xl-beta" and not description.assumed
    key = "up_blocks.2.motion_modules.1.temporal_transformer.proj_in.weight"
    assert torch.equal(module.layers["up_2_1"].proj_in.weight, weights[key])


def test_layers_are_those_of_the_chosen_family(save):
    path = save(module_weights("hotshot"), "unknown.safetensors")
    for family in (HOTSHOT, XL_BETA):
        assert family in describe(path).alternatives
        layers = load(path, family)[1].layers.values()
        assert {layer.norm_over_frames for layer in layers} == {family is XL_BETA}


def test_missing_and_misshapen_weights_are_named(save):
    weights = module_weights("v3")
    del weights["up_blocks.2.motion_modules.1.temporal_transformer.proj_in.bias"]
    assert "up_blocks.2.motion_modules.1.temporal_transformer.proj_in.bias is missing" in problem(save(weights))
    weights = module_weights("v3")
    weights["down_blocks.1.motion_modules.0.temporal_transformer.proj_out.weight"] = torch.zeros(64, 65)
    assert (
        "down_blocks.1.motion_modules.0.temporal_transformer.proj_out.weight has the shape [64, 65], not [64, 64]"
        in problem(save(weights))
    )
    weights = {key: value for key, value in module_weights("v3").items() if not key.startswith("up_blocks.0.motion_modules.2")}
    assert "up_blocks.0.motion_modules.2" in problem(save(weights))
    weights = {key: value for key, value in module_weights("hotshot").items() if not key.startswith("up_blocks.2")}
    assert "up_blocks.2.temporal_attentions.0.norm.weight is missing" in problem(save(in_hotshots_layout(weights)))


def test_a_missing_file_is_reported_with_its_folder(tmp_path):
    assert str(tmp_path) in problem(tmp_path / "gone.safetensors")


def test_inspect_describes_files(save, capsys):
    good, bad = save(module_weights("v2")), save({"something.else": torch.zeros(2)}, "other.safetensors")
    assert main(["inspect", str(good)]) == 0
    assert "family: v2" in capsys.readouterr().out
    assert main(["inspect", "--json", str(good), str(bad)]) == 1
    reports = json.loads(capsys.readouterr().out)
    assert [report["usable"] for report in reports] == [True, False]
    assert reports[0]["most frames"] == 32
    assert "a file of an unknown kind" in reports[1]["problem"]
