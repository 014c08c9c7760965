"""A stand-in for sd-webui-controlnet on the embedded host, with the names of it that AnimateDiff uses.

Its control model adds the colours of the control image to what the UNet returns, so a picture tells which hint it had.
"""

import base64
import io
import time
from enum import Enum
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import gradio as gr
import numpy as np
import torch
from modules import script_callbacks, scripts, shared
from PIL import Image

UNITS = 3
STRENGTH = 0.5
SIDE_IN_A_SECOND = 10_000
"""The side, in pixels, of a map that would take a second."""


class InputMode(Enum):
    SIMPLE = "simple"
    BATCH = "batch"
    MERGE = "merge"


class Kind(Enum):
    ControlNet = "adds to the UNet"


class HiresOption(Enum):
    BOTH = "both passes"


class Unit:
    """The settings of one unit. Raises ValueError for an unknown preprocessor."""

    def __init__(self, **given: Any) -> None:
        self.enabled = bool(given.get("enabled", False))
        self.module = given.get("module", "none")
        self.model = given.get("model", "None")
        self.weight = given.get("weight", 1.0)
        self.processor_res = given.get("processor_res", 0)
        self.image, self.mask = given.get("image"), given.get("mask")
        self.input_mode = InputMode(given.get("input_mode", "simple"))
        self.batch_images = given.get("batch_images", "")
        self.ipadapter_input = None
        self.accepts_multiple_inputs = self.is_inpaint = False
        if Preprocessor.get_preprocessor(self.module) is None:
            raise ValueError(f"the preprocessor {self.module} is unknown")

    def copy(self) -> "Unit":
        other = Unit.__new__(Unit)
        vars(other).update(vars(self))
        return other


class Preprocessor:
    """Gives the picture itself, or its edges."""

    class Result(NamedTuple):
        value: np.ndarray
        display_images: list

    returns_image = True
    do_not_need_model = False

    def __init__(self, name: str) -> None:
        self.name = name

    @staticmethod
    def get_preprocessor(name: str) -> "Preprocessor | None":
        return Preprocessor(name) if name in ("none", "canny") else None

    def cached_call(self, picture: np.ndarray, resolution: int = 0) -> "Preprocessor.Result":
        made = np.abs(np.diff(picture, axis=1, append=picture[:, -1:])) if self.name == "canny" else picture
        return self.Result(made, [made])


def find_closest_lora_model_name(name: str) -> "str | None":
    return None if name == "nothing" else name


def units_in(p: Any) -> list:
    script = next(script for script in p.scripts.alwayson_scripts if script.title() == "ControlNet")
    given = p.script_args[script.args_from : script.args_to]
    return [Unit(**one) for one in given if isinstance(one, dict)]


external_code = SimpleNamespace(get_all_units_in_processing=units_in)


def picture_of(p: Any, unit: Unit) -> np.ndarray:
    image = unit.image["image"] if isinstance(unit.image, dict) else unit.image
    if isinstance(image, str):
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(image))).convert("RGB"))
    if image is None:
        return np.asarray(p.init_images[0].convert("RGB"))
    return image


def get_control(p: Any, unit: Unit, index: int, kind: Kind, preprocessor: Preprocessor) -> tuple:
    time.sleep(unit.processor_res / SIDE_IN_A_SECOND)
    found = preprocessor.cached_call(picture_of(p, unit)).value
    detected = np.asarray(Image.fromarray(found).resize((p.width, p.height), Image.Resampling.NEAREST))
    control = torch.from_numpy(detected.copy()).float().div(255).permute(2, 0, 1)[None]
    hires = control if getattr(p, "enable_hr", False) else None
    return (control,), (hires,), [(detected, unit.module)]


class Colours(torch.nn.Module):
    """Averages the control image over the pixels of each latent."""

    def forward(self, x: torch.Tensor, hint: torch.Tensor) -> list:
        colours = torch.nn.functional.interpolate(hint.to(x), x.shape[-2:], mode="area")
        return [torch.cat([colours, colours[:, :1]], dim=1) * STRENGTH]


class ControlModel(torch.nn.Module):
    """What ControlNet has around each control model."""

    def __init__(self) -> None:
        super().__init__()
        self.control_model = Colours()

    def forward(self, *, x: torch.Tensor, hint: torch.Tensor, **_: Any) -> list:
        return self.control_model(x, hint)


class Network:
    """Replaces the UNet's forward until `restore`."""

    def __init__(self, unet: Any, control_params: list) -> None:
        self.control_params = control_params
        self.model = self._unet = unet
        self._before = unet.forward

        def forward(x: torch.Tensor, timesteps: Any = None, context: Any = None, y: Any = None, **_: Any) -> torch.Tensor:
            made = self._before(x, timesteps, context, y=y)
            for param in self.control_params:
                hint = param.hint_cond if param.used_hint_cond is None else param.used_hint_cond
                (added,) = param.control_model(x=x, hint=hint, timesteps=timesteps, context=context, y=y)
                made = made + param.weight * added
            return made

        unet.forward = forward

    def restore(self) -> None:
        vars(self._unet).pop("forward", None)


class Script(scripts.Script):
    model_cache: ClassVar[dict] = {"the only one": SimpleNamespace(model=ControlModel())}

    def __init__(self) -> None:
        self.latest_network = None
        self.detected = []
        self.enabled_units = []
        self.ui_batch_option_state = ["All units for all images", False]

    @staticmethod
    def parse_remote_call(p: Any, unit: Unit, number: int) -> Unit:
        return unit

    @staticmethod
    def check_sd_version_compatible(unit: Unit) -> None:
        if "xl" in unit.model:
            raise ValueError(f"{unit.model} is not compatible with the checkpoint")

    def title(self) -> str:
        return "ControlNet"

    def show(self, is_img2img: bool) -> Any:
        return scripts.AlwaysVisible

    def ui(self, is_img2img: bool) -> list:
        return [gr.State(None) for _ in range(UNITS)]

    def controlnet_main_entry(self, p: Any) -> None:
        if self.latest_network is not None:
            self.latest_network.restore()
        self.latest_network, self.detected = None, []
        params = []
        self.enabled_units = [unit for unit in units_in(p) if unit.enabled]
        for index, unit in enumerate(self.enabled_units):
            preprocessor = Preprocessor.get_preprocessor(unit.module)
            (control,), (hires,), maps = get_control(p, unit, index, Kind.ControlNet, preprocessor)
            self.detected += maps
            params.append(
                SimpleNamespace(
                    control_model=self.model_cache["the only one"].model,
                    control_model_type=Kind.ControlNet,
                    preprocessor={"name": unit.module},
                    hint_cond=control,
                    hr_hint_cond=hires,
                    hr_option=HiresOption.BOTH,
                    used_hint_cond=None,
                    used_hint_cond_latent=None,
                    used_hint_inpaint_hijack=None,
                    cfg_injection=False,
                    effective_region_mask=None,
                    weight=unit.weight,
                )
            )
        if params:
            self.latest_network = Network(shared.sd_model.model.diffusion_model, params)

    def process(self, p: Any, *units: Any) -> None:
        self.controlnet_main_entry(p)

    def postprocess(self, p: Any, processed: Any, *units: Any) -> None:
        if self.latest_network is not None:
            if not shared.opts.data.get("control_net_no_detectmap", False):
                processed.images.extend(Image.fromarray(detected) for detected, _ in self.detected)
            self.latest_network.restore()
        self.latest_network, self.detected = None, []


def add_settings() -> None:
    shared.opts.add_option("control_net_no_detectmap", shared.OptionInfo(False, "Do not append detectmap to output"))


script_callbacks.on_ui_settings(add_settings)
