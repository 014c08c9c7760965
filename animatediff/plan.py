"""From a request to what it wants of the model: which motion modules, as which family, under which controls."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from motion_module.checkpoint import Description
from motion_module.controls import Controls, Strength, parse_rules
from motion_module.families import FAMILIES, Family
from motion_module.temporary import Positions

from . import library
from .params import AS_FOUND, NO_MODULE, Params, RequestError


@dataclass(frozen=True)
class SecondModule:
    description: Description
    how: Literal["blend", "chain"]
    share: float


@dataclass(frozen=True)
class Plan:
    """What the model has to do for one job. `curve`: how far a picture of PIA may change, by its name."""

    description: Description
    family: Family
    frames: int
    controls: Controls
    positions: Positions
    second: SecondModule | None
    curve: str

    @property
    def descriptions(self) -> tuple[Description, ...]:
        return (self.description, self.second.description) if self.second else (self.description,)

    def as_params(self, params: Params) -> Params:
        """The request with what it left open filled in, so that its infotext gives the same video on another machine."""
        sure = self.family is self.description.family and not self.description.assumed
        return dataclasses.replace(params, video_length=self.frames, family=AS_FOUND if sure else self.family.key)


def make_plan(params: Params) -> Plan:
    """Looks at the files that a request names. Raises RequestError or CheckpointError where it cannot be met."""
    path = library.find(params.model)
    library.short_hash(path)  # from now on the WebUI knows it, and it may tell what the file is
    description = library.what_it_is(path)
    family = chosen_family(params.family, description)
    frames = asked_frames(params) or library.trained_frames(description, family)
    second = _second(params)
    for module in (description, second.description) if second else (description,):
        if frames > module.length and params.positions == "as trained":
            raise RequestError(
                f"{frames} frames are asked for, but {module.path.name} knows {module.length} positions. Set the number of "
                f"frames to {module.length} or fewer, or “Positions” (positions) to stretch or extend."
            )
    strength = Strength(params.motion_scale, params.motion_effect)
    controls = Controls(strength, params.motion_start, params.motion_end, parse_rules(params.motion_rules))
    return Plan(description, family, frames, controls, params.positions, second, params.pia_motion)  # type: ignore[arg-type]


def asked_frames(params: Params) -> int:
    """0 where the request leaves it open."""
    return params.video_length or (params.batch_size if params.batch_size != Params.batch_size else 0)


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


def _second(params: Params) -> SecondModule | None:
    if params.model_2 in NO_MODULE:
        return None
    description = library.what_it_is(library.find(params.model_2))
    if description.require_motion_module().takes_picture:
        raise RequestError(
            f"{description.path.name} is a PIA module, which can only be the first (model), not the second (model_2)."
        )
    return SecondModule(description, params.mix, params.mix_share)  # type: ignore[arg-type]
