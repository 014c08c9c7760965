"""Stands in for `modules.sd_samplers_cfg_denoiser`: batches the UNet's calls, and applies classifier-free guidance."""

from __future__ import annotations

from typing import Any

import torch
from modules import prompt_parser, script_callbacks, shared
from modules.sd_samplers_common import InterruptedException, apply_refiner
from modules.shared import opts, state
from torch import nn


class CFGDenoiser(nn.Module):
    """The denoiser that the sampling functions call."""

    def __init__(self, sampler: Any) -> None:
        super().__init__()
        self.sampler = sampler
        self.p: Any = None
        self.model_wrap: Any = None
        self.init_latent: torch.Tensor | None = None
        """What img2img starts from."""
        self.step = 0
        self.total_steps = 0

    @property
    def inner_model(self) -> nn.Module:
        raise NotImplementedError

    def timestep_of(self, sigma: torch.Tensor) -> float:
        raise NotImplementedError

    def get_pred_x0(self, x: torch.Tensor, out: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return out

    def update_inner_model(self) -> None:
        """Rebuilds what depends on the checkpoint, after that has changed."""
        self.model_wrap = None
        self.sampler.sampler_extra_args |= dict(zip(("cond", "uncond"), self.p.get_conds()))

    def forward(
        self, x: torch.Tensor, sigma: torch.Tensor, uncond: Any, cond: Any, cond_scale: float, s_min_uncond: float, **_: Any
    ) -> torch.Tensor:
        """Denoises `x` `(pictures, 4, height, width)`. The UNet gets the parts of each picture in turn, then the negatives."""
        if state.interrupted or state.skipped:
            raise InterruptedException
        if apply_refiner(self, sigma):
            cond, uncond = (self.sampler.sampler_extra_args[name] for name in ("cond", "uncond"))
        parts, text = prompt_parser.reconstruct_multicond_batch(cond, self.step)
        negative = prompt_parser.reconstruct_cond_batch(uncond, self.step)
        picture_of_row = [picture for picture, of in enumerate(parts) for _ in of] + list(range(len(x)))
        params = script_callbacks.CFGDenoiserParams(
            x[picture_of_row], sigma[picture_of_row], state.sampling_step, state.sampling_steps, text, negative, self
        )
        script_callbacks.call("cfg_denoiser", params)
        skip = self._skips_negative(sigma, s_min_uncond)
        out = self._call_unet(params.x, params.sigma, params.text_cond, params.text_uncond, len(x), skip)
        if skip:  # the first part of each picture stands in for its negative
            out = torch.cat([out, out[[of[0][0] for of in parts]]])
        denoised = self.combine_denoised(out, parts, negative, 1.0 if skip else cond_scale)
        self.sampler.last_latent = state.current_latent = self.get_pred_x0(x, denoised, sigma)
        self.step += 1
        return denoised

    def _skips_negative(self, sigma: torch.Tensor, s_min_uncond: float) -> bool:
        infotext = self.p.extra_generation_params
        if opts.skip_early_cond and self.step / self.total_steps <= opts.skip_early_cond:
            infotext["Skip Early CFG"] = opts.skip_early_cond
            return True
        every_step_or_odd = opts.s_min_uncond_all or self.step % 2 == 1
        if every_step_or_odd and s_min_uncond > 0 and bool((sigma < s_min_uncond).all()):
            infotext["NGMS"] = s_min_uncond
            return True
        return False

    def _call_unet(
        self, x: torch.Tensor, sigma: torch.Tensor, text: torch.Tensor, negative: torch.Tensor, pictures: int, skip: bool
    ) -> torch.Tensor:
        """Runs the UNet on all rows, in as few calls as the settings and the lengths of the texts allow."""
        if opts.pad_cond_uncond and text.shape[1] != negative.shape[1]:
            text, negative = self._padded(text, negative)
        if skip:
            x, sigma, groups = x[: len(text)], sigma[: len(text)], [text]
        elif text.shape[1] == negative.shape[1]:
            groups = [torch.cat([text, negative])]
        else:
            groups = [text, negative]
        together = opts.batch_cond_uncond
        if len(groups) == 1:
            most = [len(x) if together else pictures]
        else:
            most = [2 * pictures if together else pictures, len(negative)]
        out, first = [], 0
        for group, size in zip(groups, most):
            for start in range(0, len(group), size):
                context = group[start : start + size]
                rows = slice(first + start, first + start + len(context))
                out.append(self.inner_model(x[rows], sigma[rows], cond={"c_crossattn": [context]}))
            first += len(group)
        return torch.cat(out)

    def _padded(self, text: torch.Tensor, negative: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pads the shorter one with the empty prompt."""
        empty = shared.sd_model.get_learned_conditioning([""])
        length = max(text.shape[1], negative.shape[1])

        def pad(context: torch.Tensor) -> torch.Tensor:
            times = (length - context.shape[1]) // empty.shape[1]
            return torch.cat([context, empty.repeat(len(context), times, 1)], dim=1)

        return pad(text), pad(negative)

    def combine_denoised(
        self, x_out: torch.Tensor, conds_list: list[list[tuple[int, float]]], uncond: Any, cond_scale: float
    ) -> torch.Tensor:
        negative = x_out[-len(conds_list) :]
        steered = [
            base + sum((x_out[row] - base) * (weight * cond_scale) for row, weight in of)
            for base, of in zip(negative, conds_list)
        ]
        return torch.stack(steered)
