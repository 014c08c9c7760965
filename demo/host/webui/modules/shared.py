"""Stands in for `modules.shared`: settings, state, the loaded checkpoint, the device."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from modules import devices
from modules.options import OptionInfo, Options
from modules.paths_internal import data_path
from modules.shared_cmd_options import cmd_opts
from modules.shared_state import State

__all__ = ["OptionInfo", "cmd_opts", "config_filename", "device", "natural_sort_key", "opts", "state", "walk_files"]

config_filename = str(Path(data_path) / "config.json")
device = devices.device
state = State()
demo: Any = None
"""The page in the WebUI, where files are registered with it; not used here."""
hide_dirs = {"visible": not cmd_opts.hide_ui_dir_config}
opts = Options(
    {
        "sd_model_checkpoint": None,
        "sd_unet": "None",
        "sd_noise_schedule": "Default",
        "batch_cond_uncond": True,
        "pad_cond_uncond": False,
        "s_min_uncond": 0.0,
        "s_min_uncond_all": False,
        "skip_early_cond": 0.0,
        "eta_ancestral": 1.0,
        "eta_ddim": 0.0,
        "enable_pnginfo": True,
        "live_previews_enable": True,
        "show_progress_every_n_steps": 10,
        "samples_format": "png",
        "samples_save": True,
        "return_grid": True,
        "outdir_txt2img_samples": "outputs/txt2img-images",
        "outdir_img2img_samples": "outputs/img2img-images",
        "img2img_background_color": "#ffffff",
    }
)


def __getattr__(name: str) -> Any:
    if name == "sd_model":
        from modules import sd_models

        return sd_models.model_data.sd_model
    raise AttributeError(name)


def walk_files(path: str, allowed_extensions: Sequence[str] | None = None) -> Iterator[str]:
    """Yields every file below a folder, in natural order."""
    for file in sorted(Path(path).rglob("*"), key=lambda file: natural_sort_key(str(file))):
        if file.is_file() and (allowed_extensions is None or file.suffix.lower() in allowed_extensions):
            yield str(file)


def natural_sort_key(text: str) -> list[Any]:
    """Returns a key that sorts 2 before 10."""
    return [int(part) if part.isdigit() else part.lower() for part in re.split(r"(\d+)", text)]
