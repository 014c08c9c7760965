"""The ControlNet of the WebUI, by its script: sd-webui-controlnet, or the one that is built into Forge and its relatives."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from PIL import Image

from motion_module.context_windows import StepWindows
from motion_module.windowed_unet import Around

from ..request.plan import Plan
from . import forge_units, script
from .forge_control import ForgeControl
from .frame_control import FrameControl
from .pictures import Unit
from .unet_calls import LayoutOf


class Control(Protocol):
    """What one job gives to ControlNet, and takes back. Without enabled units it does nothing."""

    def begin(self) -> None:
        """Waits for ControlNet to prepare its units, which it does in a later hook of the WebUI."""

    def require_prepared(self) -> None:
        """Raises what ended the preparation: the WebUI swallows what its hooks raise."""

    def facts(self) -> list[Any]:
        """Returns what decides how the units act: their settings, and digests of their hints."""
        ...

    def applied_to(
        self, unet: Any, layout_of: LayoutOf, step_windows: Callable[[], StepWindows] | None = None
    ) -> AbstractContextManager[None]:
        """While open, each call of the UNet has the hints of its rows. The arguments are those of `UNetCalls`."""
        ...

    def let_go(self) -> None:
        """Takes ControlNet off the UNet before its own last hook, which may come after ours, for another generation."""

    def begin_call(self) -> Around:
        """Begins a UNet call whose windows go through the UNet one after another. Returns what goes around each."""
        ...

    def end(self, *, completed: bool) -> None:
        """Undoes what the job did to ControlNet. `completed`: whether the generation has reached ControlNet's last hook."""

    def maps(self) -> list[tuple[Unit, list[Image.Image]]]:
        """Returns the detected maps of each unit, if ControlNet's settings ask for them."""
        ...


def of_job(p: Any, plan: Plan) -> Control:
    """Returns what a job gives to the ControlNet of its WebUI."""
    return ForgeControl(p, plan) if forge_units.find(p) else FrameControl(p, plan)


def enabled_units(p: Any) -> list[tuple[int, Any]]:
    """Returns the enabled units of a request, each with its number. Raises RequestError where ControlNet cannot read them."""
    return forge_units.enabled_units(p) if forge_units.find(p) else script.enabled_units(p)
