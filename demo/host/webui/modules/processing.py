"""Stands in for `modules.processing`: the requests of txt2img and img2img, and the loop that generates pictures."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import networks
import numpy as np
import torch
from modules import devices, extra_networks, images, prompt_parser, rng, scripts, sd_models, sd_samplers, sd_unet, shared
from modules.infotext_utils import create_infotext
from modules.shared import opts, state
from PIL import Image

LATENT_SIDE = 8
"""Pixels per latent, along each side."""
HIRES_LATENT_MODES = {"Latent": "bilinear", "Latent (nearest)": "nearest", "Latent (bicubic)": "bicubic"}
HIRES_PICTURE_MODES = {"None": Image.Resampling.LANCZOS, "Lanczos": Image.Resampling.LANCZOS}


class DecodedSamples(list):
    """The result of a `sample` that has decoded the latents already."""


@dataclass(repr=False)
class StableDiffusionProcessing:
    sd_model: Any = None
    prompt: Any = ""
    negative_prompt: Any = ""
    seed: int = -1
    subseed: int = -1
    subseed_strength: float = 0.0
    sampler_name: str = "Euler a"
    scheduler: str | None = None
    batch_size: int = 1
    n_iter: int = 1
    steps: int = 20
    cfg_scale: float = 7.0
    width: int = 512
    height: int = 512
    do_not_save_samples: bool = False
    do_not_save_grid: bool = False
    extra_generation_params: dict[str, Any] = field(default_factory=dict)
    override_settings: dict[str, Any] = field(default_factory=dict)
    override_settings_restore_afterwards: bool = True
    refiner_checkpoint: str | None = None
    refiner_switch_at: float = 0.0
    denoising_strength: float = 0.75

    scripts: Any = field(default=None, init=False)
    script_args: tuple[Any, ...] = field(default=(), init=False)
    outpath_samples: str = field(default="", init=False)
    sampler: Any = field(default=None, init=False)
    rng: Any = field(default=None, init=False)
    iteration: int = field(default=0, init=False)
    is_hr_pass: bool = field(default=False, init=False)
    is_api: bool = field(default=False, init=False)
    refiner_checkpoint_info: Any = field(default=None, init=False)
    comments: dict[str, int] = field(default_factory=dict, init=False)
    disable_extra_networks: bool = field(default=False, init=False)
    extra_network_data: dict[str, list[Any]] = field(default_factory=dict, init=False)
    c: Any = field(default=None, init=False)
    uc: Any = field(default=None, init=False)

    def comment(self, text: str) -> None:
        """Adds a message for the user, which is shown below the pictures."""
        self.comments[text] = 1

    def save_samples(self) -> bool:
        return bool(opts.samples_save) and not self.do_not_save_samples

    def setup_prompts(self) -> None:
        """Repeats a single prompt for each picture; a list of prompts determines the number of pictures."""
        count = self.batch_size * self.n_iter
        self.all_prompts = self.prompt if isinstance(self.prompt, list) else [self.prompt] * count
        negative = self.negative_prompt
        self.all_negative_prompts = negative if isinstance(negative, list) else [negative] * len(self.all_prompts)

    def setup_seeds(self) -> None:
        count = len(self.all_prompts)
        first, second = (random.randrange(2**32 - 2) if seed in (-1, None) else int(seed) for seed in (self.seed, self.subseed))
        self.all_seeds = [first + index for index in range(count)]
        self.all_subseeds = [second + index for index in range(count)]

    def parse_extra_network_prompts(self) -> None:
        self.prompts, self.extra_network_data = extra_networks.parse_prompts(self.prompts)

    def setup_conds(self) -> None:
        encode = shared.sd_model.get_learned_conditioning
        self.uc = prompt_parser.get_learned_conditioning(encode, self.negative_prompts, self.steps)
        self.c = prompt_parser.get_multicond_learned_conditioning(encode, self.prompts, self.steps)

    def get_conds(self) -> tuple[Any, Any]:
        return self.c, self.uc

    def rows_of_iteration(self, n: int) -> None:
        """Sets this iteration's prompts and seeds from the whole job's."""
        for name in ("prompts", "negative_prompts", "seeds", "subseeds"):
            setattr(self, name, getattr(self, f"all_{name}")[n * self.batch_size : (n + 1) * self.batch_size])
        self.rng = self._noise((4, self.height // LATENT_SIDE, self.width // LATENT_SIDE))

    def _noise(self, shape: Sequence[int]) -> rng.ImageRNG:
        return rng.ImageRNG(shape, self.seeds, self.subseeds, self.subseed_strength)

    def init(self, all_prompts: list[str], all_seeds: list[int], all_subseeds: list[int]) -> None:
        """Prepares the job, before the first iteration."""

    def sample(self, conditioning: Any, unconditional_conditioning: Any, **_: Any) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        self.sampler = self.c = self.uc = None


@dataclass(repr=False)
class StableDiffusionProcessingTxt2Img(StableDiffusionProcessing):
    enable_hr: bool = False
    hr_scale: float = 2.0
    hr_upscaler: str = "Latent"
    hr_second_pass_steps: int = 0
    hr_checkpoint_name: str | None = None

    hr_upscale_to_x: int = field(default=0, init=False)
    hr_upscale_to_y: int = field(default=0, init=False)

    def init(self, all_prompts: list[str], all_seeds: list[int], all_subseeds: list[int]) -> None:
        if not self.enable_hr:
            return
        if self.hr_upscaler not in {**HIRES_LATENT_MODES, **HIRES_PICTURE_MODES}:
            raise ValueError(f"The embedded host has no upscaler {self.hr_upscaler!r}.")
        self.hr_upscale_to_x, self.hr_upscale_to_y = (int(side * self.hr_scale) for side in (self.width, self.height))
        self.extra_generation_params |= {
            "Denoising strength": self.denoising_strength,
            "Hires upscale": self.hr_scale,
            "Hires upscaler": self.hr_upscaler,
        }

    def sample(self, conditioning: Any, unconditional_conditioning: Any, **_: Any) -> Any:
        self.sampler = sd_samplers.create_sampler(self.sampler_name, shared.sd_model)
        x = self.rng.next()
        self.scripts.process_before_every_sampling(self, x=x, noise=x, c=conditioning, uc=unconditional_conditioning)
        samples = self.sampler.sample(self, x, conditioning, unconditional_conditioning)
        if not self.enable_hr or state.interrupted:
            return samples
        return self._sample_hr_pass(samples)

    def _sample_hr_pass(self, samples: torch.Tensor) -> DecodedSamples:
        """Samples again from the enlarged result of the first pass, with the hires checkpoint if the request names one."""
        self.is_hr_pass = True
        height, width = (side // LATENT_SIDE for side in (self.hr_upscale_to_y, self.hr_upscale_to_x))
        pictures = None if self.hr_upscaler in HIRES_LATENT_MODES else to_pictures(shared.sd_model.decode_first_stage(samples))
        sd_models.reload_model_weights(info=sd_models.find_checkpoint(self.hr_checkpoint_name))
        self.sampler = sd_samplers.create_sampler(self.sampler_name, shared.sd_model)
        if pictures is None:
            samples = torch.nn.functional.interpolate(samples, size=(height, width), mode=HIRES_LATENT_MODES[self.hr_upscaler])
        else:
            size = width * LATENT_SIDE, height * LATENT_SIDE
            mode = HIRES_PICTURE_MODES[self.hr_upscaler]
            samples = encode_pictures([picture.resize(size, mode) for picture in pictures])
        self.rng = self._noise(samples.shape[1:])
        noise = self.rng.next()
        self.setup_conds()
        self.scripts.before_hr(self)
        self.scripts.process_before_every_sampling(self, x=samples, noise=noise, c=self.c, uc=self.uc)
        steps = self.hr_second_pass_steps or self.steps
        samples = self.sampler.sample_img2img(self, samples, noise, self.c, self.uc, steps=steps)
        self.is_hr_pass = False
        return DecodedSamples(shared.sd_model.decode_first_stage(samples))


@dataclass(repr=False)
class StableDiffusionProcessingImg2Img(StableDiffusionProcessing):
    init_images: list[Any] | None = None

    def init(self, all_prompts: list[str], all_seeds: list[int], all_subseeds: list[int]) -> None:
        """Builds the sampler here, as the WebUI does, which fixes the noise schedule."""
        self.sampler = sd_samplers.create_sampler(self.sampler_name, shared.sd_model)
        self.extra_generation_params["Denoising strength"] = self.denoising_strength
        size = self.width, self.height
        opaque = [images.flatten(picture, opts.img2img_background_color) for picture in self.init_images or []]
        pictures = [picture.resize(size, Image.Resampling.LANCZOS) for picture in opaque]
        if len(pictures) > self.batch_size:
            raise ValueError(f"img2img was given {len(pictures)} pictures for {self.batch_size} rows.")
        if len(pictures) == 1:
            self.init_latent = encode_pictures(pictures * self.batch_size)  # once for each row, as the WebUI does
        else:
            self.batch_size = len(pictures)
            self.init_latent = encode_pictures(pictures)

    def sample(self, conditioning: Any, unconditional_conditioning: Any, **_: Any) -> torch.Tensor:
        noise = self.rng.next()
        keywords = {"x": self.init_latent, "noise": noise, "c": conditioning, "uc": unconditional_conditioning}
        self.scripts.process_before_every_sampling(self, **keywords)
        return self.sampler.sample_img2img(self, self.init_latent, noise, conditioning, unconditional_conditioning)


class Processed:
    """The result of a request. The lists with an entry for each picture match `images`."""

    def __init__(self, p: StableDiffusionProcessing, images_list: list[Any], infotexts: list[str] | None = None) -> None:
        self.images = images_list
        self.infotexts = infotexts or [create_infotext(p, 0)]
        self.info = self.infotexts[0]
        self.comments = "\n".join([*p.comments, ""])
        self.extra_generation_params = p.extra_generation_params
        self.index_of_first_image = 0
        self.all_prompts, self.all_negative_prompts = p.all_prompts, p.all_negative_prompts
        self.all_seeds, self.all_subseeds = p.all_seeds, p.all_subseeds
        self.job_timestamp = state.job_timestamp
        self._facts = {
            name: getattr(p, name) for name in ("width", "height", "sampler_name", "cfg_scale", "steps", "batch_size")
        }

    def infotext(self, p: StableDiffusionProcessing, index: int) -> str:
        return create_infotext(p, index, of_job=True)

    def js(self) -> str:
        """Returns the `info` of the API's answer."""
        lists = ("all_prompts", "all_negative_prompts", "all_seeds", "all_subseeds")
        named = {name: getattr(self, name) for name in (*lists, "extra_generation_params", "infotexts", "job_timestamp")}
        firsts = {name: getattr(self, f"all_{name}s")[0] for name in ("prompt", "negative_prompt", "seed", "subseed")}
        return json.dumps({**firsts, **named, **self._facts, "index_of_first_image": self.index_of_first_image}, default=str)


def to_pictures(decoded: torch.Tensor) -> list[Image.Image]:
    """Converts values between -1 and 1 to pictures. Levels are truncated, not rounded, as in the WebUI."""
    levels = (torch.clamp((decoded + 1) / 2, 0, 1) * 255).permute(0, 2, 3, 1).cpu().numpy().astype(np.uint8)
    return [Image.fromarray(picture) for picture in levels]


def encode_pictures(pictures: list[Image.Image]) -> torch.Tensor:
    """Returns the latents of pictures of one size."""
    levels = torch.from_numpy(np.stack([np.asarray(picture, dtype=np.float32) for picture in pictures])) / 255
    return shared.sd_model.encode_first_stage(levels.permute(0, 3, 1, 2).to(devices.device) * 2 - 1)


def process_images(p: StableDiffusionProcessing) -> Processed:
    """Generates the pictures, with the settings that the request overrides."""
    p.scripts.before_process(p)
    before = dict(opts.data)
    try:
        for key, value in p.override_settings.items():
            opts.set(key, value, is_api=True, run_callbacks=False)
        sd_models.reload_model_weights()
        with torch.no_grad():
            return _process_images_inner(p)
    finally:
        if p.override_settings_restore_afterwards:
            for key in p.override_settings:
                opts.data.pop(key, None)
                opts.data.update({key: before[key]} if key in before else {})


def _process_images_inner(p: StableDiffusionProcessing) -> Processed:
    p.refiner_checkpoint_info = sd_models.find_checkpoint(p.refiner_checkpoint)
    p.setup_prompts()
    p.setup_seeds()
    p.scripts.process(p)
    p.init(p.all_prompts, p.all_seeds, p.all_subseeds)
    sd_unet.apply_unet()
    if state.job_count == -1:
        state.job_count = p.n_iter
    finished: list[Image.Image] = []
    infotexts: list[str] = []
    for n in range(p.n_iter):
        p.iteration = n
        state.skipped = False
        if state.interrupted or state.stopping_generation:
            break
        _make_batch(p, n, finished, infotexts)
    has_grid = opts.return_grid and not p.do_not_save_grid and len(finished) > 1
    if has_grid:
        infotexts.insert(0, create_infotext(p, 0))
        finished.insert(0, images.image_grid(finished, p.batch_size))
    processed = Processed(p, finished, infotexts)
    processed.index_of_first_image = int(has_grid)
    p.scripts.postprocess(p, processed)
    return processed


def _make_batch(p: StableDiffusionProcessing, n: int, finished: list[Image.Image], infotexts: list[str]) -> None:
    """Runs one iteration: prompts to conditions, noise to latents, latents to pictures."""
    sd_models.reload_model_weights()  # a refiner may have left its checkpoint loaded
    p.rows_of_iteration(n)
    named = {"batch_number": n, "prompts": p.prompts, "seeds": p.seeds, "subseeds": p.subseeds}
    p.scripts.before_process_batch(p, **named)
    p.parse_extra_network_prompts()
    named["prompts"] = p.prompts
    with networks.applied(p.extra_network_data.get("lora", [])):
        p.scripts.after_extra_networks_activate(p, **named, extra_network_data=p.extra_network_data)
        p.scripts.process_batch(p, **named)
        decoded = _sampled(p)
    state.nextjob()
    p.scripts.postprocess_batch(p, decoded, batch_number=n)
    p.prompts = p.all_prompts[n * p.batch_size : (n + 1) * p.batch_size]  # infotexts keep the prompt as it was typed
    batch = scripts.PostprocessBatchListArgs(list(decoded))
    p.scripts.postprocess_batch_list(p, batch, batch_number=n)
    saves = p.save_samples()
    for index, picture in enumerate(to_pictures(torch.stack(batch.images) * 2 - 1)):
        p.batch_index = index
        finished.append(_finish_picture(p, picture, index, saves))
        infotexts.append(create_infotext(p, index))


def _sampled(p: StableDiffusionProcessing) -> torch.Tensor:
    """Returns pictures `(rows, 3, height, width)` between 0 and 1."""
    p.setup_conds()
    sd_models.apply_alpha_schedule_override(shared.sd_model, p)
    samples = p.sample(
        conditioning=p.c,
        unconditional_conditioning=p.uc,
        seeds=p.seeds,
        subseeds=p.subseeds,
        subseed_strength=p.subseed_strength,
        prompts=p.prompts,
    )
    held = scripts.PostSampleArgs(samples)
    p.scripts.post_sample(p, held)
    samples = held.samples
    decoded = samples if isinstance(samples, DecodedSamples) else shared.sd_model.decode_first_stage(samples)
    return torch.clamp((torch.stack(list(decoded)).float() + 1) / 2, 0, 1)


def _finish_picture(p: StableDiffusionProcessing, picture: Image.Image, index: int, saves: bool) -> Image.Image:
    for hook in (p.scripts.postprocess_image, p.scripts.postprocess_image_after_composite):
        held = scripts.PostprocessImageArgs(picture)
        hook(p, held)
        picture = held.image
    infotext = create_infotext(p, index)
    if saves:
        images.save_image(picture, p.outpath_samples, p.seeds[index], infotext, p)
    if opts.enable_pnginfo:
        picture.info["parameters"] = infotext
    return picture
