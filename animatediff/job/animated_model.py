"""The loaded checkpoint, made to animate for a while: motion layers attached, noise schedule lent.

Everything is undone on the way out, and also for the moment in which the WebUI swaps checkpoints in the middle of a job
(refiner, hires checkpoint) or another extension generates something of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from modules import devices, sd_models, sd_unet, shared

from motion_module.attach import attached, blocks_by_name, require_fit
from motion_module.context_windows import StepWindows
from motion_module.layer_offload import in_chunks
from motion_module.lora import Lora
from motion_module.motion import Motion, SecondModule
from motion_module.noise_schedule import NoiseSchedule
from motion_module.patching import patched
from motion_module.pia import ConditionImage, similarity
from motion_module.row_layout import RowLayout, RowLayoutError, layout_of_call
from motion_module.self_attention import FirstFrameAttention, self_attention_over
from motion_module.unet_cache import UNetCache
from motion_module.vram import WindowBudget
from motion_module.weight_patches import (
    added_to_unet,
    merged,
    require_image_fit,
    require_motion_fit,
    resized_positional_encoding,
)
from motion_module.windowed_unet import WindowedUNet

from ..errors import AnimateDiffError, reported_to_user
from ..request import module_files
from ..request.plan import Plan
from .checkpoints import kind_of, kind_of_file
from .loras import Loras
from .samplers import original_steps
from .size_conditioning import telling_sizes

CONDITIONS = 2
"""What a frame is usually sampled under: its prompt and its negative prompt."""
ON_MODEL = "_animatediff_scope"
"""The attribute under which an open scope can be found on the checkpoint it animates."""


def custom_unet_is_chosen() -> bool:
    """Whether the WebUI will run another UNet than the checkpoint's own."""
    return sd_unet.current_unet is not None or sd_unet.get_unet_option() is not None


class ModelScope:
    """What one job does to the checkpoint, for as long as it samples."""

    def __init__(self, p: Any, plan: Plan) -> None:
        self._p = p
        self._plan = plan
        self.family = plan.family
        self.windows = plan.windows
        self.windows_within = plan.windows_within
        self.calls: UNetCache | None = None
        """Keeps what the UNet finds, where that is wanted."""
        self._loras: Loras = ()
        self._expected: list[Lora] = []
        self._undo: ExitStack | None = None

    def expect_loras(self, *passes: Loras) -> None:
        """The LoRAs of each pass, of which the first is next. Whether they fit is seen before anything is sampled."""
        self._loras, self._expected = passes[0], [lora for loras in passes for lora, _ in loras]

    def loras_in_use(self) -> list[tuple[str, float]]:
        """Those of this pass that are ours."""
        return [(str(lora.path), strength) for lora, strength in self._loras]

    def use_loras(self, loras: Loras) -> None:
        """Changes to the LoRAs of another pass."""
        if {(lora.path, strength) for lora, strength in loras} != {(lora.path, strength) for lora, strength in self._loras}:
            with self.suspended():
                self._loras = loras

    @contextmanager
    def during_init(self) -> Iterator[None]:
        """For `p.init`: refuses checkpoints that cannot be animated, and lends the schedule, since img2img builds its sampler
        there, and freezes its sigmas with it.
        """
        with reported_to_user():
            self._require_usable_model(custom_unet_is_chosen())
            if (self._p.refiner_switch_at or 0) < 1:  # else the WebUI never changes to it
                self._require_usable_later("refiner", self._p.refiner_checkpoint_info)
        with self._lent_sampling():
            yield
        self._require_usable_later("hires checkpoint", getattr(self._p, "hr_checkpoint_info", None))

    @contextmanager
    def _lent_sampling(self) -> Iterator[None]:
        """What samplers are built from."""
        with lent_schedule(shared.sd_model, self.family.schedule, self._p), original_steps(self.family.original_steps):
            yield

    @contextmanager
    def open(self) -> Iterator[None]:
        """For `p.sample`: attached and lent, except while a checkpoint is being swapped."""
        reload = sd_models.reload_model_weights

        def reload_unanimated(*args: Any, **kwargs: Any) -> Any:
            with self.suspended():
                return reload(*args, **kwargs)

        with reported_to_user(), patched(sd_models, "reload_model_weights", reload_unanimated):
            self._enter()
            try:
                yield
            finally:
                self._leave()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """The checkpoint as it is without us. Does nothing where the scope is not open."""
        was_open = self._undo is not None
        self._leave()
        try:
            yield
        finally:  # also after an exception: the WebUI swallows those of generations that were started in a hook
            if was_open:
                self._enter()

    def _enter(self) -> None:
        self._require_usable_model(sd_unet.current_unet is not None)
        shared.state.textinfo = "AnimateDiff: loading the motion module"
        model, motion = shared.sd_model, self._motion()
        unet = model.model.diffusion_model
        for lora in self._expected:
            require_image_fit(blocks_by_name(unet), lora)
            for module in motion.modules:
                require_motion_fit(module, lora)
        with ExitStack() as stack:
            for module, (_, family) in zip(motion.modules, self._plan.modules):
                module.to(dtype=devices.dtype_unet)  # before a LoRA is merged, so that rounding does not depend on earlier jobs
                if not shared.opts.data.get("animatediff_keep_on_gpu", False):
                    stack.callback(module.to, "cpu")  # layers move to the checkpoint's device by themselves, when they are used
                stack.enter_context(merged(module, self._loras))
                frames = self.windows.attended_frames
                stack.enter_context(resized_positional_encoding(module, self._plan.positional_encoding, frames, family.frames))
            stack.enter_context(added_to_unet(blocks_by_name(unet), self._loras))
            stack.enter_context(self._lent_sampling())
            if self.family.size_conditioning is not None:
                stack.enter_context(telling_sizes(model, *self.family.size_conditioning, lambda: motion.active))
            if self.family.takes_image:
                stack.enter_context(starting_from_noise(self._p))
            layout_of = self._layout_of
            if self.windows.needed and not self.windows_within:
                whole = WindowedUNet(self.windows, self._step, layout_of, WindowBudget(devices.device))
                stack.enter_context(whole.applied_to(model.model))
                layout_of = whole.layout_of
            if self._in_chunks:
                stack.enter_context(in_chunks(unet, CONDITIONS * self.windows.length, self._working_device()))
            if self.calls is not None:
                stack.enter_context(self.calls.applied_to(model.model))  # around all windows of a call
            stack.enter_context(attached(unet, motion, self.family, layout_of, self._picture()))
            stack.enter_context(self_attention_over(unet, FirstFrameAttention(layout_of), self._plan.first_frame_attention))
            stack.enter_context(patched(model, ON_MODEL, self))
            self._undo = stack.pop_all()

    def _motion(self) -> Motion:
        second = self._plan.second
        module, *others = module_files.read(self._plan.modules)
        return Motion(
            module,
            self._plan.controls,
            self.progress,
            second=SecondModule(others[0], second.how, second.share) if second else None,
            step_windows=self._step_windows if self.windows.needed and self.windows_within else None,
            device=self._working_device(),
        )

    @property
    def _in_chunks(self) -> bool:
        """Whether layers of the image model go through a long clip part by part."""
        apart = self.family.unet_norms != "over frames" and not self._plan.first_frame_attention
        return self.windows.needed and self.windows_within and apart

    def _working_device(self) -> torch.device | None:
        return devices.device if self._in_chunks and self._plan.offload else None

    def _step(self) -> int:
        """Of the running sampler, from 0. Some take two for one of the WebUI's."""
        return self._p.sampler.model_wrap_cfg.step  # type: ignore[no-any-return]

    def _step_windows(self) -> StepWindows:
        return self.windows.at(self._step())

    def progress(self) -> float:
        """Of 0 to 1. DDIM and its kin announce one step more than they take, in img2img two."""
        sampler = self._p.sampler
        guidance, steps = sampler.model_wrap_cfg, sampler.model_wrap_cfg.total_steps
        if hasattr(sampler, "get_timesteps"):
            steps -= 1 if getattr(guidance, "init_latent", None) is None else 2
        return guidance.step / max(steps, 1)

    def _picture(self) -> ConditionImage | None:
        """What a PIA module starts from: the first picture of img2img."""
        if not self.family.takes_image:
            return None
        return ConditionImage(self._p.init_latent[:1], similarity(self._plan.curve, self._plan.frames))

    def _require_usable_model(self, custom_unet: bool) -> None:
        """Raises AnimateDiffError or UnsuitableUNet unless the checkpoint that is loaded now can be animated."""
        model, family = shared.sd_model, self.family
        if model is None:
            raise AnimateDiffError(f"No checkpoint is loaded. Choose an {family.base} checkpoint.")
        self._require_kind("checkpoint", model.sd_checkpoint_info.title, kind_of(model))
        if custom_unet:
            raise AnimateDiffError(
                "A custom SD UNet, such as TensorRT's, would bypass the motion module. Set “SD Unet” to None in the settings."
            )
        for description in self._plan.descriptions:
            require_fit(model.model.diffusion_model, description.channels or {})

    def _require_usable_later(self, role: str, info: Any) -> None:
        """Of a checkpoint that takes over in the middle: said before anything is sampled, where its file tells."""
        if info is not None and (found := kind_of_file(info.filename)):
            self._require_kind(role, info.title, found)

    def _require_kind(self, role: str, title: str, found: str) -> None:
        """Raises AnimateDiffError where a checkpoint is not of the kind that the motion module is made for."""
        if found == (made_for := self.family.base):
            return
        module = self._plan.description.path.name
        raise AnimateDiffError(
            f"The {role} {title} is {found}, but the motion module {module} is made for {made_for}. "
            f"Choose an {made_for} checkpoint{'' if role == 'checkpoint' else ' for it, or none'}."
        )

    def _leave(self) -> None:
        if self._undo is not None:
            self._undo.close()
            self._undo = None

    def _layout_of(self, rows: int) -> RowLayout:
        conditions = self._p.sampler.sampler_extra_args["cond"]
        frames = self._plan.frames
        if len(conditions.batch) != frames:
            raise RowLayoutError(f"There are {len(conditions.batch)} prompts for {frames} frames. Give one for each frame.")
        return layout_of_call(rows, frames, prompt_parts(conditions))


def prompt_parts(conditions: Any) -> int:
    """How many parts joined by AND the prompt of every frame has. Raises RowLayoutError where frames differ."""
    counts = {len(parts) for parts in conditions.batch}
    if len(counts) != 1:
        raise RowLayoutError(
            "The prompts of the frames have different numbers of parts joined by AND. Give every frame the same number."
        )
    return counts.pop()


def options_for_parts(parts: int) -> dict[str, bool]:
    """Settings under which the WebUI does not cut clips into different UNet calls.

    Prompts joined by AND come frame by frame, all parts of each, and calls are cut by row count. With cond and uncond in one
    batch two parts always stay whole; more than two also need the negative prompt to be as long as the prompt.
    """
    if parts == 1:
        return {}
    return {"batch_cond_uncond": True} | ({"pad_cond_uncond": True} if parts > 2 else {})


@contextmanager
def lent_schedule(model: Any, schedule: NoiseSchedule, p: Any) -> Iterator[None]:
    """Gives a checkpoint another noise schedule; the WebUI's own settings (zero terminal SNR, downcast) act on top of it.

    What is lent is a new tensor, because a reload of weights copies into whatever tensor it finds.
    """
    lent = schedule.alphas_cumprod().to(model.alphas_cumprod.device)
    with patched(model, "alphas_cumprod", model.alphas_cumprod), patched(model, "alphas_cumprod_original", lent):
        sd_models.apply_alpha_schedule_override(model, p)
        yield


@contextmanager
def starting_from_noise(p: Any) -> Iterator[None]:
    """At a denoising strength of 1, lets img2img begin with noise alone, as PIA does; the WebUI would leave some picture in it.

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
