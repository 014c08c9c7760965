"""ControlNet prepares its units frame by frame.

sd-webui-controlnet prepares its units in one method of its script, and gets what controls the picture from one function of that
module. While the method runs for a job, the function is ours: it calls ControlNet's for each frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from motion_module.families import SIDE_OF_LATENT
from motion_module.patching import patched, patched_items
from motion_module.prompt_travel import Interpolation

from .. import host
from ..request.plan import Plan
from . import map_cache, script, sparse_ctrl_layers
from .embeddings import travelling
from .hints import Hints
from .map_cache import KeptMaps
from .pictures import Unit
from .preparation import OF_NO_UNIT, Preparation, with_mask
from .refusals import require_all_units_for_all_rows, require_few_frames, require_fit, require_planned_units, require_same_kind
from .unet_calls import UnitHints

IP_ADAPTER = "IPAdapter"
SPARSE_CTRL = "SparseCtrl"
NEED_ALL_HINTS = ("inpaint_only", "recolor")
"""Parts of the names of preprocessors for which ControlNet itself needs all frames at once, for what it does after sampling."""


class UnitsByFrame:
    """The enabled units of one job, each prepared frame by frame.

    `planned`: one for each unit that ControlNet will make. `control_script`: ControlNet's; None without units.
    """

    def __init__(self, p: Any, plan: Plan, planned: list[Unit], control_script: Any) -> None:
        self.planned = planned
        self.hints: dict[int, UnitHints] = {}
        """The hints of units that follow frames, by their place among the enabled ones."""
        self.maps: dict[int, list[Image.Image]] = {}
        """The detected maps of the others."""
        self.preparation = Preparation()
        self._p = p
        self._params = plan.params
        self._frames = plan.frames
        self._attended = plan.windows.attended_frames
        self._images = plan.images
        self._masks = plan.masks
        self._source = plan.inputs.source
        self._script = control_script
        self._sparse: list[int] = []
        """The SparseCtrl units, by their place among the enabled ones."""

    def prepare(self, prepare: Callable[[Any], None]) -> None:
        """Prepares all units. `prepare`: ControlNet's own method."""
        self.preparation.begin()
        self.hints.clear()
        self._sparse.clear()
        self.maps.clear()
        with self.preparation.remembering_failure(), self._own_get_control(), _pruned_maps():
            require_all_units_for_all_rows(self._script)
            self._require_models_by_name()
            prepare(self._p)
            require_planned_units(self._script, self.planned)
            self._require_models_of_same_kind()
            for index in self._sparse:
                self._take_sparse_hints(index)

    def _require_models_by_name(self) -> None:
        """Has ControlNet check by its name what kind of checkpoint each model is for, before it prepares the first unit."""
        check = script.names_of(self._script)["Script"].check_sd_version_compatible
        for number, unit in script.enabled_units(self._p):
            self.preparation.preparing = f"unit {number}"
            check(unit)
        self.preparation.preparing = OF_NO_UNIT

    def _require_models_of_same_kind(self) -> None:
        """Raises RequestError for a model whose name has not told that it is for another kind of checkpoint."""
        is_sdxl = bool(getattr(self._p.sd_model, "is_sdxl", False))
        for planned, param in zip(self.planned, self._script.latest_network.control_params):
            require_same_kind(planned, param.control_model, is_sdxl=is_sdxl)

    @contextmanager
    def _own_get_control(self) -> Iterator[None]:
        names = script.names_of(self._script)
        get_control, undo = names["get_control"], ExitStack()
        version = script.version_of(self._script)

        def of_frames(p: Any, unit: Any, index: int, kind: Any, preprocessor: Any) -> Any:
            planned = self.planned[index] if index < len(self.planned) else None
            self.preparation.preparing = f"unit {planned.number}" if planned else OF_NO_UNIT
            if kind.name == SPARSE_CTRL:
                require_few_frames(planned.number if planned else index, self._attended)
                self._sparse.append(index)
            if planned is None or not planned.follows_frames:
                controls, hires_controls, maps = get_control(p, unit, index, kind, preprocessor)
                self._keep_maps(index, maps)
                return controls, hires_controls, []
            require_fit(planned, kind)

            def of_picture(position: int) -> Any:
                with self._picture(unit, planned, position) as one:
                    return get_control(p, one, index, kind, KeptMaps(preprocessor, version))

            frames = planned.keyframes or tuple(range(self._frames))
            if kind.name == SPARSE_CTRL:
                undo.enter_context(patched(unit, "batch_keyframe_idx", list(frames)))  # ControlNet's own name for keyframes
                return self._all_pictures(planned, index, frames, of_picture)
            return self._prepare(planned, index, frames, kind, of_picture)

        with undo, patched_items(names, {"get_control": of_frames}):
            yield

    def _prepare(self, planned: Unit, index: int, frames: Sequence[int], kind: Any, of_picture: Callable[[int], Any]) -> Any:
        """Prepares one unit frame by frame. Returns what ControlNet takes: the first frame, or all where it needs all."""
        hints = self.hints[index] = UnitHints(Hints(self._frames, frames), Hints(self._frames, frames))
        adapter = self._adapter_of(planned) if kind.name == IP_ADAPTER else None
        embeddings: list[Tensor] = []
        first: Any = None
        for control, hires_control, maps in self._prepared(planned, len(frames), of_picture):
            if adapter is not None:
                embeddings.append(adapter.get_image_emb(control).cond_emb)  # what CLIP sees is too large to keep
                self._keep_maps(index, maps)
            else:
                hints.add(control, hires_control)
                hints.shows_maps = bool(maps)
            first = first or ((control,), (hires_control,))
        if embeddings:
            how = cast(Interpolation, self._params.prompt_interpolation)
            closed = self._params.prompts_loop
            hints.embeddings = travelling(embeddings, frames, self._frames, how, closed=closed)
        if any(name in planned.module for name in NEED_ALL_HINTS):
            return (hints.first_pass.whole(),), (None if hints.hires.are_missing else hints.hires.whole(),), []
        return *first, []

    def _prepared(
        self, planned: Unit, count: int, of_picture: Callable[[int], Any]
    ) -> Iterator[tuple[Tensor, Tensor | None, list[Any]]]:
        """Yields what ControlNet makes of each picture of a unit, for both passes, and its maps."""
        for position in range(count):
            self.preparation.tell(planned, position, count)
            (control,), (hires_control,), maps = of_picture(position)
            yield control, hires_control, maps

    def _all_pictures(self, planned: Unit, index: int, frames: Sequence[int], of_picture: Callable[[int], Any]) -> Any:
        """Returns the pictures of a SparseCtrl unit, of which ControlNet itself makes the hints of all frames."""
        controls, hires_controls = [], []
        for control, hires_control, maps in self._prepared(planned, len(frames), of_picture):
            controls.append(control.cpu())
            hires_controls.append(None if hires_control is None else hires_control.cpu())
            self._keep_maps(index, maps)
        return controls, hires_controls, []

    def _take_sparse_hints(self, index: int) -> None:
        """Takes the hints that ControlNet has made of a SparseCtrl unit, a row for each frame, and maybe all of them twice."""
        param = self._script.latest_network.control_params[index]
        every = range(self._frames)
        scale = 1 if sparse_ctrl_layers.takes_latents(param.control_model) else SIDE_OF_LATENT
        hints = self.hints[index] = UnitHints(Hints(self._frames, every), Hints(self._frames, every), scale)
        for frame in every:
            of_frame = slice(frame, frame + 1)
            hints.add(param.hint_cond[of_frame], None if param.hr_hint_cond is None else param.hr_hint_cond[of_frame])

    def _adapter_of(self, planned: Unit) -> Any:
        """Returns the IP-Adapter of a unit, as ControlNet loads it."""
        load = script.names_of(self._script)["Script"].load_control_model
        adapter = load(self._p, host.of(self._p.sd_model).unet(self._p.sd_model), planned.model).model.ipadapter
        adapter.image_proj_model.to(torch.float32)
        return adapter

    @contextmanager
    def _picture(self, unit: Any, planned: Unit, position: int) -> Iterator[Any]:
        """Yields a copy of a unit with one picture. Those of img2img stay there, for the WebUI's own way of resizing them."""
        one = unit.copy()
        one.input_mode = type(unit.input_mode)("simple")
        one.mask = None  # it is given with the picture
        if planned.origin == "img2img":
            assert self._images is not None
            one.image = None
            image = self._images[position if len(self._images) > 1 else 0]
            with patched(self._p, "init_images", [image]), self._mask(unit, position):
                yield one
            return
        if planned.folder is not None:
            masks = planned.folder.masks
            one.image = {"image": planned.pictures[position], "mask": masks[position] if masks else unit.mask}
        else:
            assert self._source is not None
            one.image = {"image": np.asarray(self._source.frames[position].convert("RGB")), "mask": unit.mask}
        yield one

    def _mask(self, unit: Any, position: int) -> AbstractContextManager[None]:
        """While open, an inpainting unit takes a frame's own mask of img2img."""
        if not unit.is_inpaint or len(self._masks) < 2:
            return nullcontext()
        return with_mask(self._p, self._masks[position], script.names_of(self._script)["prepare_mask"])

    def _keep_maps(self, index: int, maps: list[Any]) -> None:
        """Keeps the map of one picture. With hires fix there is one for each pass, the larger one first."""
        self.maps.setdefault(index, []).extend(as_picture(detected) for detected, _ in maps[:1] if detected is not None)


@contextmanager
def _pruned_maps() -> Iterator[None]:
    """Afterwards, the maps that were used longest ago are deleted."""
    try:
        yield
    finally:
        map_cache.prune()


def as_picture(detected: Any) -> Image.Image:
    """Returns a detected map, `(height, width, 3 or 4)`, as a picture without its mask, the fourth channel."""
    return Image.fromarray(np.ascontiguousarray(detected[:, :, :3].clip(0, 255).astype(np.uint8)))
