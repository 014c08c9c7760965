"""Import paths of sd-webui-animatediff under which other extensions look for an AnimateDiff; nothing of ours imports them.

sd-webui-controlnet asks `scripts.animatediff_utils` whether a generation is a clip, hands img2img's Batch tab to
`scripts.animatediff_i2ibatch`, and takes SparseCtrl's motion layers from `scripts.animatediff_mm`. sd-webui-replacer makes its
request with `scripts.animatediff_ui`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from torch import Tensor

from .controlnet.embeddings import travelling
from .controlnet.sparse_ctrl_layers import MotionModuleType, MotionWrapper
from .errors import RequestError
from .job.job import job_of
from .page import batch_tab
from .request.params import FIELDS, Params
from .request.reading import read_arguments

PREFIX = "scripts.animatediff_"
DEFAULTS = {option.name: option.default for option in FIELDS} | {
    "fps": 8,
    "batch_size": 16,
    "video_source": None,
    "format": ["GIF", "PNG"],
    "is_i2i_batch": False,
    "video_default": False,
    "prompt_scheduler": None,
}
"""The defaults of sd-webui-animatediff, and those of the parameters that it does not have."""


class PromptScheduler:
    """What ControlNet moves conditions of its own between keyframes with. `prompt_map`: its keys are the keyframes."""

    def __init__(self) -> None:
        self.prompt_map: dict[int, str] = {}

    def multi_cond(self, conditions: Tensor, closed_loop: bool = False) -> Tensor:
        """Returns `conditions`, `(frames, tokens, width)`, with those between keyframes replaced by what lies between them."""
        keyframes = sorted(self.prompt_map)
        at_keyframes = [conditions[frame : frame + 1] for frame in keyframes]
        return travelling(at_keyframes, keyframes, len(conditions), "lerp", closed=closed_loop).to(conditions)


@dataclass
class Arguments:
    """What other extensions read of a request."""

    enable: bool
    video_length: int
    batch_size: int
    closed_loop: str
    is_i2i_batch: bool = False
    prompt_scheduler: PromptScheduler = field(default_factory=PromptScheduler)


class AnimateDiffProcess(dict[str, Any]):
    """A request, with its parameters as attributes. It takes the place of the API's dictionary, which it is."""

    def __init__(self, **values: Any) -> None:
        super().__init__({**DEFAULTS, **values})

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


def get_animatediff_arg(p: Any) -> Arguments | None:
    """Returns what a generation asks of AnimateDiff; None if the request cannot be read, or there is no AnimateDiff in it."""
    if (job := job_of(p)) is not None:
        params = job.params
    else:
        scripts = p.scripts.alwayson_scripts if p.scripts and p.script_args else ()  # others generate without any
        script = next((script for script in scripts if script.title() == "AnimateDiff"), None)
        try:
            params = read_arguments(p.script_args[script.args_from : script.args_to], {})[0] if script else Params()
        except RequestError:
            return None
    return Arguments(params.enable, params.video_length, params.batch_size, params.closed_loop)


MODULES: dict[str, dict[str, Any]] = {
    "utils": {"get_animatediff_arg": get_animatediff_arg},
    "ui": {"AnimateDiffProcess": AnimateDiffProcess},
    "i2ibatch": {"animatediff_i2i_batch": batch_tab.make_clip},
    "mm": {"MotionWrapper": MotionWrapper, "MotionModuleType": MotionModuleType},
}
"""By the end of a module's name: what it has."""


def register() -> None:
    """Makes the paths importable. They are replaced when the WebUI loads its scripts again."""
    for name, contents in MODULES.items():
        module = ModuleType(PREFIX + name, __doc__)
        vars(module).update(contents)
        sys.modules[module.__name__] = module


def unregister() -> None:
    """Removes the paths again; a callback of `on_script_unloaded`. Who has imported from them keeps what it has."""
    for name in MODULES:
        sys.modules.pop(PREFIX + name, None)
