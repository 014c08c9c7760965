"""The loaded checkpoint while it animates: motion layers are attached, and its noise schedule is the motion module's.

All of it is undone on the way out, and also while the WebUI swaps checkpoints in the middle of a job (refiner, hires
checkpoint) or another extension generates something of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, cast

import torch
from modules import devices, sd_unet, shared
from torch import Tensor

from motion_module.attach import LayoutOf, attached, blocks_by_name, require_fit
from motion_module.context_windows import StepWindows
from motion_module.families import SIDE_OF_LATENT
from motion_module.frame_loras import added_by_frame, changes_image_model, require_ordinary_fit
from motion_module.image_encoder import ImageFeatures
from motion_module.layer_offload import OffloadOnDemand, can_be_repeated, in_chunks
from motion_module.lora import Lora
from motion_module.motion_layers import Motion, SecondModule
from motion_module.motion_strength import PerFrame
from motion_module.patching import patched
from motion_module.pia import ConditionImage, similarity
from motion_module.row_layout import RowLayout, RowLayoutError
from motion_module.self_attention import FirstFrameAttention, self_attention_over
from motion_module.unet_cache import UNetCache
from motion_module.vram import WindowBudget, is_lack_of_memory
from motion_module.weight_patches import (
    PositionalEncodingMode,
    added_to_unet,
    merged,
    require_image_fit,
    require_motion_fit,
    resized_positional_encoding,
)
from motion_module.windowed_unet import Around, Part, WindowedUNet

from .. import host
from ..controlnet.control import Control
from ..errors import AnimateDiffError
from ..interrupt import stop_if_interrupted
from ..request import module_files
from ..request.plan import Plan
from . import extension_rows
from .acting import Acting, steps_of
from .camera import camera_of
from .checkpoints import kind_of_file
from .loras import Loras, facts_of
from .motion_masks import MotionMasks
from .samplers import original_steps
from .size_conditioning import fixed_sizes
from .sparse_control import SparseControls
from .speed import Speed
from .validate import SIDE_MULTIPLES, hypertile_is_on

FEWER_IN_RAM = 4
"""How many times fewer rows than a window has a layer has at once, where the GPU has had too little memory for a window."""
CONDITIONS = 2
"""The usual number of conditions of a frame: its prompt and its negative prompt."""
ON_MODEL = "_animatediff_model"
"""The attribute of a checkpoint that holds the `AnimatedModel` that animates it now."""


def custom_unet_is_chosen() -> bool:
    """Whether the WebUI will run another UNet than the checkpoint's own."""
    return sd_unet.current_unet is not None or sd_unet.get_unet_option() is not None


class AnimatedModel:
    """What one job changes in the checkpoint, for as long as it samples."""

    def __init__(self, p: Any, plan: Plan, control: Control, sparse: SparseControls) -> None:
        self._p = p
        self._plan = plan
        self._control = control
        self._sparse = sparse
        self._family = plan.family
        self._windows = plan.windows
        self._cache: UNetCache | None = None
        self._loras: Loras = ()
        self._expected: list[Lora] = []
        self._open: Callable[[], AbstractContextManager[None]] | None = None
        """What is open now: `_animating`, `_lent`, or nothing."""
        self._undo = ExitStack()
        self.acting = Acting(plan.frames)
        self._speed = Speed(p, plan, self._step)
        self._on_device: tuple[StepWindows, StepWindows] | None = None
        """The windows of a step, and the same with their tensors on the device that computes."""
        self._windowed: WindowedUNet | None = None
        """Splits UNet calls into calls for windows, while it is applied."""
        rows_in_ram = max(CONDITIONS * plan.windows.attended_frames // FEWER_IN_RAM, 1)
        self._on_demand = OffloadOnDemand(rows_in_ram, devices.device, self._may_wait_in_ram)
        self.failure: Exception | None = None
        """What a hook raised whose exceptions the WebUI swallows: it ends the job in its next UNet call."""

    def begin_run(self) -> None:
        """Begins a run of the sampler: a pass, or a round of FreeInit."""
        self.acting.begin_run(self._p.sampler)
        self._speed.begin_run()

    def expect_loras(self, *passes: Loras) -> None:
        """Sets the LoRAs of each pass; those of the first are used next. All are checked before anything is sampled."""
        self._loras, self._expected = passes[0], [lora for loras in passes for lora, _ in loras]
        if any(map(changes_image_model, passes)):
            self._require_whole_rows()

    def _require_whole_rows(self) -> None:
        """Raises AnimateDiffError where layers of the image model do not get all frames of a call, one in each row."""
        hindrance = ""
        if hypertile_is_on():
            hindrance = "Hypertile cuts frames into tiles. Switch off “Enable Hypertile U-Net” in the settings"
        elif self._plan.params.offload and self._windows.needed and self._plan.windows_in_attention:
            hindrance = "Offload frames to RAM (offload) gives the image model a part of the frames. Switch it off"
        if hindrance:
            raise AnimateDiffError(
                f"A LoRA for the image model cannot have a strength for each frame, since {hindrance}, or give it one strength."
            )

    def loras_in_use(self) -> list[tuple[str, int | None, PerFrame]]:
        """Our LoRAs of this pass, by file, rank and strength."""
        return facts_of(self._loras)

    def use_loras(self, loras: Loras) -> None:
        """Changes to the LoRAs of the next pass."""
        if set(facts_of(loras)) != set(facts_of(self._loras)):
            with self.suspended():
                self._loras = loras

    @contextmanager
    def during_init(self) -> Iterator[None]:
        """For `p.init`: refuses checkpoints that cannot be animated, and sets the noise schedule, since img2img builds its
        sampler in `init`, with sigmas that stay.
        """
        self._require_usable_model(custom_unet_is_chosen())
        if (self._p.refiner_switch_at or 0) < 1:  # else the WebUI never changes to it
            self._require_usable_later("refiner", self._p.refiner_checkpoint_info)
        with self._schedule():
            yield
        self._require_usable_later("hires checkpoint", getattr(self._p, "hr_checkpoint_info", None))

    @contextmanager
    def _schedule(self) -> Iterator[None]:
        """While open, samplers are built for the noise schedule and the timesteps of the motion module."""
        model = shared.sd_model
        holder = host.of(model)
        with (
            holder.noise_schedule(model, self._family.schedule, self._p),
            original_steps(self._family.original_steps, holder.alphas_cumprod),
        ):
            yield

    def lend_schedule(self) -> None:
        """From the end of parsing until the prompts are encoded, for extensions that build a sampler of their own then."""
        self._enter(self._lent)

    def end_lending(self) -> None:
        """Does nothing while the checkpoint animates: a refiner has prompts encoded in the middle of sampling."""
        if self._open == self._lent:
            self.take_back()

    def take_back(self) -> None:
        """Leaves the checkpoint as it is without AnimateDiff. Repeated calls do nothing."""
        self._undo.close()
        self._open = None

    @contextmanager
    def _lent(self) -> Iterator[None]:
        with self._schedule(), patched(shared.sd_model, ON_MODEL, self):
            yield

    @contextmanager
    def open(self, cache: UNetCache | None) -> Iterator[None]:
        """For `p.sample`: the checkpoint animates, except while another one is being loaded.

        `cache`: keeps what the UNet returns, if that is wanted.
        """
        self._cache = cache
        with host.of(shared.sd_model).checkpoint_swaps(self.suspended):
            self._enter(self._animating)
            try:
                yield
            except RuntimeError as error:
                if not is_lack_of_memory(error):
                    raise
                raise AnimateDiffError(self._too_little_memory(), status_code=500) from error
            finally:
                self.take_back()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """While open, the checkpoint is as it is without AnimateDiff. Does nothing unless the job has changed it."""
        was_open = self._open
        self.take_back()
        try:
            yield
        finally:  # also after an exception: the WebUI swallows those of generations that were started in a hook
            if was_open is not None:
                self._enter(was_open)

    def _enter(self, change: Callable[[], AbstractContextManager[None]]) -> None:
        self._undo.enter_context(change())
        self._open = change

    @contextmanager
    def _animating(self) -> Iterator[None]:
        self._require_usable_model(sd_unet.current_unet is not None)
        shared.state.textinfo = "AnimateDiff: loading the motion module"
        model, motion = shared.sd_model, self._motion()
        unet = host.of(model).unet(model)
        for lora in self._expected:
            require_image_fit(blocks_by_name(unet), lora)
            require_ordinary_fit(unet, lora)
            for module in motion.modules:
                require_motion_fit(module, lora)
        with ExitStack() as stack:
            stack.enter_context(self._prepared(model, motion))
            stack.enter_context(self._schedule())
            stack.enter_context(self._conditioned(model, motion))
            layout_of = stack.enter_context(self._split_calls(model))
            stack.enter_context(self._attached(unet, motion, layout_of))
            stack.enter_context(self._speed.applied_to_blocks(unet))
            stack.enter_context(self._reserved(model, motion))
            stack.enter_context(patched(model, ON_MODEL, self))
            yield

    @contextmanager
    def _prepared(self, model: Any, motion: Motion) -> Iterator[None]:
        """While open, the motion modules have their LoRAs and their positional encoding; afterwards they are on the CPU."""
        how = cast(PositionalEncodingMode, self._plan.params.positional_encoding)
        frames = self._windows.attended_frames
        with ExitStack() as stack:
            if motion.camera is not None:
                stack.callback(motion.camera.leave_device)  # after an error, its traceback keeps the camera
            for module, (_, family) in zip(motion.modules, self._plan.module_files):
                # Before a LoRA is merged, so that rounding does not depend on earlier jobs.
                module.to(dtype=host.of(model).dtype(model))
                if not shared.opts.data.get("animatediff_keep_on_gpu", False):
                    stack.callback(module.to, "cpu")  # layers move to the checkpoint's device when they are used
                stack.enter_context(merged(module, self._loras))
                stack.enter_context(resized_positional_encoding(module, how, frames, family.frames))
            yield

    @contextmanager
    def _conditioned(self, model: Any, motion: Motion) -> Iterator[None]:
        """While open, the image model has the LoRAs, sizes and start that the motion module's family needs."""
        with ExitStack() as stack:
            stack.enter_context(added_to_unet(blocks_by_name(host.of(model).unet(model)), self._loras))
            if self._family.size_conditioning is not None:
                stack.enter_context(fixed_sizes(model, *self._family.size_conditioning, lambda: motion.active))
            if self._family.takes_image:
                stack.enter_context(starting_from_noise(self._p))
            yield

    @contextmanager
    def _split_calls(self, model: Any) -> Iterator[LayoutOf]:
        """While open, UNet calls are split into windows or chunks as planned, and cached. Yields the layout of their rows."""
        holder = host.of(model)
        unet, calls = holder.unet(model), holder.unet_calls(model)
        layout_of: LayoutOf = self._layout_of
        windowed: WindowedUNet | None = None
        with ExitStack() as stack:
            if self._windows.needed and not self._plan.windows_in_attention:
                windowed = WindowedUNet(
                    self._windows,
                    self._speed.window_step,
                    layout_of,
                    WindowBudget(devices.device),
                    before_call=stop_if_interrupted,
                    arguments_of=holder.arguments_of_rows(),
                    begin_call=self._begin_call,
                    repeatable=lambda: can_be_repeated(unet),
                )
                layout_of = windowed.layout_of
                stack.enter_context(patched(self, "_windowed", windowed))
            # Inside of the windows: where both replace the UNet's function, the one that acts on each window is the inner one.
            stack.enter_context(self._sparse.applied_to(unet, layout_of, self.progress, self._windows_of_attention()))
            stack.enter_context(self._on_demand.applied_to(calls, unet))
            if windowed is not None:
                stack.enter_context(windowed.applied_to(calls))
            if self._in_chunks:
                stack.enter_context(in_chunks(unet, self._rows_at_once, self._working_device()))
            stack.enter_context(self._control.applied_to(unet, layout_of, self._windows_of_attention()))
            # Around all windows of a call.
            cached = self._cache.applied_to(calls, self.acting.acted_before) if self._cache is not None else nullcontext()
            stack.enter_context(self._speed.applied_to_calls(model, cached, self._layout_of, layout_of))
            yield layout_of

    def _begin_call(self) -> Around:
        """Begins a UNet call whose windows go through the UNet one after another. Returns what goes around each."""
        of_extensions, of_control = extension_rows.begin_call(self._p), self._control.begin_call()

        @contextmanager
        def around(part: Part) -> Iterator[None]:
            with of_extensions(part), of_control(part):
                yield

        return around

    @property
    def _rows_at_once(self) -> int:
        """The rows that the image UNet's layers have in memory at once, where it can be chosen."""
        return CONDITIONS * self._windows.length

    def _reserved(self, model: Any, motion: Motion) -> AbstractContextManager[None]:
        """While open, the WebUI reserves memory for what is in memory at once."""
        in_parts = self._windows.needed and not self._plan.windows_in_attention
        rows = self._rows_at_once if in_parts or self._in_chunks else CONDITIONS * self._plan.frames
        of_modules = sum(weight.nbytes for module in motion.modules for weight in module.state_dict().values())
        return host.of(model).memory(model, rows, of_modules + self._sparse.nbytes(host.of(model).dtype(model)))

    @contextmanager
    def _attached(self, unet: Any, motion: Motion, layout_of: LayoutOf) -> Iterator[None]:
        """While open, motion layers and LoRAs by frame act in the UNet, and self-attention to the first frame if asked for."""
        to_first = self._plan.params.first_frame_attention
        with (
            added_by_frame(unet, motion.modules, self._loras, layout_of),
            attached(unet, motion, self._family, layout_of, self._condition_image()),
            self_attention_over(unet, FirstFrameAttention(layout_of), to_first),
        ):
            yield

    def _motion(self) -> Motion:
        second = self._plan.second
        module, *others = module_files.read(self._plan.module_files)
        encoder = module.image_encoder
        return Motion(
            module,
            self._plan.strength,
            self.progress,
            second=SecondModule(others[0], second.how, second.weight) if second else None,
            step_windows=self._windows_of_attention(),
            device=self._working_device,
            acts=self.acting.acted,
            camera=camera_of(self._plan),
            mask=MotionMasks(self._p, self._plan.motion_masks).of_pass if self._plan.motion_masks else None,
            image=ImageFeatures(encoder, self._image, self._plan.params.image_drift) if encoder else None,
            rests=self._speed.rests,
        )

    @property
    def _in_chunks(self) -> bool:
        """Whether layers of the image model work on a long clip in chunks."""
        return self._windows.needed and self._plan.windows_in_attention and self._rows_are_apart

    @property
    def _rows_are_apart(self) -> bool:
        """Whether layers of the image model may have some frames without the others."""
        apart = self._family.unet_norms != "over frames" and not self._plan.params.first_frame_attention
        return apart and not changes_image_model(self._loras)

    def _may_wait_in_ram(self, latents: Tensor) -> bool:
        """Whether frames can wait in RAM between layers, after a call that found too little memory for these latents."""
        if self._windowed is not None and self._windowed.windows_in_call > 1:
            return False  # it is made again with fewer windows first
        multiple = SIDE_MULTIPLES[self._family.base] // SIDE_OF_LATENT
        even = all(side % multiple == 0 for side in latents.shape[2:])
        return even and self._rows_are_apart and not (self._plan.inputs.controls or self._plan.sparse)

    def _working_device(self) -> torch.device | None:
        """Where motion layers run, if frames wait in RAM; None if they run where the frames are."""
        waiting = self._on_demand.begun or (self._in_chunks and self._plan.params.offload)
        return devices.device if waiting else None

    def _too_little_memory(self) -> str:
        tried = ", even with frames that wait in RAM" if self._on_demand.begun else ""
        all_at_once = self._plan.windows_in_attention and self._windows.needed
        mode = ", or Windows apply to (context_mode) to “whole UNet”" if all_at_once else ""
        return (
            f"The GPU has too little memory for this video{tried}. Set a smaller width and height, or a smaller Context length "
            f"(batch_size){mode}."
        )

    def notes(self) -> list[str]:
        """Returns what the user should know about how the video was sampled."""
        if not self._on_demand.begun:
            return []
        note = (
            "The GPU had too little memory for all frames at once, so that they waited in RAM, which is slower. Set a smaller "
            "width and height, or a smaller Context length (batch_size), to avoid it."
        )
        return [note]

    def _step(self) -> int:
        """The running sampler's step, from 0. Some samplers take two for one of the WebUI's."""
        return self._p.sampler.model_wrap_cfg.step

    def _windows_of_attention(self) -> Callable[[], StepWindows] | None:
        """Returns what gives the windows of the running step, if attention is limited to context windows."""
        return self._step_windows if self._plan.attention_is_windowed else None

    def _step_windows(self) -> StepWindows:
        windows = self._windows.at(self._speed.window_step())
        if self._on_device is None or self._on_device[0] is not windows:
            self._on_device = windows, windows.to(devices.device)  # once for all calls and layers of a step
        return self._on_device[1]

    def progress(self) -> float:
        """The fraction of the sampler's steps that is done, between 0 and 1."""
        return self._step() / max(steps_of(self._p.sampler), 1)

    def _condition_image(self) -> ConditionImage | None:
        """The image that a PIA module starts from."""
        if not self._family.takes_image or self._family.encodes_image:
            return None
        return ConditionImage(self._image, similarity(self._plan.params.pia_motion, self._plan.frames))

    @property
    def _image(self) -> Tensor:
        """The latents of the first image of img2img, `(1, 4, height, width)`."""
        return self._p.init_latent[:1]

    def _require_usable_model(self, custom_unet: bool) -> None:
        """Raises AnimateDiffError or UnsuitableUNet unless the checkpoint that is loaded now can be animated."""
        model, family = shared.sd_model, self._family
        if model is None:
            raise AnimateDiffError(f"No checkpoint is loaded. Choose an {family.base} checkpoint.")
        self._require_kind("checkpoint", model.sd_checkpoint_info.title, host.kind_of(model))
        if custom_unet:
            raise AnimateDiffError(
                "A custom SD UNet, such as TensorRT's, would bypass the motion module. Set “SD Unet” to None in the settings."
            )
        for description in self._plan.descriptions:
            require_fit(host.of(model).unet(model), description.channels or {})
        self._sparse.require_fit(host.of(model).unet(model))

    def _require_usable_later(self, role: str, info: Any) -> None:
        """Checks a checkpoint that takes over later, before anything is sampled; its file may not tell what it is."""
        if info is not None and (found := kind_of_file(info.filename)):
            self._require_kind(role, info.title, found)

    def _require_kind(self, role: str, title: str, found: str) -> None:
        """Raises AnimateDiffError where a checkpoint is not of the kind that the motion module is made for."""
        if found == (made_for := self._family.base):
            return
        module = self._plan.module.path.name
        raise AnimateDiffError(
            f"The {role} {title} is {found}, but the motion module {module} is made for {made_for}. "
            f"Choose an {made_for} checkpoint{'' if role == 'checkpoint' else ' for it, or none'}."
        )

    def _layout_of(self, rows: int) -> RowLayout:
        if self.failure is not None:
            raise self.failure
        conditions = self._p.sampler.sampler_extra_args["cond"]
        frames = self._plan.frames
        if len(conditions.batch) != frames:
            raise RowLayoutError(
                f"The number of prompts is {len(conditions.batch)}, that of frames {frames}. Give one prompt for each frame."
            )
        return host.of(shared.sd_model).layout_of_call(rows, frames, parts_in_calls(self._p, conditions))


def prompt_parts(conditions: Any) -> int:
    """How many parts joined by AND the prompt of every frame has. Raises RowLayoutError where frames differ."""
    counts = {len(parts) for parts in conditions.batch}
    if len(counts) != 1:
        raise RowLayoutError(
            "The prompts of the frames have different numbers of parts joined by AND. Give every frame the same number."
        )
    return counts.pop()


def parts_in_calls(p: Any, conditions: Any) -> int:
    """How many parts of a frame's prompt are together in a UNet call of A1111; 1 where all frames of each part are.

    Raises RowLayoutError.
    """
    parts = prompt_parts(conditions)
    return 1 if extension_rows.are_whole_clips(p) else parts


@contextmanager
def starting_from_noise(p: Any) -> Iterator[None]:
    """At a denoising strength of 1, lets img2img begin with noise alone, as PIA and AnimateLCM-I2V do. The WebUI would leave
    some picture in it.

    With a mask nothing is changed.
    """
    sampler = p.sampler
    if p.denoising_strength < 1 or getattr(p, "image_mask", None) is not None:
        yield
        return

    def sample(p: Any, _latents: Any, noise: Any, *conditions: Any, **settings: Any) -> Any:
        return sampler.sample(p, noise, *conditions, **settings)

    with patched(sampler, "sample_img2img", sample):
        yield
