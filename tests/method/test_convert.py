"""Conversion between the published layouts, checked with diffusers."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from motion_module.__main__ import main
from motion_module.checkpoint import describe, load
from motion_module.convert import convert_file
from motion_module.row_layout import layout_of_call
from motion_module.weight_files import CheckpointError
from support.published_layouts import (
    FAMILIES,
    XL_FAMILIES,
    authors_layer,
    in_diffusers_layout,
    in_hotshots_layout,
    module_weights,
    sinusoids,
)

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn]
NO_DIFFUSERS = "the WebUI's own environment has no diffusers"


def equal(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(tensor.view(torch.uint8), second[key].view(torch.uint8)) for key, tensor in first.items())


@pytest.fixture
def original(tmp_path):
    def make(family, dtype=torch.float32):
        torch.manual_seed(0)
        weights = {key: value.to(dtype) for key, value in module_weights(family).items()}
        save_file(weights, tmp_path / "original.safetensors")
        return weights, tmp_path / "original.safetensors"

    return make


@pytest.mark.parametrize("family", ["v1", "v2", "v3", "long-64", "lcm", "pia", "xl-beta"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_conversion_and_back_gives_the_same_bits(original, tmp_path, family, dtype):
    weights, path = original(family, dtype)
    folder = tmp_path / "adapter"
    assert convert_file(path, folder, "diffusers") == folder / "diffusion_pytorch_model.safetensors"
    assert describe(folder).layout == "diffusers"
    back = convert_file(folder, tmp_path / "back.safetensors", "original")
    assert equal(load_file(back), weights)


def test_hotshots_own_file_gets_the_authors_keys(tmp_path):
    weights = module_weights("hotshot")
    save_file(in_hotshots_layout(weights), tmp_path / "hsxl.safetensors")
    assert equal(load_file(convert_file(tmp_path / "hsxl.safetensors", tmp_path / "out.safetensors", "original")), weights)
    assert describe(tmp_path / "out.safetensors").require_motion_module().key == "hotshot"
    folder = tmp_path / "adapter"
    convert_file(tmp_path / "hsxl.safetensors", folder, "diffusers")
    assert describe(folder).require_motion_module().key == "hotshot"


def test_a_training_dump_becomes_a_plain_module(tmp_path):
    weights = module_weights("v2")
    dump = {f"module.{key}": value for key, value in weights.items()} | {"module.conv_in.weight": torch.zeros(32, 4, 3, 3)}
    torch.save({"state_dict": dump, "epoch": 1}, tmp_path / "dump.ckpt")
    assert equal(load_file(convert_file(tmp_path / "dump.ckpt", tmp_path / "out.safetensors", "original")), weights)


def test_the_first_convolution_of_pia_may_have_other_keys(tmp_path):
    weights = module_weights("pia")
    save_file({f"unet.{key}": value for key, value in in_diffusers_layout(weights).items()}, tmp_path / "pia.safetensors")
    assert equal(load_file(convert_file(tmp_path / "pia.safetensors", tmp_path / "out.safetensors", "original")), weights)
    assert not (tmp_path / "config.json").exists()


@pytest.mark.parametrize("family", ["v1", "v2", "v3", "long-64", "pia", "xl-beta"])
def test_the_folder_describes_itself_to_diffusers(original, tmp_path, family):
    weights, path = original(family)
    convert_file(path, tmp_path / "adapter", "diffusers")
    config = json.loads((tmp_path / "adapter" / "config.json").read_text())
    facts = {**FAMILIES, **XL_FAMILIES}[family]
    assert config["motion_max_seq_length"] == facts.positions
    assert config["use_motion_mid_block"] == facts.mid
    assert config["block_out_channels"] == [32, 64, 128, 128][: 3 if family in XL_FAMILIES else 4]
    assert config["conv_in_channels"] == (9 if facts.takes_image else None)
    assert equal(load_file(tmp_path / "adapter" / "diffusion_pytorch_model.safetensors"), in_diffusers_layout(weights))


def test_missing_positional_encodings_are_added_for_diffusers(original, tmp_path):
    _, path = original("lcm")
    weights = load_file(convert_file(path, tmp_path / "adapter", "diffusers"))
    table = weights["down_blocks.0.motion_modules.0.transformer_blocks.0.pos_embed.pe"]
    assert torch.allclose(table, sinusoids(64, 32), atol=1e-5)


def test_an_adapter_without_positional_encodings_gets_those_of_its_config(original, tmp_path):
    weights, _ = original("v1")
    folder = tmp_path / "adapter"
    folder.mkdir()
    stripped = {key: value for key, value in in_diffusers_layout(weights).items() if "pos_embed" not in key}
    save_file(stripped, folder / "diffusion_pytorch_model.fp16.safetensors")
    (folder / "config.json").write_text(json.dumps({"_class_name": "MotionAdapter", "motion_max_seq_length": 24}))
    description, module = load(folder)
    assert description.family.key == "v1"
    assert torch.allclose(module.layers["down_0_0"].attentions[1].positional_encoding, sinusoids(24, 32)[0], atol=1e-5)


def test_two_different_positional_encodings_in_one_layer_are_refused(original, tmp_path):
    weights, path = original("v3")
    weights["up_blocks.1.motion_modules.2.temporal_transformer.transformer_blocks.0.attention_blocks.1.pos_encoder.pe"][
        0, 0
    ] += 1
    save_file(weights, path)
    with pytest.raises(CheckpointError, match="the two attentions at up_1_2 have different positional encodings"):
        convert_file(path, tmp_path / "adapter", "diffusers")


def test_on_the_command_line(original, tmp_path, capsys):
    _, path = original("v3")
    assert main(["convert", str(path), str(tmp_path / "single.safetensors"), "--to", "diffusers"]) == 0
    assert "single.safetensors" in capsys.readouterr().out
    assert not (tmp_path / "config.json").exists()
    with safe_open(tmp_path / "single.safetensors", "pt") as file:
        assert "down_blocks.0.motion_modules.0.transformer_blocks.0.pos_embed.pe" in file.keys()  # noqa: SIM118
    assert main(["convert", str(path), str(tmp_path / "out.ckpt"), "--to", "original"]) == 1
    assert "ends with .safetensors" in capsys.readouterr().err
    save_file({"something": torch.zeros(1)}, tmp_path / "other.safetensors")
    assert main(["convert", str(tmp_path / "other.safetensors"), str(tmp_path / "x"), "--to", "diffusers"]) == 1


# --- diffusers itself ---


@pytest.mark.parametrize("family", ["v1", "v2", "v3", "lcm", "pia"])
def test_diffusers_reads_what_was_converted(original, tmp_path, family):
    diffusers = pytest.importorskip("diffusers", reason=NO_DIFFUSERS)
    _, path = original(family)
    convert_file(path, tmp_path / "adapter", "diffusers")
    adapter, loading = diffusers.MotionAdapter.from_pretrained(tmp_path / "adapter", output_loading_info=True)
    assert not any(loading.values()), loading
    assert equal(dict(adapter.state_dict()), load_file(tmp_path / "adapter" / "diffusion_pytorch_model.safetensors"))


@pytest.mark.parametrize("family", ["v1", "v2", "v3", "lcm"])
def test_what_diffusers_saves_is_read(tmp_path, family):
    diffusers = pytest.importorskip("diffusers", reason=NO_DIFFUSERS)
    facts = FAMILIES[family]
    torch.manual_seed(0)
    adapter = diffusers.MotionAdapter(
        block_out_channels=(32, 64, 128, 128), motion_max_seq_length=facts.positions or 64, use_motion_mid_block=facts.mid
    )
    name = "AnimateLCM" if family == "lcm" else "adapter"
    adapter.save_pretrained(tmp_path / name)
    description, module = load(tmp_path / name)
    assert description.family.key == family
    assert len(module.layers) == 20 + facts.mid


def test_layers_of_diffusers_compute_the_same_once_their_norm_is_per_frame(original, tmp_path):
    """diffusers' norm is over all frames, and that of the families for SD 1.5 per frame. There is no other difference."""
    diffusers = pytest.importorskip("diffusers", reason=NO_DIFFUSERS)
    weights, path = original("v3")
    convert_file(path, tmp_path / "adapter", "diffusers")
    layer = diffusers.MotionAdapter.from_pretrained(tmp_path / "adapter").down_blocks[1].motion_modules[0]
    x = torch.randn(10, 64, 6, 5)  # two clips of five frames

    class PerFrame(torch.nn.GroupNorm):
        def forward(self, clips):
            frames = clips.transpose(1, 2)
            normed = super().forward(frames.flatten(0, 1))
            return normed.unflatten(0, frames.shape[:2]).transpose(1, 2)

    layer.norm.__class__ = PerFrame
    with torch.no_grad():
        theirs = layer(x, num_frames=5)
        theirs = getattr(theirs, "sample", theirs)
        ours = load(path)[1].layers["down_1_0"](x, layout_of_call(10, 5))
    prefix = "down_blocks.1.motion_modules.0.temporal_transformer."
    authors = authors_layer(
        {key[len(prefix) :]: value for key, value in weights.items() if key.startswith(prefix)},
        x.unflatten(0, (2, 5)).transpose(1, 2),
    )
    assert (ours - theirs).abs().max() < 1e-5
    assert (authors.transpose(1, 2).flatten(0, 1) - theirs).abs().max() < 1e-5
