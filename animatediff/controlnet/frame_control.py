"""ControlNet in one job: what its script prepares is kept, and each UNet call gets the hints of its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

from modules import shared
from PIL import Image
from torch import Tensor

from motion_module.context_windows import StepWindows
from motion_module.patching import patched
from motion_module.windowed_unet import Around, nothing_around

from ..errors import AnimateDiffError
from ..request.plan import Plan
from . import reference_noise, script
from .frames import UnitsByFrame
from .hints import digest_of
from .pictures import Unit
from .unet_calls import LayoutOf, UNetCalls

ACTING = (
    "weight", "start_guidance_percent", "stop_guidance_percent", "advanced_weighting", "soft_injection", "cfg_injection",
    "preprocessor", "hr_option", "union_control_types",
)  # fmt: skip
"""ControlNet's settings of a unit that decide how its hints act."""


class FrameControl:
    """What one job gives to ControlNet. Without enabled units it does nothing."""

    def __init__(self, p: Any, plan: Plan) -> None:
        self._p = p
        units = [unit for unit in plan.inputs.controls for _ in range(unit.copies)]
        self._script = script.find(p) if units else None
        self._units = UnitsByFrame(p, plan, units, self._script)
        weights = ((index, plan.control_weight(unit.number)) for index, unit in enumerate(units))
        self._weights = {index: of_frames for index, of_frames in weights if of_frames is not None}
        self._settings: list[list[Any]] = []
        self._facts: list[Any] | None = None
        self._undo = ExitStack()

    def begin(self) -> None:
        """Waits for ControlNet to prepare its units, which it does in a later hook of the WebUI."""
        if self._script is None:
            return
        prepare = getattr(self._script, script.MAIN)

        def prepare_frames(p: Any) -> None:
            if p is not self._p:
                prepare(p)
                return
            self._facts = None
            self._units.prepare(prepare_once)

        def prepare_once(p: Any) -> None:
            prepare(p)
            self._settings = [_settings(param) for param in self._params_of_units()]  # before a job changes some of them

        self._undo.enter_context(patched(self._script, script.MAIN, prepare_frames))

    def require_prepared(self) -> None:
        """Raises what ended the preparation: the WebUI swallows what its hooks raise."""
        self._units.preparation.require_success()

    def facts(self) -> list[Any]:
        """Returns what decides how the units act: their settings, and digests of their hints."""
        if self._facts is None:
            self._facts = [
                [self._units.planned[index].model, *self._settings[index], self._digest(index, param)]
                for index, param in enumerate(self._params_of_units())
            ]
        return self._facts

    def _digest(self, index: int, param: Any) -> str:
        given = [param.effective_region_mask]
        if (hints := self._units.hints.get(index)) is None:
            given += [param.hint_cond, *(getattr(param.control_model, "image_emb", None) or ())]
        of_frames = hints.digest() if hints else ""
        return of_frames + digest_of(tensor for tensor in given if isinstance(tensor, Tensor))

    def _params_of_units(self) -> Sequence[Any]:
        """Returns ControlNet's `ControlParams` of each enabled unit; empty where it has prepared none."""
        network = self._script and self._script.latest_network
        return (network and network.control_params) or ()

    @contextmanager
    def applied_to(
        self, unet: Any, layout_of: LayoutOf, step_windows: Callable[[], StepWindows] | None = None
    ) -> Iterator[None]:
        """While open, each call of the UNet has the hints of its rows. The arguments are those of `UNetCalls`."""
        if self._script is None:
            yield
            return
        if (network := self._script.latest_network) is None:
            raise AnimateDiffError(
                "ControlNet has not prepared its units, so the clip would be made without them. Switch off other extensions "
                "that change ControlNet, or disable its units."
            )
        with UNetCalls(self._p, network, self._units.hints, layout_of, step_windows, self._weights).applied_to(unet):
            yield

    def let_go(self) -> None:
        """Takes ControlNet off the UNet before its own last hook, which may come after ours, for another generation."""
        if self._script is not None and self._script.latest_network is not None:
            self._script.latest_network.restore()

    def begin_call(self) -> Around:
        network = self._script and self._script.latest_network
        return reference_noise.begin_call(network) if network else nothing_around()

    def end(self, *, completed: bool) -> None:
        """Undoes what the job did to ControlNet. A generation that failed has not reached the hook in which ControlNet ends."""
        self._undo.close()
        if self._script is not None and not completed and self._script.latest_network is not None:
            self._script.postprocess(self._p, SimpleNamespace(images=[], extra_generation_params={}))

    def maps(self) -> list[tuple[Unit, list[Image.Image]]]:
        """Returns the detected maps of each unit, if ControlNet's settings ask for them."""
        if shared.opts.data.get("control_net_no_detectmap", False):
            return []
        of_hints = {index: hints.pictures() for index, hints in self._units.hints.items() if hints.shows_maps}
        every = sorted({**of_hints, **self._units.maps}.items())
        return [(self._units.planned[index], maps) for index, maps in every if maps]


def _settings(param: Any) -> list[Any]:
    """Returns the settings of one of ControlNet's units while it acts, as `ControlParams` has them."""
    return [param.control_model_type.name, *(str(getattr(param, name, None)) for name in ACTING)]
