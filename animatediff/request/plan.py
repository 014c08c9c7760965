"""From a request to what it wants of the model: which motion modules, as which family, under which controls."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from motion_module.checkpoint import Description
from motion_module.context_windows import ClosedLoop, ContextWindows
from motion_module.families import FAMILIES, Family
from motion_module.motion_strength import LayerStrength, MotionStrength, parse_rules
from motion_module.weight_patches import PositionalEncodingMode

from ..errors import RequestError
from . import module_files
from .params import AS_FOUND, NO_MODULE, Params


@dataclass(frozen=True)
class SecondModule:
    description: Description
    how: Literal["blend", "chain"]
    share: float


@dataclass(frozen=True)
class Plan:
    """What the model has to do for one job. `windows_within`: whether only attention between frames is cut. `curve`: how far a
    picture of PIA may change, by its name. `first_frame_attention`: how much every frame looks at the first one.
    `offload`: whether frames wait in RAM where all of them are in one call.
    """

    description: Description
    family: Family
    windows: ContextWindows
    windows_within: bool
    controls: MotionStrength
    positional_encoding: PositionalEncodingMode
    second: SecondModule | None
    curve: str
    first_frame_attention: float
    offload: bool

    @property
    def frames(self) -> int:
        return self.windows.frames

    @property
    def descriptions(self) -> tuple[Description, ...]:
        return (self.description, self.second.description) if self.second else (self.description,)

    @property
    def modules(self) -> tuple[tuple[Path, Family], ...]:
        """The file of each motion module, and the family that it acts as."""
        others = [(self.second.description.path, self.second.description.require_motion_module())] if self.second else []
        return ((self.description.path, self.family), *others)

    def as_params(self, params: Params) -> Params:
        """The request with what it left open filled in, so that its infotext gives the same video on another machine."""
        sure = self.family is self.description.family and not self.description.assumed
        length = self.windows.length if self.windows.needed else params.batch_size
        family = AS_FOUND if sure else self.family.key
        return dataclasses.replace(params, video_length=self.frames, batch_size=length, family=family)


def make_plan(params: Params) -> Plan:
    """Looks at the files that a request names. Raises RequestError or CheckpointError where it cannot be met."""
    path = module_files.find(params.model)
    module_files.short_hash(path)  # from now on the WebUI knows it, and it may tell what the file is
    description = module_files.what_it_is(path)
    family = chosen_family(params.family, description)
    second = _second(params, family)
    windows = context_windows(params, module_files.trained_frames(description, family))
    for module in (description, second.description) if second else (description,):
        if windows.attended_frames > module.length and params.positional_encoding == "as trained":
            raise RequestError(
                f"{windows.attended_frames} frames at once are asked for, but {module.path.name} knows {module.length} "
                f"positions. Set “Frames in a window” (batch_size) to {module.length} or fewer, or “Positions” "
                "(positional_encoding) to stretch or extend."
            )
    if params.offload and windows.needed and windows_within(params):
        _require_rows_apart(params, family)
    strength = LayerStrength(params.motion_scale, params.motion_effect)
    controls = MotionStrength(strength, params.motion_start, params.motion_end, parse_rules(params.motion_rules))
    facts = {
        "positional_encoding": params.positional_encoding,
        "second": second,
        "curve": params.pia_motion,
        "first_frame_attention": params.first_frame_attention,
        "offload": params.offload,
    }
    return Plan(description, family, windows, windows_within(params), controls, **facts)  # type: ignore[arg-type]


CLOSING: dict[str, ClosedLoop] = {"N": "none", "R-P": "few", "R+P": "few", "A": "many"}


def context_windows(params: Params, trained_frames: int) -> ContextWindows:
    """How a request's video is cut, where the motion module was trained with so many frames. Raises RequestError."""
    length = params.batch_size or trained_frames
    if params.overlap >= length:
        raise RequestError(
            f"Overlap (overlap) is {params.overlap}, but a window has {length} frames (batch_size). Set it to {length - 1} or "
            "less, or to -1."
        )
    return ContextWindows(
        params.video_length or length,
        length,
        length // 4 if params.overlap < 0 else params.overlap,
        stride=params.stride,
        uniform=params.context_schedule == "uniform",
        closed_loop=CLOSING[params.closed_loop],
        fuse_method=params.fuse_method,  # type: ignore[arg-type]
    )


def _require_rows_apart(params: Params, family: Family) -> None:
    """Frames can only wait in RAM where layers of the image model look at one frame at a time."""
    hindrance = ""
    if family.unet_norms == "over frames":
        hindrance = f"{family.title} norms over all frames at once. Use another motion module, or switch it off."
    elif params.first_frame_attention:
        hindrance = (
            "all frames attend to the first one. Set “Attend to the first frame” (first_frame_attention) to 0, or switch off."
        )
    if hindrance:
        raise RequestError(f"Frames cannot wait in RAM (offload), since {hindrance}")


def windows_within(params: Params) -> bool:
    return params.context_mode == "motion attention"


def chosen_family(name: str, description: Description) -> Family:
    """The family that the file has, unless the request knows better. Raises RequestError where it cannot be of that one."""
    found = description.require_motion_module()
    if name in ("", AS_FOUND):
        return found
    if (chosen := FAMILIES[name]) not in description.alternatives:
        possible = ", ".join(family.key for family in description.alternatives)
        raise RequestError(
            f"{description.path.name} cannot be used as {chosen.title}: it has the keys and shapes of {found.title}. Set "
            f"Family (family) to “{AS_FOUND}”{f', or to one of {possible}' if len(description.alternatives) > 1 else ''}."
        )
    return chosen


def _second(params: Params, first: Family) -> SecondModule | None:
    if params.model_2 in NO_MODULE:
        return None
    description = module_files.what_it_is(module_files.find(params.model_2))
    family = description.require_motion_module()
    if family.base != first.base:
        raise RequestError(
            f"The second motion module {description.path.name} (model_2) is made for {family.base}, the first for {first.base}."
            " Choose two for the same kind of checkpoint."
        )
    if family.takes_image:
        raise RequestError(
            f"{description.path.name} is a PIA module, which can only be the first (model), not the second (model_2)."
        )
    return SecondModule(description, params.model_2_mode, params.model_2_weight)  # type: ignore[arg-type]
