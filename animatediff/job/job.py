"""The life of one generation, from the request to the finished video."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from typing import Any, cast

from modules import sd_models, shared

from motion_module.errors import UserError
from motion_module.initial_noise import NoiseType, seeds_of
from motion_module.patching import patched, patched_items
from motion_module.prompt_travel import Interpolation
from motion_module.row_layout import RowLayoutError

from .. import host
from ..controlnet import control as controlnet
from ..detailer.part import part_of
from ..errors import AnimateDiffError, failure, reported_to_user
from ..interrupt import is_interrupted
from ..request import infotext, module_files
from ..request.choices import MIX
from ..request.inputs import find_inputs
from ..request.plan import Plan, make_plan
from ..request.reading import is_of_panel, read_arguments
from ..request.xyz_values import xyz_values
from . import (
    added_words,
    advice,
    chosen_script,
    detailing,
    dynamic_prompts,
    frame_guidance,
    init_frames,
    live_preview,
    loras,
    prompt_travel,
    run_history,
    unsuitable_extensions,
    without_effect,
)
from .animated_model import ON_MODEL, AnimatedModel, parts_in_calls, prompt_parts
from .finished_frames import FinishedFrames, writes_frames
from .frame_masks import MADE_OF_MASKS, FrameMasks
from .free_init import Rounds
from .init_frames import InitFrames
from .processing_hooks import Bystander, Refusal, Role, carried_role, init_of_webui, release, take
from .resuming import Resuming
from .sparse_control import SparseControls
from .validate import ORIGINAL, validate

log = logging.getLogger("AnimateDiff")
RESTORED_ON_P = ("batch_size", "do_not_save_samples", "do_not_save_grid", "init_images", "subseed_strength")
"""The attributes of `p` that a job changes and gives back. What `init` made of it stays, as after any generation."""


def begin(p: Any, arguments: tuple[Any, ...]) -> None:
    """`before_process`: reads the request and, if it asks for a video, makes `p` a job.

    A request that cannot be met makes `p.init` raise, since the WebUI swallows what its hooks raise.
    """
    if (job := job_of(p)) is not None:
        job.finish()  # its last run ended in an exception that no later hook saw
    running = _model_of_running_job(p)
    release(p)
    if infotext.KEY in p.extra_generation_params:  # from an earlier run, or from the job whose copy this is
        p.extra_generation_params = {k: v for k, v in p.extra_generation_params.items() if k != infotext.KEY}
    if running is not None:
        take(p, Bystander(p, running))
        return
    try:
        _start_job(p, arguments)
    except UserError as error:
        _refuse(p, str(error))
    except Exception as error:
        _refuse(p, failure(error, "AnimateDiff failed before it began"), status_code=500)


def _start_job(p: Any, arguments: tuple[Any, ...]) -> None:
    params, warnings = read_arguments(arguments, xyz_values(p))
    if not params.enable:
        return
    chosen_script.begun(p)
    if _leaves_to_webui(p):
        return
    units = controlnet.enabled_units(p)
    plan = make_plan(params, find_inputs(params, _init_images(p), units))
    warnings += validate(p, plan)
    warnings += without_effect.warnings(plan, params, is_panel=is_of_panel(arguments))
    job = Job(p, plan, warnings)
    try:
        job.start()
    except BaseException:
        job.finish()
        raise


def job_of(p: Any) -> Job | None:
    """The job of this very `p`; None for others and for copies."""
    role = carried_role(p)
    return role if isinstance(role, Job) and role.p is p else None


def on_step(params: Any) -> None:
    """`on_cfg_denoiser`: while a clip is sampled, shows the step, and moves its prompts on."""
    job = job_of(params.denoiser.p)
    if getattr(shared.sd_model, ON_MODEL, None) is not None:
        number, rounds = job.rounds() if job else (0, 1)
        live_preview.tell_step(params.denoiser, number, rounds, part_of(params.denoiser.p))
    if job is not None:
        job.begin_step(params)


def _leaves_to_webui(p: Any) -> bool:
    """Whether this generation makes no video although AnimateDiff is on."""
    if getattr(p, "_ad_inner", False):  # ADetailer inpaints one face of one frame
        return True
    if getattr(p, "txt2img_upscale", False):
        p.comment("AnimateDiff: The ✨ button upscales the first frame, as a picture. Use hires fix to upscale a video.")
        p.firstpass_image = p.firstpass_image.convert("RGB")  # a GIF has a palette, which the WebUI does not expect
        return True
    return False


def _init_images(p: Any) -> list[Any] | None:
    """The images of img2img; a single one where its batch tab repeats it for each row. None in txt2img."""
    if not hasattr(p, "init_images"):
        return None
    images = [image for image in p.init_images or () if image is not None]
    return images[:1] if all(image is images[0] for image in images) else images


def _model_of_running_job(p: Any) -> AnimatedModel | None:
    """The model of a job in whose middle `p` is generated, if there is one."""
    role = carried_role(p)
    if isinstance(role, Job) and job_of(role.p) is role:
        return role.animated
    return getattr(sd_models.model_data.sd_model, ON_MODEL, None)


def _refuse(p: Any, text: str, status_code: int = 422) -> None:
    log.error(text)
    shared.state.textinfo = None
    error = AnimateDiffError(text, status_code)
    chosen_script.failed(p, error)
    take(p, Refusal(p, error))


class Job:
    """One request for videos: its plan, what it has changed on `p`, and the frames as they come."""

    def __init__(self, p: Any, plan: Plan, warnings: list[str]) -> None:
        self.p = p
        self.plan = plan
        self.params = plan.params
        self.warnings = warnings
        self.control = controlnet.of_job(p, plan)
        self._masks = FrameMasks(p, plan.masks)
        self._sparse = SparseControls(p, plan)
        self.animated = AnimatedModel(p, plan, self.control, self._sparse)
        self.resuming = Resuming(
            p,
            plan,
            rounds=self.rounds,
            loras_in_use=self.animated.loras_in_use,
            controls=lambda: [*self.control.facts(), *self._sparse.facts()],
        )
        self._hires_loras: loras.Loras = ()
        self._lora_hashes: dict[str, str] = {}
        self._written = added_words.as_written(p)
        self._travels: prompt_travel.Travels = {}
        self._round = 0
        self._init_frames: InitFrames | None = None
        self._guidance = frame_guidance.FrameGuidance(p, plan.cfg_scale)
        self._sampled: set[int] = set()
        """The iterations that have passed `during_sample`."""
        self._finished = FinishedFrames(p, plan, self.control)
        restored = [*RESTORED_ON_P, *(MADE_OF_MASKS if plan.masks else ())]
        restored += [*(frame_guidance.SCALES if plan.cfg_scale is not None else ())]
        restored += ["denoising_strength"] if plan.denoising_strength is not None else []
        self._before = {name: getattr(p, name) for name in restored if hasattr(p, name)}
        self._during_pass, self._during_step = ExitStack(), ExitStack()
        self._stopwatch = run_history.Stopwatch()

    # --- what the WebUI's hooks call, in their order ---

    def start(self) -> None:
        """Makes the batch a clip. This is the last moment before the WebUI repeats prompts and seeds for each row."""
        p = self.p
        take(p, self)
        p.batch_size = self.params.video_length
        p.do_not_save_grid = True
        if self.plan.starts_from_image:
            self.warnings += init_frames.give(p, self.params)
        elif self.plan.images:
            p.init_images = self.plan.images
        self._masks.give()
        self._guidance.give()
        init_frames.give_strength(p, self.plan.denoising_strength)
        module_hash = module_files.short_hash(self.plan.module.path)
        p.extra_generation_params[infotext.KEY] = infotext.write(self.params, module_hash)
        self.control.begin()

    @contextmanager
    def during_init(self) -> Iterator[None]:
        p = self.p
        if writes_frames(self.params) or "PNG" not in self.params.format:
            p.do_not_save_samples = True  # decided here, where the request's own settings hold
        with (
            self._finished_on_error("preparing the video"),
            self.resuming.reproducible_noise(p.all_seeds[0]),
            self.animated.during_init(),
        ):
            self.control.require_prepared()
            unsuitable_extensions.require_suitable(p, self.plan)
            dynamic_prompts.make_videos(p, self.params.video_length)
            prompt_travel.one_prompt_for_each_video(p, self.params.video_length)
            added_words.set_apart(p, self._written, getattr(shared, "prompt_styles", None))
            self._require_prompts()
            self._choose_noise()
            self._warn_once(advice.speed_without_light_calls(p, self.plan))
            self._warn_once(advice.distilled(p, shared.sd_model.sd_checkpoint_info.title))
            with self._prepared_images():
                yield
            self._masks.require_used()
            strengths = self.plan.denoising_strength if isinstance(self.plan.denoising_strength, tuple) else None
            if strengths or (self.plan.starts_from_image and not self.plan.family.takes_image):
                self._init_frames = InitFrames(self.params, p.init_latent, strengths)

    @contextmanager
    def during_parse(self) -> Iterator[None]:
        """Takes the LoRAs that are ours out of what the WebUI parses, for this video and its hires pass; reads keyframes."""
        p = self.p
        with self._finished_on_error("reading the prompts"):
            self.control.require_prepared()  # with a refiner, ControlNet prepares each video
            added_words.set_apart_in_rows(p)
        yield
        with self._finished_on_error("reading the prompts"):
            frames, loops = self.params.video_length, self.params.prompts_loop
            self._travels, warnings = prompt_travel.follow(p, frames, closed=loops)
            if self._travels:
                unsuitable_extensions.require_no_keyframes(p, self.plan)
            self._warn_once([*warnings, *without_effect.on_keyframes(self.params, self._travels)])
            if not p.disable_extra_networks:
                self._warn_once(advice.missing_lora(self.plan.family, loras.names_in(p.extra_network_data)))
                first = loras.take_from(p.extra_network_data, frames, closed=loops)
                hires = loras.take_from(getattr(p, "hr_extra_network_data", None), frames, closed=loops)
                self._hires_loras, self._lora_hashes = tuple(hires.loras), first.hashes | hires.hashes
                self.animated.expect_loras(tuple(first.loras), self._hires_loras)
                self._warn_once(first.warnings + hires.warnings)
            self.animated.lend_schedule()

    def before_conditions(self) -> None:
        self.animated.end_lending()

    def loras_activated(self) -> None:
        """`after_extra_networks_activate`: the WebUI has written the hashes of its own LoRAs into the infotext."""
        loras.write_hashes(self.p, self._lora_hashes)

    def after_conditions(self) -> None:
        """Makes negative prompts equally long, since the WebUI puts those of all rows into one tensor."""
        with self._finished_on_error("encoding the prompts"):
            for name in ("uc", "hr_uc"):
                if getattr(self.p, name, None):
                    setattr(self.p, name, prompt_travel.of_one_length(getattr(self.p, name)))

    @contextmanager
    def during_sample(self) -> Iterator[None]:
        p, acting = self.p, self.animated.acting
        with self._finished_on_error("sampling the video"), self.resuming.reproducible_noise(p.seeds[0]):
            self._sampled.add(p.iteration)
            acting.begin()
            if self._init_frames is not None:
                p.init_latent = self._init_frames.latents(p.seeds, getattr(p, "mask", None))
            self._warn_once(self.resuming.start())
            self._sparse.encode()
            with self.animated.open(self.resuming.cache), live_preview.moving_preview(self.params.fps):
                yield
            self._require_motion(acting.hindrance(is_interrupted()))
            self._warn_once(self.animated.notes())
        self._during_pass.close()
        self._stopwatch.lap()
        shared.state.textinfo = "AnimateDiff: decoding frames"

    def before_sampler(self, conditions: Any) -> None:
        """`process_before_every_sampling`: prepares one pass of the sampler."""
        with self._remembering_failure():
            self._begin_pass(conditions)

    def _begin_pass(self, conditions: Any) -> None:
        self._during_pass.close()
        self._during_pass.callback(self._during_step.close)
        with suppress(RowLayoutError):  # the model's hooks will raise it, where it can end the job
            wanted = host.of(shared.sd_model).options_for_parts(parts_in_calls(self.p, conditions))
            self._during_pass.enter_context(patched_items(shared.opts.data, wanted))
        if self._init_frames is not None and self._holds_frames_back():
            p = self.p
            held = self._init_frames.holding(p.sampler, p.steps, p.init_latent, self.animated.progress)
            self._during_pass.enter_context(held)
        if self._in_rounds():
            model = shared.sd_model
            left = host.of(model).alphas_cumprod
            rounds = Rounds(self.params, self._begin_round, is_interrupted, lambda: left(model)[-1])
            sampler = self.p.sampler
            self._during_pass.enter_context(patched(sampler, "sample", rounds.of(sampler.sample)))
        else:
            self.animated.begin_run()

    def begin_step(self, params: Any) -> None:
        """`on_cfg_denoiser`: begins one step: guides each frame by its own scale, and mixes prompts between keyframes."""
        self.animated.acting.begin_step()
        with self._remembering_failure():
            self._during_step.close()
            self._during_step.enter_context(self._guidance.in_step())
            if self._travels:
                parts = prompt_parts(self.p.sampler.sampler_extra_args["cond"])
                how = cast(Interpolation, self.params.prompt_interpolation)
                prompt_travel.mix(self._travels, params, parts, how, hires=getattr(self.p, "is_hr_pass", False))

    def before_hires(self) -> None:
        """Before the second pass, which may have a checkpoint and LoRAs of its own."""
        with self._finished_on_error("preparing the hires pass"):
            self.animated.use_loras(self._hires_loras)

    def before_pictures(self) -> None:
        if self.p.iteration not in self._sampled:
            with self._finished_on_error("collecting the frames"):
                self._require_motion("The pictures were sampled without the motion module.")

    def closed(self) -> None:
        self.finish()

    def add_frame(self, finished: Any) -> None:
        """`postprocess_image_after_composite`: collects what holds the image, since scripts after ours may still replace it."""
        self._finished.add(finished)

    def use_mask(self, overlaid: Any) -> None:
        """`postprocess_maskoverlay`: gives a frame its own mask, where the WebUI has that of the last one."""
        overlaid.mask_for_overlay = self._masks.for_overlay(overlaid.index) or overlaid.mask_for_overlay

    def complete(self, processed: Any) -> None:
        """`postprocess`: writes files and the answer."""
        self.finish(completed=True)
        self.warnings += self.resuming.report(processed)
        if self.params.details:
            self.control.let_go()
            self.warnings += detailing.detail(p=self.p, plan=self.plan, processed=processed, finished=self._finished)
        player_files = self._finished.deliver(processed, self.warnings)
        if not (self.resuming.was_resumed or self.params.details or part_of(self.p)):
            self._stopwatch.record(self.p, self.plan)
        for warning in self.warnings:
            log.warning(warning)
            processed.comments += warning + "\n"
        for file in player_files:
            processed.comments += f"AnimateDiff saved {file}\n"
        chosen_script.made(self.p, processed.images)
        self.resuming.finish()
        shared.state.textinfo = None  # otherwise it would stay beside the progress bar of the next generation

    def finish(self, *, completed: bool = False) -> None:
        """Gives `p` back its class and the attributes in RESTORED_ON_P. Its infotext stays, for scripts around it.

        `completed`: whether the generation reached its last hook. Repeated calls do nothing.
        """
        self._during_pass.close()
        self.animated.take_back()
        self._sparse.let_go()
        shared.state.textinfo = None
        if job_of(self.p) is not self:
            return
        release(self.p)
        for name, value in self._before.items():
            setattr(self.p, name, value)
        self.control.end(completed=completed)

    # --- what these need ---

    def for_copies(self) -> Role:
        """The role of copies of `p`: the model is not theirs."""
        return Bystander(self.p, self.animated)

    def rounds(self) -> tuple[int, int]:
        """FreeInit's current round, from 0, and how many there are."""
        return (self._round, self.params.freeinit_iters) if self._in_rounds() else (0, 1)

    def _in_rounds(self) -> bool:
        return self.params.freeinit_enable and not getattr(self.p, "is_hr_pass", False)

    def _begin_round(self, number: int) -> None:
        self._round = number
        self.animated.begin_run()

    def _require_motion(self, hindrance: str) -> None:
        """Ends the job where frames were made without motion: they would be unrelated stills. `hindrance`: how; or empty."""
        if (error := self.animated.failure) is not None:
            raise error
        if hindrance:
            self.resuming.finish()  # what the UNet returned is of no use
            raise AnimateDiffError(f"{hindrance} {chosen_script.advice(self.p)}")

    @contextmanager
    def _remembering_failure(self) -> Iterator[None]:
        """For hooks whose exceptions the WebUI swallows, though the video would be another one without them."""
        try:
            yield
        except Exception as error:
            self.animated.failure = error
            raise

    @contextmanager
    def _finished_on_error(self, doing: str) -> Iterator[None]:
        try:
            with reported_to_user(doing):
                yield
        except BaseException as error:
            self.finish()
            if isinstance(error, AnimateDiffError):
                log.error(str(error))
                chosen_script.failed(self.p, error)
            raise

    def _warn_once(self, warnings: list[str]) -> None:
        """Adds warnings that are new: prompts are parsed for every video again."""
        self.warnings += [warning for warning in warnings if warning not in self.warnings]

    def _require_prompts(self) -> None:
        """A script may give a list of prompts, whose length then sets the number of rows in place of the batch size."""
        frames, videos = self.params.video_length, self.p.n_iter
        if len(self.p.all_prompts) != frames * videos:
            raise AnimateDiffError(
                f"A script has given {len(self.p.all_prompts)} prompts for {videos} video{'s' * (videos > 1)} of {frames} "
                "frames. AnimateDiff needs one prompt, or one for each frame. Switch that script off."
            )

    def _choose_noise(self) -> None:
        """Sets the seeds that frames begin with; the WebUI has drawn one for each frame."""
        p, params, windows = self.p, self.params, self.plan.windows
        if params.noise_type == "per frame":
            return
        firsts = p.all_seeds[:: windows.frames]
        kind, advance = cast(NoiseType, params.noise_type), windows.length - windows.overlap
        of_videos = [seeds_of(kind, int(first), windows.frames, windows.length, advance) for first in firsts]
        p.all_seeds = [seed for seeds in of_videos for seed in seeds]
        if params.noise_type == "mixed":
            p.all_subseeds = [int(first) for first in firsts for _ in range(windows.frames)]
            p.subseed_strength = params.noise_share

    def _prepared_images(self) -> AbstractContextManager[None]:
        """Around the WebUI's `init`: how it prepares the images of the frames."""
        if self.plan.masks_differ:
            return self._masks.prepared(init_of_webui(self.p))
        return init_frames.encoded_once(self.p, self.params) if self.plan.starts_from_image else nullcontext()

    def _holds_frames_back(self) -> bool:
        """Whether frames stay as they are until their own denoising strength begins.

        They do not where inpainting has painted over the image first.
        """
        painted_over = getattr(self.p, "image_mask", None) is not None and self.p.inpainting_fill != ORIGINAL
        return self.params.image_mode != MIX and not painted_over
