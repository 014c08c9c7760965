"""Import paths of sd-webui-animatediff under which other extensions look for an AnimateDiff; nothing of ours imports them.

sd-webui-controlnet asks `scripts.animatediff_utils` whether a generation is a clip, and leaves folders of pictures to us then.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from .errors import RequestError
from .job.job import job_of
from .request.params import Params
from .request.reading import read_arguments

PREFIX = "scripts.animatediff_"


@dataclass
class Arguments:
    """What other extensions read of a request."""

    enable: bool
    video_length: int
    batch_size: int
    closed_loop: str
    is_i2i_batch: bool = False


def get_animatediff_arg(p: Any) -> Arguments | None:
    """Returns what a generation asks of AnimateDiff; None if the request cannot be read, or there is no AnimateDiff in it."""
    if (job := job_of(p)) is not None:
        params = job.params
    else:
        script = next((script for script in p.scripts.alwayson_scripts if script.title() == "AnimateDiff"), None)
        try:
            params = read_arguments(p.script_args[script.args_from : script.args_to], {})[0] if script else Params()
        except RequestError:
            return None
    return Arguments(params.enable, params.video_length, params.batch_size, params.closed_loop)


def register() -> None:
    """Makes the paths importable. They are replaced when the WebUI loads its scripts again."""
    module: Any = ModuleType(PREFIX + "utils", __doc__)
    module.get_animatediff_arg = get_animatediff_arg
    sys.modules[module.__name__] = module


def unregister() -> None:
    """Removes the paths again; a callback of `on_script_unloaded`."""
    sys.modules.pop(PREFIX + "utils", None)
