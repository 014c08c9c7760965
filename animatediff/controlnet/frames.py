"""ControlNet in one job: it prepares each unit frame by frame, and gets the hints of its rows in each UNet call.

sd-webui-controlnet prepares its units in one method of its script, and gets what controls the picture from one function of that
module. While the method runs for a job, the function is ours: it calls ControlNet's for each frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from modules import shared
from PIL import Image
from torch import Tensor

from motion_module.context_windows import StepWindows
from motion_module.errors import UserError
from motion_module.patching import patched, patched_items
from motion_module.prompt_travel import Interpolation

from ..errors import DETAILS, AnimateDiffError, RequestError
from ..interrupt import is_stopping
from ..request.plan import Plan
from . import map_cache, script, sparse_ctrl
from .embeddings import travelling
from .hints import Hints, digest_of
from .map_cache import KeptMaps
from .pictures import Unit
from .unet_calls import PIXELS, LayoutOf, UNetCalls, UnitHints

UNFIT = {
    "T2I_StyleAdapter": "a style adapter",
    "ReVision": "Revision",
    "InstantID": "InstantID",
    "StableSR": "StableSR",
}
"""Kinds of control that take one picture only."""
IP_ADAPTER = "IPAdapter"
SPARSE_CTRL = "SparseCtrl"
NEED_ALL_HINTS = ("inpaint_only", "recolor")
"""Parts of the names of preprocessors for which ControlNet itself needs all frames at once, for what it does after sampling."""
ACTING = (
    "weight", "start_guidance_percent", "stop_guidance_percent", "advanced_weighting", "soft_injection", "cfg_injection",
    "preprocessor", "hr_option", "union_control_types",
)  # fmt: skip
"""ControlNet's settings of a unit that decide how its hints act."""
NOT_AT_KEYFRAMES = ("AttentionInjection", "Controlllite")
"""Kinds of control that act on every row of a UNet call, so that no frame can be left free."""
ALWAYS_ACTING = ("inpaint", "recolor", "colorfix")
"""Parts of the names of preprocessors of which the same is true."""
PYTHONS_OWN = (LookupError, TypeError, AttributeError)
"""Errors whose texts tell nothing to a user."""


class FrameControl:
    """What one job gives to ControlNet. Without enabled units it does nothing."""

    def __init__(self, p: Any, plan: Plan) -> None:
        self._p = p
        self._params = plan.params
        self._frames = plan.frames
        self._attended = plan.windows.attended_frames
        self._images = plan.images
        self._masks = plan.masks
        self._source = plan.inputs.source
        self._units = [unit for unit in plan.inputs.controls for _ in range(unit.copies)]
        self._script = script.find(p) if self._units else None
        self._hints: dict[int, UnitHints] = {}
        self._sparse: list[int] = []
        """The SparseCtrl units, by their place among the enabled ones."""
        self._maps: dict[int, list[Image.Image]] = {}
        self._settings: list[list[Any]] = []
        self._facts: list[Any] | None = None
        self._preparing = "its units"
        self._failure: AnimateDiffError | None = None
        self._undo = ExitStack()

    # --- the life of a job, in its order ---

    def begin(self) -> None:
        """Waits for ControlNet to prepare its units, which it does in a later hook of the WebUI."""
        if self._script is None:
            return
        prepare = getattr(self._script, script.MAIN)

        def prepare_frames(p: Any) -> None:
            if p is not self._p:
                prepare(p)
                return
            with self._remembering_failure(), self._own_get_control():
                self._require_all_units_for_all_rows()
                prepare(p)
                self._require_planned_units()
                for index in self._sparse:
                    self._take_sparse_hints(index)
                self._settings = [_settings(param) for param in self._params_of_units()]  # before a job changes some of them

        self._undo.enter_context(patched(self._script, script.MAIN, prepare_frames))

    def require_prepared(self) -> None:
        """Raises what ended the preparation: the WebUI swallows what its hooks raise."""
        if self._failure is not None:
            raise self._failure

    def facts(self) -> list[Any]:
        """Returns what decides how the units act: their settings, and digests of their hints."""
        if self._facts is None:
            self._facts = [
                [self._units[index].model, *self._settings[index], self._digest(index, param)]
                for index, param in enumerate(self._params_of_units())
            ]
        return self._facts

    def _digest(self, index: int, param: Any) -> str:
        given = [param.effective_region_mask]
        if (hints := self._hints.get(index)) is None:
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
        with UNetCalls(self._p, network, self._hints, layout_of, step_windows).applied_to(unet):
            yield

    def end(self, *, completed: bool) -> None:
        """Undoes what the job did to ControlNet. A generation that failed has not reached the hook in which ControlNet ends."""
        self._undo.close()
        if self._script is not None and not completed and self._script.latest_network is not None:
            self._script.postprocess(self._p, SimpleNamespace(images=[], extra_generation_params={}))

    def maps(self) -> list[tuple[Unit, list[Image.Image]]]:
        """Returns the detected maps of each unit, if ControlNet's settings ask for them."""
        if shared.opts.data.get("control_net_no_detectmap", False):
            return []
        of_hints = {index: hints.pictures() for index, hints in self._hints.items() if hints.shows_maps}
        return [(self._units[index], maps) for index, maps in sorted({**of_hints, **self._maps}.items()) if maps]

    # --- how units are prepared ---

    @contextmanager
    def _remembering_failure(self) -> Iterator[None]:
        self._failure = self._facts = None
        self._preparing = "its units"
        self._hints.clear()
        self._sparse.clear()
        self._maps.clear()
        try:
            yield
        except UserError as error:
            self._failure = AnimateDiffError(str(error))
            raise
        except Exception as error:
            told = DETAILS if isinstance(error, PYTHONS_OWN) else str(error).rstrip(".") or DETAILS
            self._failure = AnimateDiffError(
                f"ControlNet could not prepare {self._preparing}: {told}. Check pictures, preprocessors and models."
            )
            raise  # the WebUI logs it
        finally:
            map_cache.prune()
            shared.state.textinfo = None

    @contextmanager
    def _own_get_control(self) -> Iterator[None]:
        names = script.names_of(self._script)
        get_control, undo = names["get_control"], ExitStack()

        def of_frames(p: Any, unit: Any, index: int, kind: Any, preprocessor: Any) -> Any:
            planned = self._units[index] if index < len(self._units) else None
            self._preparing = f"unit {planned.number}" if planned else "its units"
            if kind.name == SPARSE_CTRL:
                self._require_few_frames(planned.number if planned else index)
                self._sparse.append(index)
            if planned is None or not planned.follows_frames:
                controls, hires_controls, maps = get_control(p, unit, index, kind, preprocessor)
                self._keep_maps(index, maps)
                return controls, hires_controls, []
            self._require_fit(planned, kind)

            def of_picture(position: int) -> Any:
                with self._picture(unit, planned, position) as one:
                    return get_control(p, one, index, kind, KeptMaps(preprocessor))

            frames = planned.keyframes or tuple(range(self._frames))
            if kind.name == SPARSE_CTRL:
                undo.enter_context(patched(unit, "batch_keyframe_idx", list(frames)))  # ControlNet's own name for keyframes
                return self._all_pictures(planned, index, frames, of_picture)
            return self._prepare(planned, index, frames, kind, of_picture)

        with undo, patched_items(names, {"get_control": of_frames}):
            yield

    def _prepare(self, planned: Unit, index: int, frames: Sequence[int], kind: Any, of_picture: Callable[[int], Any]) -> Any:
        """Prepares one unit frame by frame. Returns what ControlNet takes: the first frame, or all where it needs all."""
        hints = self._hints[index] = UnitHints(Hints(self._frames, frames), Hints(self._frames, frames))
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
            self._tell(planned, position, count)
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
        assert self._script is not None
        param = self._script.latest_network.control_params[index]
        every = range(self._frames)
        scale = 1 if sparse_ctrl.takes_latents(param.control_model) else PIXELS
        hints = self._hints[index] = UnitHints(Hints(self._frames, every), Hints(self._frames, every), scale)
        for frame in every:
            of_frame = slice(frame, frame + 1)
            hints.add(param.hint_cond[of_frame], None if param.hr_hint_cond is None else param.hr_hint_cond[of_frame])

    def _adapter_of(self, planned: Unit) -> Any:
        """Returns the IP-Adapter of a unit, as ControlNet loads it."""
        load = script.names_of(self._script)["Script"].load_control_model
        adapter = load(self._p, self._p.sd_model.model.diffusion_model, planned.model).model.ipadapter
        adapter.image_proj_model.to(torch.float32)
        return adapter

    def _tell(self, planned: Unit, position: int, count: int) -> None:
        self._preparing = f"unit {planned.number}, frame {position + 1}"
        shared.state.textinfo = f"ControlNet: frame {position + 1} of {count}"
        if is_stopping():
            raise RequestError(
                f"ControlNet unit {planned.number} was interrupted at frame {position + 1} of {count}, so there is no video. "
                "Generate again."
            )

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

    @contextmanager
    def _mask(self, unit: Any, position: int) -> Iterator[None]:
        """While open, an inpainting unit takes a frame's own mask of img2img, and is cropped to what all masks cover."""
        if not unit.is_inpaint or len(self._masks) < 2:
            yield
            return
        from modules import masking  # here, since the stand-in WebUI has none

        find = masking.get_crop_region
        covered = np.asarray(script.names_of(self._script)["prepare_mask"](self._p.image_mask, self._p))
        with (
            patched(masking, "get_crop_region", lambda _, *padding: find(covered, *padding)),
            patched(self._p, "image_mask", self._masks[position]),
        ):
            yield

    def _require_all_units_for_all_rows(self) -> None:
        """Raises RequestError where each row of a UNet call would have another unit: in each window, frames change rows."""
        assert self._script is not None
        if str(self._script.ui_batch_option_state[0]).startswith("Each"):
            raise RequestError(
                "ControlNet's Batch Option gives each image of a batch another unit, which frames of a video cannot have. Set "
                "it to “All ControlNet units for all images in a batch”."
            )

    def _require_planned_units(self) -> None:
        """Raises RequestError where ControlNet took other units than those that were planned for."""
        assert self._script is not None
        if len(self._script.enabled_units) != len(self._units):
            raise RequestError(
                f"Another script has changed ControlNet's units: {len(self._units)} were enabled when the video was planned, "
                f"{len(self._script.enabled_units)} are now. Switch that script off."
            )

    def _require_fit(self, planned: Unit, kind: Any) -> None:
        """Raises RequestError for a kind of control that cannot follow frames."""
        if what := UNFIT.get(kind.name):
            raise RequestError(
                f"ControlNet unit {planned.number} is {what}, which takes one picture for all frames. Give it a picture of its "
                "own."
            )
        everywhere = kind.name in NOT_AT_KEYFRAMES or any(name in planned.module for name in ALWAYS_ACTING)
        if planned.keyframes and everywhere:
            raise RequestError(
                f"ControlNet unit {planned.number} ({planned.module}) cannot act on some frames only. Remove the line "
                "keyframe: and give it a picture for each frame."
            )

    def _require_few_frames(self, number: int) -> None:
        """Raises RequestError where more frames attend to each other than SparseCtrl has positions for."""
        if self._attended > sparse_ctrl.MOST_FRAMES:
            raise RequestError(
                f"ControlNet unit {number} is SparseCtrl, which takes {sparse_ctrl.MOST_FRAMES} frames at once, but the "
                f"context length (batch_size) is {self._attended}. Set it to {sparse_ctrl.MOST_FRAMES} or less."
            )

    def _keep_maps(self, index: int, maps: list[Any]) -> None:
        """Keeps the map of one picture. With hires fix there is one for each pass, the larger one first."""
        self._maps.setdefault(index, []).extend(_as_picture(detected) for detected, _ in maps[:1] if detected is not None)


def _settings(param: Any) -> list[Any]:
    """Returns the settings of one of ControlNet's units while it acts, as `ControlParams` has them."""
    return [param.control_model_type.name, *(str(getattr(param, name, None)) for name in ACTING)]


def _as_picture(detected: Any) -> Image.Image:
    """Returns a detected map, `(height, width, 3 or 4)`, as a picture without its mask, the fourth channel."""
    return Image.fromarray(np.ascontiguousarray(detected[:, :, :3].clip(0, 255).astype(np.uint8)))
