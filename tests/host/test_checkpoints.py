"""What kind of Stable Diffusion a file is, before it is loaded."""

import pytest
import torch
from safetensors.torch import save_file

from animatediff.job.checkpoints import kind_of_file

KEYS = {
    "SD 1.5": ["cond_stage_model.transformer.text_model.final_layer_norm.weight"],
    "Stable Diffusion 2": ["cond_stage_model.model.ln_final.weight"],
    "SDXL": [
        "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight",
        "conditioner.embedders.1.model.ln_final.weight",
    ],
    "the SDXL refiner": ["conditioner.embedders.0.model.ln_final.weight"],
    "Stable Diffusion 3": ["model.diffusion_model.x_embedder.proj.weight", "cond_stage_model.transformer.weight"],
}


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("kind", KEYS)
def test_keys_tell_the_kind(tmp_path, kind, suffix):
    path = tmp_path / f"model{suffix}"
    weights = {key: torch.zeros(1) for key in ["model.diffusion_model.out.0.weight", *KEYS[kind]]}
    save_file(weights, path) if suffix == ".safetensors" else torch.save({"state_dict": weights}, path)
    assert kind_of_file(str(path)) == kind


@pytest.mark.parametrize(
    ("key", "width", "kind"),
    [
        ("cond_stage_model.transformer.encoder.layers.0.mlp.fc1.weight", 8, "SD 1.5"),
        ("conditioner.embedders.0.model.ln_final.weight", 1024, "Stable Diffusion 2"),  # 2.1 Turbo, which the WebUI renames
        ("conditioner.embedders.0.model.ln_final.weight", 1280, "the SDXL refiner"),
    ],
)
def test_keys_that_the_webui_renames_tell_the_kind_too(tmp_path, key, width, kind):
    save_file({key: torch.zeros(width)}, tmp_path / "model.safetensors")
    assert kind_of_file(str(tmp_path / "model.safetensors")) == kind


def test_other_files_tell_nothing(tmp_path):
    save_file({"model.diffusion_model.out.0.weight": torch.zeros(1)}, tmp_path / "unet.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    for name in ("unet.safetensors", "broken.safetensors", "missing.ckpt"):
        assert kind_of_file(str(tmp_path / name)) is None
