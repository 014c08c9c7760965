"""The life of one generation, from the request to the finished video.

A job lives on its `p`, as the role (`roles.py`) that opens and closes what `init`, `sample` and other steps of it need.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from typing import Any

import numpy as np
from modules import errors, sd_models, shared
from modules.processing import Processed
from PIL import Image

from motion_module.evaluation import changes_of
from motion_module.initial_noise import seeds_of
from motion_module.patching import patched, patched_items
from motion_module.row_layout import RowLayoutError
from motion_module.unet_cache import UNetCache
from motion_module.weight_files import CheckpointError

from .. import settings
from ..errors import AnimateDiffError, RequestError, reported_to_user
from ..output.results import Results, Video
from ..request import infotext, module_files
from ..request.params import MIX, Params
from . import advice, init_frames, live_preview, loras, prompt_travel, resume_store, run_history
from .animated_model import ON_MODEL, ModelScope, options_for_parts, prompt_parts
from .free_init import Rounds
from .init_frames import GivenFrames
from .processing_hooks import ON_P, Bystander, Refusal, release, take
from .validate import Asked, asked_of

log = logging.getLogger("AnimateDiff")
AS_IT_IS = 1
"""The WebUI's number for “original” as the content of what is masked."""
NOT_OF_FRAMES = {"format": ("PNG",), "fps": 8.0, "loop_number": 0, "interp": "Off", "interp_x": 10, "request_id": ""}
"""Parameters that change nothing in the frames themselves, at values that say so."""


def begin(p: Any, arguments: tuple[Any, ...]) -> None:
    """`before_process`: reads the request and, if it asks for a video, makes `p` a job.

    A request that cannot be met makes `p.init` raise, since the WebUI swallows what its hooks raise.
    """
    if (job := job_of(p)) is not None:
        job.finish()  # its last run ended in an exception that no later hook saw
    scope = _scope_around(p)
    release(p)
    if infotext.KEY in p.extra_generation_params:  # from an earlier run, or from the job whose copy this is
        p.extra_generation_params = {k: v for k, v in p.extra_generation_params.items() if k != infotext.KEY}
    if scope is not None:
        take(p, Bystander(scope))
        return
    try:
        asked = asked_of(p, arguments)
    except (RequestError, CheckpointError) as error:
        _refuse(p, str(error))
    except Exception:
        errors.report("AnimateDiff could not read the request", exc_info=True)
        _refuse(p, "AnimateDiff failed while it read the request; the console has the details.", status_code=500)
    else:
        if asked is not None:
            Job(p, asked).start()


def job_of(p: Any) -> Job | None:
    """The job of this very `p`; None for others and for copies."""
    job = vars(p).get(ON_P)
    return job if isinstance(job, Job) and job.p is p else None


def on_step(params: Any) -> None:
    """`on_cfg_denoiser`: says where it is, if what runs is a clip, and moves its prompts on."""
    if getattr(shared.sd_model, ON_MODEL, None) is not None:
        job = job_of(params.denoiser.p)
        live_preview.tell_step(params.denoiser, *job.rounds() if job else ())
        if job is not None:
            job.mix_prompts(params)


def _was_interrupted() -> bool:
    return bool(shared.state.interrupted or shared.state.skipped)


def _scope_around(p: Any) -> ModelScope | None:
    """The scope of a running job in whose middle `p` is to be generated, if there is one."""
    outer = vars(p).get(ON_P)
    if isinstance(outer, Job) and job_of(outer.p) is outer:
        return outer.scope
    return getattr(sd_models.model_data.sd_model, ON_MODEL, None)


def _infotext(p: Any) -> str:
    """Of the first frame, with what the WebUI adds only when the hires pass begins, or the refiner takes over."""
    later = {"Hires schedule type": getattr(p, "hr_scheduler", None)} if getattr(p, "enable_hr", False) else {}
    if p.refiner_checkpoint_info is not None:
        later |= {"Refiner": p.refiner_checkpoint_info.short_title, "Refiner switch at": p.refiner_switch_at}
    with patched_items(p.extra_generation_params, later):
        return Processed(p, []).infotext(p, 0)


def _what_is_asked(p: Any, params: Params) -> list[Any]:
    """What sets the frames of a job apart from those of others."""
    prompts = p.all_prompts[0], p.all_negative_prompts[0], int(p.all_seeds[0])
    mask = getattr(p, "image_mask", None)
    pictures = resume_store.digest([*(getattr(p, "init_images", None) or []), *([] if mask is None else [mask])])
    ours = infotext.write(dataclasses.replace(params, **NOT_OF_FRAMES), None)
    return [*prompts, p.width, p.height, p.steps, p.sampler_name, float(p.cfg_scale), ours, pictures, _hires_of(p)]


def _hires_of(p: Any) -> list[Any]:
    """The prompts and the size of its hires pass, once `init` has worked them out; empty without one."""
    if not getattr(p, "enable_hr", False):
        return []
    prompts = [getattr(p, name, None) or [None] for name in ("all_hr_prompts", "all_hr_negative_prompts")]
    return [*(rows[0] for rows in prompts), p.hr_upscale_to_x, p.hr_upscale_to_y]


def _refuse(p: Any, text: str, status_code: int = 422) -> None:
    log.error(text)
    shared.state.textinfo = None
    take(p, Refusal(p, AnimateDiffError(text, status_code)))


class Job:
    """One request for videos: what was asked, what was changed on `p`, and the frames as they come."""

    def __init__(self, p: Any, asked: Asked) -> None:
        self.p = p
        self.params = asked.params
        self.scope = ModelScope(p, asked.plan)
        self.warnings = asked.warnings
        self._asked = asked
        self._hires_loras: loras.Loras = ()
        self._lora_hashes: dict[str, str] = {}
        self._travels: prompt_travel.Travels = {}
        self._round = 0
        self._given: GivenFrames | None = None
        self._finished: dict[int, list[Any]] = {}
        changed = ("batch_size", "do_not_save_samples", "do_not_save_grid", "init_images", "subseed_strength")
        self._before = {name: getattr(p, name) for name in changed if hasattr(p, name)}
        self._options = ExitStack()
        self._unfinished: resume_store.Unfinished | None = None
        self._stopwatch = run_history.Stopwatch()

    def start(self) -> None:
        """Makes the batch a clip. This is the last moment before the WebUI repeats prompts and seeds for each row."""
        p = self.p
        take(p, self)
        p.batch_size = self.params.video_length
        p.do_not_save_grid = True
        if self._asked.source:
            p.init_images = self._asked.source.frames
        elif self._asked.from_picture:
            self.warnings += init_frames.give(p, self.params)
        path = self._asked.plan.description.path
        p.extra_generation_params[infotext.KEY] = infotext.write(self.params, module_files.short_hash(path))

    def finish(self) -> None:
        """Gives `p` back as it was, but for its infotext, which scripts around it may still write. Harmless when repeated."""
        self._options.close()
        shared.state.textinfo = None
        if job_of(self.p) is not self:
            return
        release(self.p)
        for name, value in self._before.items():
            setattr(self.p, name, value)

    @contextmanager
    def during_init(self, p: Any) -> Iterator[None]:
        scope = self.scope.during_init() if p is self.p else self.scope.suspended()
        if p is self.p and (self._writes_frames() or "PNG" not in self.params.format):
            p.do_not_save_samples = True  # decided here, where the request's own settings hold
        with self._finished_on_error(p), self._reproducible(p, "all_seeds"), scope:
            if p is self.p:
                prompt_travel.one_prompt_for_each_video(p, self.params.video_length)
                self._require_prompts()
                self._choose_noise()
                self._warn_once(advice.distilled(p, shared.sd_model.sd_checkpoint_info.title))
            yield
            if p is self.p:
                self._take_given_frames()

    @contextmanager
    def during_parse(self, p: Any) -> Iterator[None]:
        """Takes the LoRAs that are ours out of what the WebUI parses, for this video and its hires pass; reads keyframes."""
        yield
        if p is not self.p:
            return
        with self._finished_on_error(p), reported_to_user():
            self._travels = prompt_travel.follow(p, self.params.video_length, closed=self.params.prompts_loop)
            if not p.disable_extra_networks:
                self._warn_once(advice.missing_lora(self.scope.family, loras.names_in(p.extra_network_data)))
                first, self._lora_hashes = loras.take_from(p.extra_network_data)
                self._hires_loras, more = loras.take_from(getattr(p, "hr_extra_network_data", None))
                self._lora_hashes |= more
                self.scope.expect_loras(first, self._hires_loras)
                self._warn_once(loras.left_out(first))

    def _warn_once(self, warnings: list[str]) -> None:
        """The prompt is parsed for every video anew."""
        self.warnings += [warning for warning in warnings if warning not in self.warnings]

    def after_conditions(self, p: Any) -> None:
        """The WebUI puts negative prompts of all rows into one tensor."""
        if p is self.p:
            for name in ("uc", "hr_uc"):
                if getattr(p, name, None):
                    setattr(p, name, prompt_travel.of_one_length(getattr(p, name)))

    def rounds(self) -> tuple[int, int]:
        """Of FreeInit: which the pass is in, from 0, and how many it has."""
        return (self._round, self.params.freeinit_iters) if self._in_rounds() else (0, 1)

    def _in_rounds(self) -> bool:
        return self.params.freeinit_enable and not getattr(self.p, "is_hr_pass", False)

    def mix_prompts(self, params: Any) -> None:
        """In one step of this video."""
        if self._travels:
            parts, how = prompt_parts(self.p.sampler.sampler_extra_args["cond"]), self.params.prompt_interpolation
            prompt_travel.mix(self._travels, params, parts, how, hires=getattr(self.p, "is_hr_pass", False))

    def before_hires(self, p: Any) -> None:
        """Changes to the LoRAs of the hires prompt. What is raised here ends the generation, as it would not in a hook."""
        if p is self.p:
            self.scope.use_loras(self._hires_loras)

    def loras_activated(self) -> None:
        """`after_extra_networks_activate`."""
        loras.write_hashes(self.p, self._lora_hashes)

    @contextmanager
    def during_sample(self, p: Any) -> Iterator[None]:
        if p is not self.p:
            with self._finished_on_error(p), self.scope.suspended():
                yield
            return
        with self._finished_on_error(p), self._reproducible(p, "seeds"):
            if self._given is not None:
                p.init_latent = self._given.latents(p.seeds, getattr(p, "mask", None))
            self._keep_calls()
            with self.scope.open(), live_preview.moving_preview(self.params.fps):
                yield
        self._options.close()
        self._stopwatch.lap()
        shared.state.textinfo = "AnimateDiff: decoding frames"

    @property
    def _takes_long(self) -> bool:
        return self.scope.windows.needed or self.params.freeinit_enable

    def _keep_calls(self) -> None:
        """Before its first video is sampled, what is known of the job is what decides over its frames."""
        if self._unfinished is not None or not (self._takes_long and settings.keeps_unfinished()):
            return
        try:
            tab = "img2img" if hasattr(self.p, "init_images") else "txt2img"
            self._unfinished = resume_store.begin(tab, _infotext(self.p), _what_is_asked(self.p, self.params))
        except OSError as error:
            self._warn_once([f"This video could not be resumed if it were cut off: {error}. Make room there."])
        else:
            self.scope.calls = UNetCache(self._unfinished.folder, self._where, self._what_acts)

    def _what_acts(self) -> list[Any]:
        """In the UNet, now: the file of its weights, and LoRAs, of the WebUI's and ours."""
        p, hires = self.p, getattr(self.p, "is_hr_pass", False)
        networks = getattr(p, "hr_extra_network_data" if hires else "extra_network_data", None) or {}
        asked_for = {kind: [entry.items for entry in entries] for kind, entries in networks.items()}
        return [shared.sd_model.sd_checkpoint_info.filename, asked_for, self.scope.loras_in_use()]

    def _where(self) -> str:
        """Words for where the running sampler is."""
        p = self.p
        hires = ["hires pass"] if getattr(p, "is_hr_pass", False) else []
        videos = [f"video {p.iteration + 1} of {p.n_iter}"] if p.n_iter > 1 else []
        return ", ".join([live_preview.step(p.sampler.model_wrap_cfg, *self.rounds()), *hires, *videos])

    @contextmanager
    def _reproducible(self, p: Any, seeds: str) -> Iterator[None]:
        """The same request draws the same noise, in another process too: or else nothing would be found again."""
        with resume_store.seeded(getattr(p, seeds)[0]) if p is self.p and self._takes_long else nullcontext():
            yield

    @contextmanager
    def _finished_on_error(self, p: Any) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            if p is self.p:
                self.finish()
            if isinstance(error, AnimateDiffError):
                log.error(str(error))
            raise

    def _require_prompts(self) -> None:
        """A script may give a list of prompts, whose length then decides over the rows in place of the batch size."""
        frames, videos = self.params.video_length, self.p.n_iter
        if len(self.p.all_prompts) != frames * videos:
            raise AnimateDiffError(
                f"A script has given {len(self.p.all_prompts)} prompts for {videos} videos of {frames} frames. "
                "AnimateDiff needs one prompt, or one for each frame. Switch that script off."
            )

    def _choose_noise(self) -> None:
        """Seeds are drawn by now, one for each frame."""
        p, params, windows = self.p, self.params, self.scope.windows
        if params.noise_type == "per frame":
            return
        firsts = p.all_seeds[:: windows.frames]
        advance = windows.length - windows.overlap
        of_videos = [seeds_of(params.noise_type, int(first), windows.frames, windows.length, advance) for first in firsts]
        p.all_seeds = [seed for seeds in of_videos for seed in seeds]
        if params.noise_type == "mixed":
            p.all_subseeds = [int(first) for first in firsts for _ in range(windows.frames)]
            p.subseed_strength = params.noise_share

    def _take_given_frames(self) -> None:
        """After `init`, which has encoded them."""
        p = self.p
        if not self._asked.from_picture or self.scope.family.takes_image:
            return
        init_frames.spread(p, self.params.video_length)
        self._given = GivenFrames(self.params, p.init_latent)

    def _holds(self) -> bool:
        """Whether frames wait at the picture: not where inpainting has painted over it first."""
        painted_over = getattr(self.p, "image_mask", None) is not None and self.p.inpainting_fill != AS_IT_IS
        return self.params.image_mode != MIX and not painted_over

    def _writes_frames(self) -> bool:
        """Whether frames go into a folder of their own, rather than where the WebUI saves pictures."""
        return shared.opts.data.get("animatediff_save_to_custom", True)

    def before_sampler(self, conditions: Any) -> None:
        """`process_before_every_sampling`: sees to it that the WebUI keeps clips whole in this pass."""
        self._options.close()
        with suppress(RowLayoutError):  # the scope will say it, where it can end the job
            wanted = options_for_parts(prompt_parts(conditions))
            self._options.enter_context(patched_items(shared.opts.data, wanted))
        if self._given is not None and self._holds():
            held = self._given.holding(self.p.sampler, self.p.init_latent, self.scope.progress)
            self._options.enter_context(held)
        if self._in_rounds():
            sampler, model = self.p.sampler, shared.sd_model
            rounds = Rounds(self.params, self._begin_round, _was_interrupted, lambda: model.alphas_cumprod[-1])
            self._options.enter_context(patched(sampler, "sample", rounds.of(sampler.sample)))

    def _begin_round(self, number: int) -> None:
        self._round = number

    def add_frame(self, finished: Any) -> None:
        """`postprocess_image_after_composite`: keeps what holds the picture, since scripts after ours may still replace it."""
        self._finished.setdefault(self.p.iteration, []).append(finished)

    def complete(self, processed: Any) -> None:
        """`postprocess`: frames to files, videos to the answer. What fails here costs no finished frame."""
        self.finish()
        outpath = self.p.outpath_samples if self.p.save_samples() else None
        after = self._tell_of_calls(processed)
        sound = self._asked.source.sound_for(self.params) if self._asked.source else None
        writes_frames, is_api = self._writes_frames(), self.p.is_api
        rife = self._asked.rife
        results = Results(self.params, settings.quality(), outpath, writes_frames, is_api, self.warnings, sound, rife)
        try:
            results.deliver(processed, self._videos(processed), self._others(processed))
        except Exception as error:
            errors.report("AnimateDiff could not finish its video", exc_info=True)
            self.warnings.append(f"AnimateDiff could not finish its video, so the frames are shown: {error!r}.")
        if after is None:
            self._stopwatch.record(self.p, self.scope.family.base, self.scope.windows, self.scope.windows_within)
        for warning in self.warnings:
            log.warning(warning)
            processed.comments += warning + "\n"
        for film in results.films:
            processed.comments += f"AnimateDiff saved {film}\n"
        if self._unfinished is not None:
            self._unfinished.delete()
        shared.state.textinfo = None  # whoever asks between two generations would still hear of this one

    def _tell_of_calls(self, processed: Any) -> str | None:
        """Where the job had been cut off before, if it had."""
        if (calls := self.scope.calls) is None:
            return None
        self.warnings += resume_store.warnings(calls)
        if calls.resumed_after is not None:
            processed.comments += f"AnimateDiff went on after {calls.resumed_after}.\n"
            facts = {"AnimateDiff went on after": calls.resumed_after}
            processed.extra_generation_params = {**processed.extra_generation_params, **facts}
        return calls.resumed_after

    def _videos(self, processed: Any) -> list[Video]:
        """One video per iteration; the WebUI's infotexts and seeds run through the frames of all."""
        videos = []
        infotexts = iter(processed.infotexts)
        for iteration, finished in sorted(self._finished.items()):
            frames = [holder.image for holder in finished]
            row = iteration * self.params.video_length
            video = Video(frames, [next(infotexts) for _ in frames], row, processed.all_seeds[row])
            video.seams = self._seams(frames) if self.scope.windows.needed else None
            videos.append(video)
        return videos

    def _seams(self, frames: list[Image.Image]) -> dict[str, Any]:
        steps, closing = changes_of([np.asarray(frame.convert("RGB")) for frame in frames])
        borders = self.scope.windows.boundaries()
        return {"steps": [round(step, 2) for step in steps], "closing": round(closing, 2), "borders": borders}

    def _others(self, processed: Any) -> list[Image.Image]:
        """Pictures of the answer that are no frames, such as masks."""
        frames = {id(holder.image) for finished in self._finished.values() for holder in finished}
        return [image for image in processed.images if id(image) not in frames]
