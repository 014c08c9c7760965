"""What a request asks of the model, worked out from its parameters and its files: no file is opened here."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

from PIL import Image

from motion_module.checkpoint import Description
from motion_module.context_windows import ClosedLoop, ContextWindows, FuseMethod
from motion_module.families import FAMILIES, Family
from motion_module.motion_strength import LayerStrength, MotionStrength, PerFrame, parse_rules
from motion_module.sparse_ctrl import Shape

from ..errors import RequestError
from . import camera, module_files
from .camera import CameraChoice
from .choices import AS_FOUND, IN_ATTENTION, RAMP
from .frame_pictures import SparseAsked, placed, read_frames
from .inputs import Inputs, SparseInput
from .params import MOST_FRAMES, Params, without_img2img
from .schedules import numbers_of, weights_of_units

CLOSING: dict[str, ClosedLoop] = {"N": "none", "R-P": "few", "R+P": "few", "A": "many"}
"""How windows close the loop, by `closed_loop`."""
PER_FRAME = ("motion_scale_frames", "motion_effect_frames", "cfg_scale_frames", "denoising_strength_frames")


@dataclass(frozen=True)
class SecondChoice:
    """A second motion module. `weight`: a fraction between 0 and 1."""

    description: Description
    how: Literal["blend", "chain"]
    weight: float


@dataclass(frozen=True)
class SparseChoice:
    """A SparseCtrl model and its pictures. `frames`: the frame of each picture, from 0. `facts`: what else was asked of it."""

    path: Path
    shape: Shape
    pictures: list[Image.Image]
    frames: list[int]
    facts: SparseAsked


@dataclass(frozen=True)
class Plan:
    """A whole request. `params` has everything filled in that the request left open.

    `cfg_scale`, `denoising_strength`: those of the frames, where the request gives them instead of the WebUI.
    `control_weights`: what multiplies the weight of ControlNet's units in each frame, by their numbers; None is for others.
    `sparse_weights`: what multiplies the strength of SparseCtrl models in each frame.
    """

    params: Params
    inputs: Inputs
    family: Family
    windows: ContextWindows
    strength: MotionStrength
    second: SecondChoice | None
    camera: CameraChoice | None
    cfg_scale: PerFrame | None = None
    denoising_strength: PerFrame | None = None
    control_weights: dict[int | None, tuple[float, ...]] = field(default_factory=dict)
    sparse: tuple[SparseChoice, ...] = ()
    sparse_weights: PerFrame = 1.0

    @property
    def module(self) -> Description:
        return self.inputs.module

    @property
    def frames(self) -> int:
        return self.windows.frames

    def control_weight(self, unit: int) -> tuple[float, ...] | None:
        """Returns what multiplies the weight of a unit of ControlNet in each frame; None if nothing does."""
        return self.control_weights.get(unit, self.control_weights.get(None))

    @property
    def windows_in_attention(self) -> bool:
        """Whether windows cut only the motion module's attention, so that all frames go through the UNet in one call."""
        return self.params.context_mode == IN_ATTENTION

    @property
    def images(self) -> list[Image.Image] | None:
        """The images that frames start from: those of img2img, or the frames of its source video. None in txt2img."""
        given = self.inputs.init_images
        return None if given is None else given[: self.frames]

    @property
    def masks(self) -> list[Image.Image]:
        """The masks of `mask_path`: one for all frames, or one for each."""
        return self.inputs.masks

    @property
    def masks_differ(self) -> bool:
        """Whether each frame has a mask of its own."""
        return len(self.masks) > 1

    @property
    def motion_masks(self) -> list[Image.Image]:
        """The masks of where motion acts: one for all frames, or one for each; empty if it acts everywhere."""
        return self.inputs.motion_masks

    @property
    def attention_is_windowed(self) -> bool:
        """Whether motion layers attend within windows. A clip of one window that loops needs no more UNet calls for them."""
        return self.windows.wraps or (self.windows.needed and self.windows_in_attention)

    @property
    def starts_from_image(self) -> bool:
        """Whether all frames start from one image of img2img."""
        return not self.params.frames_from_source and len(self.images or ()) == 1

    @property
    def descriptions(self) -> tuple[Description, ...]:
        return (self.module, self.second.description) if self.second else (self.module,)

    @property
    def module_files(self) -> tuple[tuple[Path, Family], ...]:
        """The file of each motion module, and the family that it acts as."""
        second = [(self.second.description.path, self.second.description.require_motion_module())] if self.second else []
        return ((self.module.path, self.family), *second)


def make_plan(params: Params, inputs: Inputs) -> Plan:
    """Raises RequestError or CheckpointError where the parameters and the files do not go together."""
    family = chosen_family(params.family, inputs.module)
    params = _completed_from_images(params, inputs)
    windows = windows_for(params, module_files.trained_frames(inputs.module, family))
    scale, effect, cfg_scale, denoising = (numbers_of(params, name, windows.frames) for name in PER_FRAME)
    of_layers = LayerStrength(
        params.motion_scale if scale is None else scale, params.motion_effect if effect is None else effect
    )
    strength = MotionStrength(of_layers, params.motion_start, params.motion_end, parse_rules(params.motion_rules))
    completed = _completed_from_module(params, inputs.module, family, windows)
    if denoising is not None:  # constant ones also take the place of the ramp
        completed = dataclasses.replace(completed, image_mode=RAMP, ramp_length=0.0)
    of_units = weights_of_units(params, windows.frames)
    of_camera = camera.choose(completed, inputs.camera, windows.frames, family, inputs.module.channels or {})
    second = _second(completed, inputs, family)
    sparse = tuple(_sparse(given, windows.frames) for given in inputs.sparse)
    weights = numbers_of(params, "sparse_strength_frames", windows.frames)
    return Plan(
        completed,
        inputs,
        family,
        windows,
        strength,
        second,
        of_camera,
        cfg_scale,
        denoising,
        of_units,
        sparse,
        1.0 if weights is None else weights,
    )


def _completed_from_images(params: Params, inputs: Inputs) -> Params:
    """The request with the length and speed that its images give it."""
    if inputs.init_images is None:
        params = without_img2img(params)
    if inputs.source is not None:
        params = inputs.source.filled_in(params)
    elif len(inputs.init_images or ()) > 1 and not params.video_length:
        params = dataclasses.replace(params, video_length=len(inputs.init_images or ()))
    if (shortest := inputs.shortest_folder) and len(shortest.pictures) < (params.video_length or MOST_FRAMES):
        params = dataclasses.replace(params, video_length=len(shortest.pictures))
    return params


def _completed_from_module(params: Params, module: Description, family: Family, windows: ContextWindows) -> Params:
    """The request with what its motion module decides, so that its infotext makes the same video on another machine."""
    is_certain = family is module.family and not module.assumed
    return dataclasses.replace(
        params,
        model=module_files.meant(params.model),
        model_2=module_files.meant(params.model_2),
        camera=module_files.meant(params.camera),
        video_length=windows.frames,
        batch_size=windows.length if windows.needed else params.batch_size,
        family=AS_FOUND if is_certain else family.key,
    )


def windows_for(params: Params, trained_frames: int) -> ContextWindows:
    """The context windows of a request, for a motion module that was trained on `trained_frames` frames.

    Raises RequestError.
    """
    length = params.batch_size or trained_frames
    if params.overlap >= length:
        raise RequestError(
            f"Overlap (overlap) is {params.overlap}, but the context length (batch_size) is {length}. Set the overlap to "
            f"{length - 1} or less, or to -1."
        )
    if params.video_length > MOST_FRAMES:  # from the images of img2img
        raise RequestError(
            f"img2img was given {params.video_length} pictures, but a clip has at most {MOST_FRAMES} frames. Give fewer."
        )
    return ContextWindows(
        params.video_length or length,
        length,
        overlap=length // 4 if params.overlap < 0 else params.overlap,
        stride=params.stride,
        uniform=params.context_schedule == "uniform",
        closed_loop=CLOSING[params.closed_loop],
        fuse_method=cast(FuseMethod, params.fuse_method),
    )


def chosen_family(name: str, description: Description) -> Family:
    """The family of a file, or the one that the request says. Raises RequestError where the file cannot be of that one."""
    found = description.require_motion_module()
    if name in ("", AS_FOUND):
        return found
    if (chosen := FAMILIES[name]) not in description.alternatives:
        possible = ", ".join(family.key for family in description.alternatives)
        raise RequestError(
            f"{description.path.name} cannot be used as {chosen.title}: it is built like {found.title}. Set "
            f"Family (family) to “{AS_FOUND}”{f', or to one of {possible}' if len(description.alternatives) > 1 else ''}."
        )
    return chosen


def _sparse(given: SparseInput, frames: int) -> SparseChoice:
    name = "Frames of the pictures (sparse_frames)"
    numbers = placed(given.said, read_frames(name, given.asked.frames), frames, name)
    return SparseChoice(given.path, given.shape, given.pictures, numbers, given.asked)


def _second(params: Params, inputs: Inputs, first: Family) -> SecondChoice | None:
    if (description := inputs.second) is None:
        return None
    family = description.require_motion_module()
    if family.base != first.base:
        raise RequestError(
            f"The second motion module {description.path.name} (model_2) is made for {family.base}, the first for {first.base}."
            " Choose two for the same kind of checkpoint."
        )
    if family.takes_image:
        raise RequestError(
            f"{description.path.name} animates a picture ({family.title}), so it can only be the first (model), not the second "
            "(model_2). Choose another as the second."
        )
    return SecondChoice(description, cast(Literal["blend", "chain"], params.model_2_mode), params.model_2_weight)
