"""Stands in for `modules.sd_models`: lists checkpoints, and loads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import yaml
from modules import devices, script_callbacks, shared
from modules.latent_diffusion import LatentDiffusion
from modules.paths_internal import data_path

from motion_module.training.image_model import STABLE_DIFFUSION_1

SUFFIXES = (".safetensors", ".ckpt")
LEAST_SIGNAL = 4.8973451890853435e-08
"""The signal at the last timestep of a schedule with zero terminal SNR, as measured in a WebUI."""


class UnusableCheckpoint(ValueError):
    """A checkpoint cannot be loaded. The text is for the user."""


@dataclass(frozen=True)
class CheckpointInfo:
    filename: str

    @property
    def name(self) -> str:
        return Path(self.filename).name

    title = short_title = name

    @property
    def name_for_extra(self) -> str:
        return Path(self.filename).stem


class ModelData:
    sd_model: LatentDiffusion | None = None


model_data = ModelData()
checkpoints_list: dict[str, CheckpointInfo] = {}


def list_models() -> None:
    folder = Path(shared.cmd_opts.ckpt_dir)
    files = sorted(file for file in folder.glob("*") if file.suffix in SUFFIXES)
    checkpoints_list.update({file.name: CheckpointInfo(str(file)) for file in files})


def get_closet_checkpoint_match(name: str | None) -> CheckpointInfo | None:
    """Returns the checkpoint of a name, with or without suffix. The spelling is the WebUI's."""
    stems = {info.name_for_extra: info for info in checkpoints_list.values()}
    return checkpoints_list.get(name or "") or stems.get(name or "")


def select_checkpoint() -> CheckpointInfo:
    """Returns the checkpoint of the settings, otherwise the first one. Raises FileNotFoundError if there is none."""
    chosen = get_closet_checkpoint_match(shared.opts.sd_model_checkpoint) or next(iter(checkpoints_list.values()), None)
    if chosen is None:
        raise FileNotFoundError(f"There is no checkpoint in {shared.cmd_opts.ckpt_dir}. Put one there.")
    return chosen


def find_checkpoint(name: str | None) -> CheckpointInfo | None:
    """Returns the checkpoint that a request names; None if it names none. Raises ValueError if it does not exist."""
    info = get_closet_checkpoint_match(name)
    if name and info is None:
        raise ValueError(f"There is no checkpoint {name!r} in {shared.cmd_opts.ckpt_dir}.")
    return info


def read_state_dict(filename: str, map_location: str = "cpu") -> dict[str, torch.Tensor]:
    """Returns the weights of a file. Code in a `.ckpt` is never run: torch refuses such a file."""
    if filename.endswith(".safetensors"):
        return safetensors.torch.load_file(filename, device=map_location)
    weights = torch.load(filename, map_location=map_location, weights_only=True)
    return weights.get("state_dict", weights)


def reload_model_weights(sd_model: Any = None, info: CheckpointInfo | None = None) -> LatentDiffusion:
    """Loads the checkpoint `info`, or that of the settings. The model object stays if both checkpoints share a `.yaml`."""
    info = info or select_checkpoint()
    model = sd_model or model_data.sd_model
    if model is None:
        return load_model(info)
    if model.sd_checkpoint_info == info:
        return model
    if _description_of(model.sd_checkpoint_info) != _description_of(info):
        return load_model(info)
    _load_weights(model, info)
    return model


def load_model(info: CheckpointInfo | None = None) -> LatentDiffusion:
    info = info or select_checkpoint()
    beside = _description_of(info)
    config = yaml.safe_load(beside.read_text())["model"]["params"] if beside else STABLE_DIFFUSION_1
    model = LatentDiffusion(config, *_text_encoder(config)).eval().requires_grad_(False)
    _load_weights(model, info)
    model_data.sd_model = model
    return model


def _load_weights(model: LatentDiffusion, info: CheckpointInfo) -> None:
    """Loads weights into a model. Raises UnusableCheckpoint, before any change, if they are not Stable Diffusion 1's."""
    print(f"Loading weights from {info.filename}")
    try:
        weights = read_state_dict(info.filename)
    except Exception as error:  # a damaged file can raise nearly anything
        raise UnusableCheckpoint(f"{info.name} cannot be read: {str(error).splitlines()[0]}") from error
    own = model.state_dict()
    misshapen = [key for key in weights if key in own and own[key].shape != weights[key].shape]
    missing = [key for key in own if key not in weights and not key.endswith("position_ids") and key != "alphas_cumprod"]
    if missing or misshapen:
        raise UnusableCheckpoint(
            f"{info.name} is not a whole Stable Diffusion 1 checkpoint: {len(missing)} weights are missing and "
            f"{len(misshapen)} have another shape, such as {(missing + misshapen)[0]}."
        )
    model.load_state_dict(weights, strict=False)
    signal = weights.get("alphas_cumprod", model.trained_alphas_cumprod).float()
    model.to(devices.device)
    for part in (model.model, model.cond_stage_model):
        part.to(devices.dtype)
    model.alphas_cumprod = signal.to(devices.device)
    model.alphas_cumprod_original = model.alphas_cumprod
    model.sd_checkpoint_info = info
    script_callbacks.call("model_loaded", model)


def _description_of(info: CheckpointInfo) -> Path | None:
    """Returns the `.yaml` beside a checkpoint, if there is one."""
    beside = Path(info.filename).with_suffix(".yaml")
    return beside if beside.is_file() else None


def _text_encoder(config: dict[str, Any]) -> tuple[Any, Any]:
    """Returns an untrained text encoder and tokenizer: those in the folder that the `.yaml` names, or Stable Diffusion 1's."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    from demo import clip_text_encoder

    folder = config.get("cond_stage_config", {}).get("params", {}).get("version", "")
    if not Path(folder, "config.json").is_file():
        folder = str(clip_text_encoder.write_text_folder(Path(data_path, "clip"), clip_text_encoder.STABLE_DIFFUSION_1))
    return CLIPTextModel(CLIPTextConfig.from_pretrained(folder)), CLIPTokenizer.from_pretrained(folder)


def apply_alpha_schedule_override(sd_model: LatentDiffusion, p: Any = None) -> None:
    """Restores the noise schedule from `alphas_cumprod_original`, with zero terminal SNR if the settings say so."""
    sd_model.alphas_cumprod = sd_model.alphas_cumprod_original.to(shared.device)
    if shared.opts.sd_noise_schedule == "Zero Terminal SNR":
        if p is not None:
            p.extra_generation_params["Noise Schedule"] = shared.opts.sd_noise_schedule
        sd_model.alphas_cumprod = rescale_zero_terminal_snr(sd_model.alphas_cumprod)


def rescale_zero_terminal_snr(alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """Shifts and scales the square roots so that the first stays and the last is 0 (Lin et al., 2023, algorithm 1).

    The last timestep keeps a little signal, since its sigma would be infinite otherwise.
    """
    roots = alphas_cumprod.sqrt()
    first, last = roots[0], roots[-1]
    scaled = ((roots - last) * first / (first - last)) ** 2
    scaled[-1] = LEAST_SIGNAL
    return scaled
