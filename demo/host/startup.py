"""Starts the embedded host in this process: makes its `modules` importable, then loads the scripts of all extensions."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import gradio

from demo.host import half_on_cpu

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PARTS_OF_TORCHVISION = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")


def start(
    data_dir: Path, ckpt_dir: Path, lora_dir: Path, settings: Mapping[str, Any] | None = None, dtype: str | None = None
) -> None:
    """Loads settings, checkpoint and extensions. Call it only once.

    `settings` override saved ones. `dtype`: the name of the model's; by default, float16 on CUDA and float32 elsewhere.
    """
    sys.path[:0] = [str(HERE / "webui"), str(ROOT)]
    make_k_diffusion_importable()
    with contextlib.redirect_stdout(io.StringIO()):  # LDM prints that xformers is missing
        importlib.import_module("ldm.modules.diffusionmodules.model")
    from modules.shared_cmd_options import cmd_opts

    vars(cmd_opts).update(dtype=dtype, data_dir=str(data_dir), ckpt_dir=str(ckpt_dir), lora_dir=str(lora_dir))
    from modules import devices, script_callbacks, scripts, sd_models, shared

    if devices.device == devices.cpu and devices.dtype in half_on_cpu.HALF:
        half_on_cpu.make_fast()
    shared.opts.load(shared.config_filename)
    shared.opts.data.update(settings or {})
    sd_models.list_models()
    scripts.create_runners()
    script_callbacks.call("ui_settings")
    with gradio.Blocks():  # requests need the defaults of the controls, even without a page
        for runner in (scripts.scripts_txt2img, scripts.scripts_img2img):
            runner.setup_ui()
    sd_models.load_model()


def default_size() -> int:
    """Returns a width and height that suit the checkpoint: the demo's and the tests' narrow ones are for small pictures."""
    from modules import shared

    return 128 if shared.sd_model.model.diffusion_model.model_channels < 320 else 512


def make_k_diffusion_importable() -> None:
    """Makes `k_diffusion.sampling` and `k_diffusion.external` importable without the rest of the package.

    The package imports all of its modules, and those for training need torchvision, CLIP, scikit-image and more. A module that
    the samplers use imports torchvision too, but only needs it to read and write pictures.
    """
    spec = importlib.util.find_spec("k_diffusion")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("k_diffusion is not installed. Run `python -m demo`, which installs it.")
    package = ModuleType("k_diffusion")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["k_diffusion"] = package
    empty = {name: ModuleType(name) for name in PARTS_OF_TORCHVISION}
    empty[PARTS_OF_TORCHVISION[1]].functional = empty[PARTS_OF_TORCHVISION[2]]  # type: ignore[attr-defined]
    missing = importlib.util.find_spec("torchvision") is None
    if missing:
        sys.modules.update(empty)
    importlib.import_module("k_diffusion.sampling")
    importlib.import_module("k_diffusion.external")
    if missing:  # no one else may take the empty modules for the real ones
        for name in empty:
            del sys.modules[name]
