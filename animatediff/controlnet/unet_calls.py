"""UNet calls with ControlNet: before each one, every unit gets the hints of the frames that are in its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from motion_module.context_windows import StepWindows
from motion_module.families import SIDE_OF_LATENT
from motion_module.patching import patched
from motion_module.row_layout import RowLayout

from ..errors import AnimateDiffError
from . import sparse_ctrl_layers
from .embeddings import AdaptedCalls
from .hints import Hints, digest_of

LayoutOf = Callable[[int], RowLayout]
Give = Callable[[list[int], Tensor, Any], None]
"""What a unit does before a UNet call: it gets the frame of each row, the latents, and the conditions."""
CONTROLNETS = ("ControlNet", "ControlLoRA", "ControlNetUnion")
"""The kinds of control that are copies of the UNet's encoder."""
OF_NO_PASS = torch.zeros(1).expand(1, 1, 1_000_000, 1)
"""A hint of a height that no pass comes near: ControlNet takes the other one."""
IN_LATENTS = ("colorfix", "inpaint_only")
"""Parts of the names of preprocessors whose hints act as latents; so do those of the kind AttentionInjection."""


class UnitHints:
    """The hints of one unit that follows frames, or the embeddings of an IP-Adapter, `(frames, tokens, width)`.

    `scale`: how much higher the hints are than the latents that they are for.
    """

    def __init__(self, first_pass: Hints, hires: Hints, scale: int = SIDE_OF_LATENT) -> None:
        self.first_pass = first_pass
        self.hires = hires
        self.scale = scale
        self.embeddings: Tensor | None = None
        self.shows_maps = False
        """Whether ControlNet gave maps for these hints, which a unit can switch off."""

    def add(self, control: Tensor, hires_control: Tensor | None) -> None:
        """Adds the next frame."""
        self.first_pass.add(control)
        if hires_control is not None:
            self.hires.add(hires_control)

    def pictures(self) -> list[Image.Image]:
        """Returns the hints as pictures, without a mask that they may have: those of the last pass."""
        shown = self.first_pass if self.hires.are_missing else self.hires
        return [Image.fromarray(hint[:3].permute(1, 2, 0).numpy()) for hint in shown.as_bytes()]

    def let_go(self) -> None:
        """Lets go of what is on the device."""
        self.first_pass.let_go()
        self.hires.let_go()

    def digest(self) -> str:
        """Returns a digest of all hints."""
        embeddings = [] if self.embeddings is None else [self.embeddings]
        return digest_of([*self.first_pass.kept, *self.hires.kept, *embeddings])

    def of_pass(self, x: Tensor) -> Hints:
        """Returns the hints of the pass whose latents, `(rows, channels, height, width)`, are nearer in height to theirs."""
        if self.hires.are_missing:
            return self.first_pass
        height = x.shape[-2] * self.scale
        low, high = (abs(height - hints.height) for hints in (self.first_pass, self.hires))
        return self.first_pass if low < high else self.hires


class UNetCalls:
    """Gives the units of a job their hints, call by call.

    `network`: ControlNet's, which has replaced the UNet's `forward`. `hints`: of the units that follow frames, by their place
    among the enabled units. `layout_of`: the layout of a call's rows, from their number. `step_windows`: returns the windows
    of the running step, if attention between frames is limited to context windows. `weights`: what multiplies the weight of
    a unit in each frame, by its place.
    """

    def __init__(
        self,
        p: Any,
        network: Any,
        hints: Mapping[int, UnitHints],
        layout_of: LayoutOf,
        step_windows: Callable[[], StepWindows] | None = None,
        weights: Mapping[int, tuple[float, ...]] | None = None,
    ) -> None:
        self._p = p
        self._weights = weights or {}
        self._network = network
        self._hints = hints
        self._layout_of = layout_of
        self._step_windows = step_windows

    @contextmanager
    def applied_to(self, unet: Any) -> Iterator[None]:
        """While open, units have the hints of their rows in every call of `unet`."""
        if self._network.model is not unet:
            raise AnimateDiffError(
                "ControlNet's units act only in the checkpoint that the video began with, but another one took over. Set "
                "“Maximum number of checkpoints loaded at the same time” to 1, or use no refiner and no hires checkpoint."
            )
        forward_controlled = unet.forward

        def forward(x: Tensor, timesteps: Any = None, context: Any = None, *args: Any, **named: Any) -> Any:
            frames = _frames_of(self._layout_of(len(x)))
            for give in gives:
                give(frames, x, context)
            try:
                return forward_controlled(x, timesteps, context, *args, **named)
            except BaseException:
                self._free_models()
                raise

        with ExitStack() as stack:
            params = enumerate(self._network.control_params or ())
            gives = [self._weighted(index, param, self._giving(index, param, unet, stack), stack) for index, param in params]
            stack.enter_context(patched(unet, "forward", forward))
            for hints in self._hints.values():
                stack.callback(hints.let_go)
            yield

    def _free_models(self) -> None:
        """Moves control models to the CPU after an error, as ControlNet does with those that are torch's own modules."""
        for param in self._network.control_params or ():
            if isinstance(param.control_model, _OfFrames):
                param.control_model.to("cpu")

    def _weighted(self, index: int, param: Any, give: Give, stack: ExitStack) -> Give:
        """Returns what a unit does before each call, which has a weight for each frame if that is wanted."""
        weights = self._weights.get(index)
        if weights is None or param.control_model_type.name not in (*CONTROLNETS, "T2I_Adapter"):
            return give
        weighted = _Weighted(param.control_model, weights)
        stack.enter_context(patched(param, "control_model", weighted))

        def begin(frames: list[int], x: Tensor, context: Any) -> None:
            give(frames, x, context)
            weighted.begin(frames)

        return begin

    def _giving(self, index: int, param: Any, unet: Any, stack: ExitStack) -> Give:
        """Returns what a unit does before each call."""
        kind, hints = param.control_model_type.name, self._hints.get(index)
        for layer in sparse_ctrl_layers.layers_in(param.control_model):
            stack.enter_context(patched(layer, "layout_of", self._layout_of))
            stack.enter_context(patched(layer, "step_windows", self._step_windows))
        if kind == "IPAdapter":
            adapted = AdaptedCalls(param.control_model, hints.embeddings if hints else None)
            return lambda frames, _x, context: adapted.begin(frames, context)
        if hints is None:
            return _with_one_picture(param)
        encode = lambda hint: self._network.call_vae_using_process(self._p, hint)  # noqa: E731
        return _PictureUnit(param, hints, encode, unet, stack).give


class _PictureUnit:
    """A unit whose hints are pictures, one for each frame."""

    def __init__(self, param: Any, hints: UnitHints, encode: Callable[[Tensor], Tensor], unet: Any, stack: ExitStack) -> None:
        """`encode`: makes latents of hints, with the VAE. `stack`: is closed when `param` is to be as it was."""
        self._param = param
        self._hints = hints
        self._encode = encode
        self._kind = param.control_model_type.name
        self._acts_as_latents = self._kind == "AttentionInjection" or any(
            name in param.preprocessor["name"] for name in IN_LATENTS
        )
        self._controlled: _Controlled | None = None
        if self._kind in CONTROLNETS:
            self._controlled = _Controlled(param.control_model, hints.first_pass)
        elif self._kind == "T2I_Adapter":
            self._controlled = _adapter(param, hints, unet, stack)
        if self._controlled is not None:
            stack.enter_context(patched(param, "control_model", self._controlled))

    def give(self, frames: list[int], x: Tensor, _context: Any) -> None:
        """Gives ControlNet the hints of the rows of a UNet call, in the way in which it tells the two passes apart."""
        param, hints = self._param, self._hints
        chosen = hints.of_pass(x)
        (hints.hires if chosen is hints.first_pass else hints.first_pass).let_go()
        given = chosen.rows(frames, x.device)
        param.hint_cond = given if chosen is hints.first_pass else OF_NO_PASS
        if not hints.hires.are_missing:
            param.hr_hint_cond = given if chosen is hints.hires else OF_NO_PASS
        param.used_hint_cond = given
        if self._controlled is not None:
            self._controlled.begin(frames)
        if self._acts_as_latents:
            param.used_hint_cond_latent = chosen.latents(frames, self._encode).to(x.device)
        if self._kind == "Controlllite":
            for module in param.control_model.modules.values():
                module.set_cond_image(given * 2 - 1)


def _with_one_picture(param: Any) -> Give:
    """For a unit with one picture: ControlNet keeps what it made for the number of rows of the first call."""

    def give(_frames: list[int], x: Tensor, _context: Any) -> None:
        for name in ("used_hint_cond_latent", "used_hint_inpaint_hijack"):
            made = getattr(param, name)
            if isinstance(made, Tensor) and len(made) not in (1, len(x)):
                setattr(param, name, None)

    return give


def _adapter(param: Any, hints: UnitHints, unet: Any, stack: ExitStack) -> _Adapter:
    """Returns a T2I-adapter that follows frames. ControlNet's own code for one that acts on prompts only takes one picture."""
    prompts_only = bool(param.cfg_injection)
    stack.enter_context(patched(param, "cfg_injection", False))
    hires_only = param.hr_option.name == "HIGH_RES_ONLY" and not hints.hires.are_missing
    return _Adapter(param.control_model, hints.hires if hires_only else hints.first_pass, unet if prompts_only else None)


class _OfFrames:
    """A control model of ControlNet whose features differ from frame to frame by a factor."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._frames: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def begin(self, frames: list[int]) -> None:
        """Begins a UNet call with these frames."""
        self._frames = frames

    def __call__(self, **named: Any) -> list[Tensor]:
        """Returns what is added to the UNet's features, for each level."""
        made, factors = self._made(**named), self._factors()
        return made if factors is None else [features * factors.to(features) for features in made]

    def _made(self, **named: Any) -> list[Tensor]:
        made: list[Tensor] = self._model(**named)
        return made

    def _factors(self) -> Tensor | None:
        """Returns the factor of each row, `(rows, 1, 1, 1)`; None if there is nothing to multiply."""
        raise NotImplementedError


class _Weighted(_OfFrames):
    """One with a weight for each frame."""

    def __init__(self, model: Any, weights: tuple[float, ...]) -> None:
        super().__init__(model)
        self._weights = torch.tensor(weights)

    def _factors(self) -> Tensor:
        return self._weights[self._frames].view(-1, 1, 1, 1)


class _Controlled(_OfFrames):
    """One that acts only on frames that have a hint."""

    def __init__(self, model: Any, hints: Hints) -> None:
        super().__init__(model)
        self._hints = hints

    def _factors(self) -> Tensor | None:
        return self._hints.acting(self._frames)


class _Adapter(_Controlled):
    """A T2I-adapter. What it makes depends on the hints alone, so it is kept until other frames come.

    ControlNet makes it once for a whole generation: for hires fix, from the first pass. `of_prompts`: the UNet, whose mark
    tells which rows are prompts, if it acts on these only.
    """

    def __init__(self, model: Any, hints: Hints, of_prompts: Any) -> None:
        super().__init__(model, hints)
        self._of_prompts = of_prompts
        self._kept_frames: list[int] | None = None
        self._kept: list[Tensor] = []

    def _made(self, **named: Any) -> list[Tensor]:
        if self._kept_frames != self._frames:
            hint = self._hints.rows(self._frames, named["hint"].device)
            self._model.reset()
            self._kept = self._model(**{**named, "hint": _with_mask_drawn_in(hint)})
            self._kept_frames = self._frames
        if self._of_prompts is None:
            return self._kept
        return [features * self._of_prompts.cond_mark for features in self._kept]


def _with_mask_drawn_in(hint: Tensor) -> Tensor:
    """Returns hints of three channels, as ControlNet gives them to its models: what a mask in a fourth one covers is -1."""
    return torch.where(hint[:, 3:] > 0.5, -1.0, hint[:, :3]) if hint.shape[1] > 3 else hint


def _frames_of(layout: RowLayout) -> list[int]:
    """Returns the frame of each row of a UNet call."""
    numbers = layout.frame_numbers
    if numbers is None:
        numbers = torch.arange(layout.frames).expand(layout.rows // layout.frames, -1)
    return layout.to_rows(numbers).tolist()
