"""Makes the pictures of a subject again: by a generation of img2img with AnimateDiff, within that of the clip."""

from __future__ import annotations

import copy
import dataclasses
from contextlib import closing
from typing import Any

from modules import extra_networks, processing, shared
from PIL import Image

from motion_module.keyframe_lines import read_lines
from motion_module.patching import patched

from ..controlnet import control as controlnet
from ..controlnet.pictures import origin_of
from ..controlnet.script import TITLE as CONTROLNET
from ..interrupt import is_interrupted
from ..job.loras import has_schedule
from ..request.params import FIELDS, LENGTH, MAIN, MOTION, NOISE, TRAVEL, WINDOWS, Params, option_of
from ..request.plan import Plan
from .crops import Crops
from .part import mark

OURS = "animatediff"
COPIED = (
    *("sampler_name", "scheduler", "subseed_strength", "eta", "tiling", "distilled_cfg_scale"),
    *("s_churn", "s_tmin", "s_tmax", "s_noise", "s_min_uncond"),
)
"""The attributes that a generation has from that of the clip, where the WebUI knows them."""
MOTION_GROUPS = (MAIN, LENGTH, MOTION, TRAVEL)
MOTION_SECTIONS = (WINDOWS, NOISE)
MOTION_SCHEDULES = ("motion_scale_frames", "motion_effect_frames")


class Nested:
    """Generations for the subjects of one video. `row`: that of its first frame among the rows of the clip's generation."""

    def __init__(self, p: Any, plan: Plan, processed: Any, row: int) -> None:
        rows = slice(row, row + plan.frames)
        params = plan.params
        self._p = p
        self._plan = plan
        self._prompts = [params.detail_prompt] * plan.frames if params.detail_prompt else processed.all_prompts[rows]
        negative = params.detail_negative_prompt
        self._negatives = [negative] * plan.frames if negative else processed.all_negative_prompts[rows]
        self._seed, self._subseed = int(processed.all_seeds[row]), int(processed.all_subseeds[row])
        self._made = 0

    @property
    def travels(self) -> bool:
        """Whether a prompt, a LoRA in it or a schedule has keyframes, which count the frames of the whole video."""
        if any(getattr(self._plan.params, name) for name in MOTION_SCHEDULES):
            return True
        texts = {*self._prompts, *self._negatives}
        if any(has_schedule(extra_networks.parse_prompts([text])[1]) for text in {*self._prompts}):
            return True
        return any(line.positions for text in texts for line in read_lines(text, self._plan.frames))

    def make(self, crops: Crops, pictures: list[Image.Image], text: str) -> list[Image.Image] | None:
        """Returns the pictures made again as one clip; None if that was interrupted. Raises what ends a generation."""
        shared.state.job_count += 1
        p = self._generation(crops, pictures)
        mark(p, text)
        with closing(p), patched(shared.cmd_opts, "no_prompt_history", True):
            processed = processing.process_images(p)
        self._made += 1
        return None if is_interrupted() else processed.images[: len(pictures)]

    def _generation(self, crops: Crops, pictures: list[Image.Image]) -> Any:
        params = self._plan.params
        frames = slice(crops.first, crops.first + len(crops))
        p: Any = processing.StableDiffusionProcessingImg2Img(
            prompt=_one_or_all(self._prompts[frames]),
            negative_prompt=_one_or_all(self._negatives[frames]),
            seed=self._seed + self._made,  # each subject has noise of its own
            subseed=self._subseed + self._made,
            init_images=pictures,
            width=crops.made[0],
            height=crops.made[1],
            steps=params.detail_steps or self._p.steps,
            cfg_scale=params.detail_cfg or self._p.cfg_scale,
            denoising_strength=params.detail_strength,
            do_not_save_samples=True,
            do_not_save_grid=True,
        )
        for name in COPIED:
            if hasattr(self._p, name):
                setattr(p, name, getattr(self._p, name))
        p.cached_c, p.cached_uc = [None, None], [None, None]
        p.is_api, p.outpath_samples = True, self._p.outpath_samples
        p.script_args = self._arguments(pictures)
        p.scripts = self._scripts()
        return p

    def _scripts(self) -> Any:
        """Returns the WebUI's runner with our script, and ControlNet's if it is wanted: others would act twice on the clip."""
        wanted = {OURS, CONTROLNET} if self._plan.params.detail_controlnet else {OURS}
        runner = copy.copy(self._p.scripts)
        runner.alwayson_scripts = [script for script in runner.alwayson_scripts if script.title().lower() in wanted]
        runner.callback_map = {}  # what the WebUI's own runner has found out about its scripts
        return runner

    def _arguments(self, pictures: list[Image.Image]) -> tuple[Any, ...]:
        """Returns the arguments of all scripts of the tab, in which none is chosen by name, and ours has its own request."""
        arguments = list(self._p.script_args)
        arguments[0], arguments[self._script(OURS).args_from] = 0, request(self._plan.params, len(pictures))
        if self._plan.params.detail_controlnet:
            for number, unit in controlnet.enabled_units(self._p):
                if origin_of(unit, Params(), [*pictures, *pictures]) != "img2img":  # its picture is not of the subject
                    place = self._script(CONTROLNET).args_from + number
                    arguments[place] = switched_off(arguments[place])
        return tuple(arguments)

    def _script(self, title: str) -> Any:
        return next(script for script in self._p.scripts.alwayson_scripts if script.title().lower() == title)


def request(params: Params, frames: int) -> dict[str, Any]:
    """Returns the request for the clip of a subject: the clip's own as far as its motion goes.

    A subject stays where it is in its crops, so all frames get the same noise: what is drawn anew keeps its place on it. Masks
    of where motion acts are those of the whole picture.
    """
    kept = {field.name: getattr(params, field.name) for field in FIELDS if _concerns_motion(field)}
    closed_loop = params.closed_loop if frames == params.video_length else "N"
    own = {"enable": True, "video_length": frames, "format": ["Frame"], "closed_loop": closed_loop, "noise_type": "constant"}
    whole_picture = {"motion_mask": None, "motion_mask_path": ""}
    return {**kept, **own, **whole_picture, "family": params.family}


def switched_off(unit: Any) -> Any:
    """Returns a copy of an argument for one of ControlNet's units that is not enabled."""
    if isinstance(unit, dict):
        return {**unit, "enabled": False}
    unit = copy.copy(unit)
    unit.enabled = False
    return unit


def _concerns_motion(field: dataclasses.Field[Any]) -> bool:
    option = option_of(field)
    return option.group in MOTION_GROUPS or option.section in MOTION_SECTIONS or field.name in MOTION_SCHEDULES


def _one_or_all(prompts: list[str]) -> Any:
    """Returns the prompt that all frames have, or a list where a script has given each its own."""
    return prompts[0] if len(set(prompts)) == 1 else list(prompts)
