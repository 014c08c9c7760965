"""Checkpoints: which there are, and which one is loaded."""

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
"""What is left at the last step of a schedule that would end at nought: the value that a WebUI was seen to use."""


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
    """The checkpoint of that name, with or without its suffix. (The WebUI's own spelling.)"""
    stems = {info.name_for_extra: info for info in checkpoints_list.values()}
    return checkpoints_list.get(name or "") or stems.get(name or "")


def select_checkpoint() -> CheckpointInfo:
    """The one that the settings name, else the first. Raises FileNotFoundError where there is none."""
    chosen = get_closet_checkpoint_match(shared.opts.sd_model_checkpoint) or next(iter(checkpoints_list.values()), None)
    if chosen is None:
        raise FileNotFoundError(f"There is no checkpoint in {shared.cmd_opts.ckpt_dir}. Put one there.")
    return chosen


def find_checkpoint(name: str | None) -> CheckpointInfo | None:
    """The checkpoint that a request names, None where it names none. Raises ValueError where it is not there."""
    info = get_closet_checkpoint_match(name)
    if name and info is None:
        raise ValueError(f"There is no checkpoint {name!r} in {shared.cmd_opts.ckpt_dir}.")
    return info


def read_state_dict(filename: str, map_location: str = "cpu") -> dict[str, torch.Tensor]:
    """The weights of a file. Code in a `.ckpt` is never run: torch refuses to read such a file."""
    if filename.endswith(".safetensors"):
        return safetensors.torch.load_file(filename, device=map_location)
    weights = torch.load(filename, map_location=map_location, weights_only=True)
    return weights.get("state_dict", weights)


def reload_model_weights(sd_model: Any = None, info: CheckpointInfo | None = None) -> LatentDiffusion:
    """Makes `info`, else what the settings name, the loaded checkpoint: in the same model where both have one description."""
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
    """Raises UnusableCheckpoint, before the loaded model changes, where the file is no Stable Diffusion 1 checkpoint."""
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
    model.to(devices.device, devices.dtype)
    model.alphas_cumprod = signal.to(devices.device)
    model.alphas_cumprod_original = model.alphas_cumprod
    model.sd_checkpoint_info = info
    script_callbacks.call("model_loaded", model)


def _description_of(info: CheckpointInfo) -> Path | None:
    """The `.yaml` beside a checkpoint, where there is one."""
    beside = Path(info.filename).with_suffix(".yaml")
    return beside if beside.is_file() else None


def _text_encoder(config: dict[str, Any]) -> tuple[Any, Any]:
    """Untrained text encoder and tokenizer: Stable Diffusion 1's, unless the description names a folder with another one."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    from demo import clip_text_encoder

    folder = config.get("cond_stage_config", {}).get("params", {}).get("version", "")
    if not Path(folder, "config.json").is_file():
        folder = str(clip_text_encoder.write_text_folder(Path(data_path, "clip"), clip_text_encoder.STABLE_DIFFUSION_1))
    return CLIPTextModel(CLIPTextConfig.from_pretrained(folder)), CLIPTokenizer.from_pretrained(folder)


def apply_alpha_schedule_override(sd_model: LatentDiffusion, p: Any = None) -> None:
    """Takes the noise schedule from `alphas_cumprod_original`, with the terminal signal at nought where the settings say so."""
    sd_model.alphas_cumprod = sd_model.alphas_cumprod_original.to(shared.device)
    if shared.opts.sd_noise_schedule == "Zero Terminal SNR":
        if p is not None:
            p.extra_generation_params["Noise Schedule"] = shared.opts.sd_noise_schedule
        sd_model.alphas_cumprod = rescale_zero_terminal_snr(sd_model.alphas_cumprod)


def rescale_zero_terminal_snr(alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """Shifts and scales the square roots so that the first stays and the last is nought (Lin et al., 2023, algorithm 1).

    The last step keeps a little signal, since sigmas would be infinite otherwise.
    """
    roots = alphas_cumprod.sqrt()
    first, last = roots[0], roots[-1]
    scaled = ((roots - last) * first / (first - last)) ** 2
    scaled[-1] = LEAST_SIGNAL
    return scaled
