"""The ControlNet built into Forge, reForge and Forge Neo in one job: each frame of a clip has its own picture.

Its script takes several pictures for the images of a batch, in order. While a job runs, the method with which it asks for the
pictures of a unit is ours: it gives one for each frame, as `pictures` decides.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import torch
from modules import shared
from PIL import Image
from torch import Tensor

from motion_module.context_windows import StepWindows
from motion_module.patching import patched
from motion_module.windowed_unet import Around, nothing_around

from ..request.plan import Plan
from . import forge_units
from .forge_calls import FrameRows, run_in_chunks, saying_rows
from .hints import digest_of
from .pictures import Unit
from .preparation import Preparation, with_mask
from .refusals import require_fit_of_built_in, require_number_of_units
from .unet_calls import LayoutOf

Method = Callable[..., Any]
CONDITIONS = 2
"""The usual number of conditions of a frame: its prompt and its negative prompt."""
MADE = ("control_cond", "control_cond_for_hr_fix", "control_mask", "control_mask_for_hr_fix")
"""The attributes in which ControlNet keeps what it has made of the pictures of a unit: a row for each frame."""
SETTING = (str, int, float, bool, Enum)


@dataclass
class _Prepared:
    """A unit that ControlNet has prepared. `params`: ControlNet's. `pictures`: how many it has. `maps`: those that it shows."""

    settings: list[str]
    params: Any
    pictures: int
    maps: list[Any]


class ForgeControl:
    """What one job gives to the built-in ControlNet. Without enabled units it does nothing."""

    def __init__(self, p: Any, plan: Plan) -> None:
        self._p = p
        self._planned = plan.inputs.controls
        self._script = forge_units.find(p) if self._planned else None
        self._frames = plan.frames
        self._weight_of = plan.control_weight
        self._windows = plan.windows
        self._splits_calls = plan.windows.needed and not plan.windows_in_attention
        self._images = plan.images
        self._masks = plan.masks
        self._source = plan.inputs.source
        self._preparation = Preparation()
        self._prepared: list[_Prepared] = []
        self._pictures = 0
        self._undo = ExitStack()

    def begin(self) -> None:
        """Waits for ControlNet to prepare its units, which it does in a later hook of the WebUI."""
        if self._script is None:
            return
        script, enabled = self._script, self._script.get_enabled_units

        def enabled_units(units: Sequence[Any]) -> Any:
            return enabled([forge_units.in_its_words(script, unit) for unit in units if unit is not None])

        self._undo.enter_context(patched(script, "get_enabled_units", enabled_units))
        self._replace("process", self._prepare)
        self._replace("process_unit_after_click_generate", self._prepare_unit)
        self._replace("get_input_data", self._pictures_of)
        self._replace("process_before_every_sampling", self._begin_pass)
        self._replace("process_unit_before_every_sampling", self._begin_pass_of_unit)

    def _replace(self, name: str, ours: Method) -> None:
        """Lets a method of the script be ours for this generation. `ours` takes the script's own one first."""
        whole = getattr(self._script, name)

        def method(p: Any, *args: Any, **named: Any) -> Any:
            return ours(whole, *args, **named) if p is self._p else whole(p, *args, **named)

        self._undo.enter_context(patched(self._script, name, method))

    def require_prepared(self) -> None:
        """Raises what ended the preparation: the WebUI swallows what its hooks raise."""
        self._preparation.require_success()

    # --- units are prepared ---

    def _prepare(self, whole: Method, *args: Any, **named: Any) -> None:
        assert self._script is not None
        self._preparation.begin()
        self._prepared.clear()
        with self._preparation.remembering_failure():
            require_number_of_units(len(self._script.get_enabled_units(args)), len(self._planned))
            whole(self._p, *args, **named)

    def _prepare_unit(self, whole: Method, unit: Any, params: Any, *args: Any, **named: Any) -> None:
        planned, shown = self._planned[len(self._prepared)], self._p.extra_result_images
        self._preparation.preparing = f"unit {planned.number}"
        settings = [f"{name} {value}" for name, value in sorted(vars(unit).items()) if isinstance(value, SETTING)]
        before = len(shown)
        whole(self._p, unit, params, *args, **named)
        maps = shown[before:]
        del shown[before:]
        require_fit_of_built_in(planned, params, splits_calls=self._splits_calls)
        if planned.keyframes:
            self._give_to_keyframes(params, planned.keyframes)
        self._prepared.append(_Prepared(settings, params, self._pictures, maps))

    def _give_to_keyframes(self, params: Any, keyframes: Sequence[int]) -> None:
        """Gives each keyframe its own row of what ControlNet has made of the pictures in their order. Others get any."""
        place = dict(zip(keyframes, range(len(keyframes))))
        for name in MADE:
            if isinstance(made := getattr(params, name), Tensor):
                rows = [place.get(frame, 0) for frame in range(self._frames)]
                setattr(params, name, made[rows * (len(made) // self._frames)])

    def _pictures_of(self, whole: Method, unit: Any, *args: Any) -> Any:
        """Returns what the script's method returns: pairs of a picture and a mask, and how pictures are resized."""
        planned = self._planned[len(self._prepared)]
        if not planned.follows_frames:
            pairs, resize_mode = whole(self._p, unit, *args)
            self._pictures = len(pairs)
            return pairs, resize_mode
        self._pictures = len(planned.keyframes or range(self._frames))

        def of_picture(position: int) -> Any:
            self._preparation.tell(planned, position, self._pictures)
            with self._picture(unit, planned, position) as one:
                return whole(self._p, one, *args)

        (first,), resize_mode = of_picture(0)
        return _OneByOne(first, lambda position: of_picture(position)[0][0], self._pictures), resize_mode

    @contextmanager
    def _picture(self, unit: Any, planned: Unit, position: int) -> Iterator[Any]:
        """Yields a copy of a unit with one picture. Those of img2img stay there, for the WebUI's own way of resizing them."""
        one = copy.copy(unit)
        if hasattr(one, "input_mode"):
            one.input_mode = type(one).input_mode  # the default: one picture
        one.use_preview_as_input = False
        if planned.origin == "img2img":
            assert self._images is not None
            one.image = None
            image = self._images[position if len(self._images) > 1 else 0]
            with patched(self._p, "init_images", [image]), self._mask(position):
                yield one
            return
        mask = None
        if planned.folder is not None:
            picture = planned.pictures[position]
            mask = planned.folder.masks[position] if planned.folder.masks else None
        else:
            assert self._source is not None
            picture = np.asarray(self._source.frames[position].convert("RGB"))
        _give(one, picture, mask)
        yield one

    def _mask(self, position: int) -> AbstractContextManager[None]:
        """While open, a unit takes a frame's own mask of img2img."""
        if len(self._masks) < 2:
            return nullcontext()
        return with_mask(self._p, self._masks[position], forge_units.names_of(self._script)["prepare_mask"])

    # --- units act ---

    def _begin_pass(self, whole: Method, *args: Any, **named: Any) -> None:
        with self._preparation.remembering_failure():
            whole(self._p, *args, **named)
            if self._splits_calls:
                of_model = self._p.sd_model.forge_objects
                of_model.unet = run_in_chunks(of_model.unet, CONDITIONS * self._windows.length)

    def _begin_pass_of_unit(self, whole: Method, unit: Any, params: Any, *args: Any, **named: Any) -> None:
        index = next(index for index, prepared in enumerate(self._prepared) if prepared.params is params)
        self._preparation.preparing = f"unit {self._planned[index].number}"
        of_model = self._p.sd_model.forge_objects
        before = of_model.unet.controlnet_linked_list
        whole(self._p, unit, params, *args, **named)
        if (network := of_model.unet.controlnet_linked_list) is not before:
            network.get_control = FrameRows(network, self._factors(self._planned[index]))

    def _factors(self, unit: Unit) -> Tensor | None:
        """Returns what multiplies the weight of a unit in each frame, 0 without a hint; None if nothing does."""
        weights = self._weight_of(unit.number)
        if weights is None and not unit.keyframes:
            return None
        acting = [float(not unit.keyframes or frame in unit.keyframes) for frame in range(self._frames)]
        return torch.tensor(acting) * torch.tensor(weights or 1.0)

    @contextmanager
    def applied_to(
        self, unet: Any, layout_of: LayoutOf, step_windows: Callable[[], StepWindows] | None = None
    ) -> Iterator[None]:
        """While open, calls of the UNet say which rows are of prompts.

        One ends the job if ControlNet could not prepare this pass of the sampler.
        """
        if self._script is None:
            yield
            return
        forward = unet.forward

        def forward_prepared(*args: Any, **named: Any) -> Any:
            self.require_prepared()
            return forward(*args, **saying_rows(named))

        with patched(unet, "forward", forward_prepared):
            yield

    def let_go(self) -> None:
        """Nothing: it is in the UNet only while the sampler runs."""

    def begin_call(self) -> Around:
        return nothing_around()

    def end(self, *, completed: bool) -> None:
        """Undoes what the job did to ControlNet. A generation that failed has not reached the hook in which ControlNet ends."""
        self._undo.close()
        if self._script is not None and not completed:
            self._script.postprocess(self._p, None)

    # --- what is told about them ---

    def facts(self) -> list[Any]:
        """Returns what decides how the units act: their settings, and digests of their hints."""
        return [[*prepared.settings, digest_of(_tensors(prepared.params))] for prepared in self._prepared]

    def maps(self) -> list[tuple[Unit, list[Image.Image]]]:
        """Returns the detected maps of each unit, if ControlNet's settings ask for them."""
        if shared.opts.data.get("control_net_no_detectmap", False):
            return []
        return [(unit, self._maps_of(unit, prepared)) for unit, prepared in zip(self._planned, self._prepared) if prepared.maps]

    def _maps_of(self, unit: Unit, prepared: _Prepared) -> list[Image.Image]:
        """Returns the maps of a unit, those of the last pass: one for each picture that it has."""
        made = prepared.params.control_cond_for_hr_fix
        if not isinstance(made, Tensor):
            return [_as_picture(np.asarray(prepared.maps[0]))]
        rows = unit.keyframes or range(min(prepared.pictures, self._frames))
        return [_as_picture((made[row].movedim(0, -1) * 255).cpu().numpy().round()) for row in rows]


class _OneByOne:
    """The pictures of a unit, each made when ControlNet comes to it. `first`: the first one."""

    def __init__(self, first: Any, of_position: Callable[[int], Any], count: int) -> None:
        self._first = first
        self._of_position = of_position
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        yield self._first
        yield from map(self._of_position, range(1, self._count))


def _give(unit: Any, picture: Any, mask: Any) -> None:
    """Gives a unit a picture, and a mask unless it is to keep its own.

    WebUIs with Gradio 3 have both in one dictionary; others draw on a layer of its own, `image_fg`, which has four channels.
    """
    height, width = picture.shape[:2]
    empty = np.zeros((height, width, 4), np.uint8)
    if hasattr(unit, "image_fg"):
        unit.image, unit.image_fg = picture, empty
        if mask is not None:
            unit.mask_image, unit.mask_image_fg = mask, None
        return
    unit.image = {"image": picture, "mask": empty[..., :3] if mask is None else mask}
    if mask is not None:
        unit.mask_image = None


def _tensors(params: Any) -> Iterator[Tensor]:
    """Yields what ControlNet has made of the pictures of a unit, in whichever form its kind needs."""
    for name in MADE:
        made = getattr(params, name)
        for value in made.values() if isinstance(made, dict) else (made,):
            if isinstance(value, Tensor):
                yield value


def _as_picture(detected: Any) -> Image.Image:
    """Returns a detected map, `(height, width, 3 or 4)`, as a picture without its mask, the fourth channel."""
    return Image.fromarray(np.ascontiguousarray(detected[:, :, :3].clip(0, 255).astype(np.uint8)))
