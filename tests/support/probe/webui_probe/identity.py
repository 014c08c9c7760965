"""Is the WebUI as it was? Facts that must be the same before and after a job that cleans up behind itself."""

from __future__ import annotations

import hashlib
import importlib.util
import weakref
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
from k_diffusion import external
from ldm.modules.attention import SpatialTransformer
from ldm.modules.diffusionmodules import openaimodel
from ldm.modules.diffusionmodules.util import GroupNorm32
from modules import (
    paths,
    processing,
    script_callbacks,
    scripts,
    sd_hijack_clip,
    sd_models,
    sd_samplers,
    sd_samplers_cfg_denoiser,
    sd_samplers_common,
    sd_samplers_kdiffusion,
    sd_samplers_timesteps,
    shared,
)


def classes_of_sdxl() -> tuple[type, ...]:
    """Those of its UNet, which only the WebUI has."""
    if importlib.util.find_spec("sgm") is None:
        return ()
    from sgm.modules import attention
    from sgm.modules.diffusionmodules import openaimodel, util

    return (
        openaimodel.UNetModel,
        openaimodel.TimestepEmbedSequential,
        openaimodel.ResBlock,
        attention.SpatialTransformer,
        util.GroupNorm32,
    )


WATCHED_MODULES: tuple[ModuleType, ...] = (sd_samplers, sd_models, processing)
WATCHED_CLASSES: tuple[type, ...] = (
    processing.StableDiffusionProcessing,
    processing.StableDiffusionProcessingTxt2Img,
    processing.StableDiffusionProcessingImg2Img,
    scripts.ScriptRunner,
    sd_hijack_clip.FrozenCLIPEmbedderWithCustomWordsBase,
    sd_samplers_common.Sampler,
    sd_samplers_cfg_denoiser.CFGDenoiser,
    sd_samplers_kdiffusion.KDiffusionSampler,
    sd_samplers_kdiffusion.CFGDenoiserKDiffusion,
    sd_samplers_timesteps.CompVisSampler,
    sd_samplers_timesteps.CFGDenoiserTimesteps,
    external.DiscreteEpsDDPMDenoiser,
    external.CompVisDenoiser,
    openaimodel.UNetModel,
    openaimodel.TimestepEmbedSequential,
    openaimodel.ResBlock,
    SpatialTransformer,
    GroupNorm32,
    *classes_of_sdxl(),
)
SCHEDULES = ("alphas_cumprod", "alphas_cumprod_original")

Table = dict[str, Any]


def digest(tensor: torch.Tensor) -> str:
    """sha256 of a tensor's bytes."""
    return hashlib.sha256(tensor.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


def functions_of(owner: ModuleType | type) -> Iterator[tuple[str, Any]]:
    """Everything callable or computed that stands directly in a module or class, by its full name: LDM and SGM share others."""
    place = f"{owner.__module__}.{owner.__qualname__}" if isinstance(owner, type) else owner.__name__
    for name, value in vars(owner).items():
        if callable(value) or isinstance(value, (property, classmethod, staticmethod)):
            yield f"{place}.{name}", value


def function_table(owners: tuple[ModuleType, ...] | tuple[type, ...]) -> Table:
    """Name and object of every function of the owners."""
    return {name: value for owner in owners for name, value in functions_of(owner)}


def changed_names(before: Table, now: Table) -> list[str]:
    """Names that were added, removed, or stand for another object."""
    absent = object()
    return sorted(name for name in before | now if before.get(name, absent) is not now.get(name, absent))


def comes_from_extension(function: Any) -> bool:
    """Whether the code of a function lies in an extension's folder: a patch older than the probe itself."""
    code = getattr(function, "__code__", None)
    return code is not None and code.co_filename.startswith(paths.extensions_dir)


class Identity:
    """Remembers how things were at start-up, and each model's noise schedules as they were when it was loaded."""

    def __init__(self) -> None:
        self._functions = function_table(WATCHED_MODULES)
        self._methods = function_table(WATCHED_CLASSES)
        self._schedules: weakref.WeakKeyDictionary[torch.nn.Module, list[torch.Tensor]] = weakref.WeakKeyDictionary()

    def model_loaded(self, model: torch.nn.Module) -> None:
        """Notes the schedule objects; they are kept alive, so that no other object can take their identity."""
        self._schedules[model] = [getattr(model, name) for name in SCHEDULES]

    def state(self) -> dict[str, Any]:
        """All facts at once."""
        return {
            "checkpoint": shared.sd_model.sd_checkpoint_info.name,
            "unet": unet_facts(shared.sd_model.model.diffusion_model),
            "schedule": self._schedule_facts(shared.sd_model),
            "patched_functions": changed_names(self._functions, function_table(WATCHED_MODULES)),
            "patched_methods": changed_names(self._methods, function_table(WATCHED_CLASSES)),
            "extension_functions": extension_functions(),
            "callbacks": callback_counts(),
            "options": {name: getattr(shared.opts, name) for name in ("batch_cond_uncond", "pad_cond_uncond")},
        }

    def _schedule_facts(self, model: torch.nn.Module) -> dict[str, Any]:
        if model not in self._schedules:
            self.model_loaded(model)
        loaded = zip(SCHEDULES, self._schedules[model])
        return {
            name: {"sha256": digest(getattr(model, name)), "same_object": getattr(model, name) is tensor}
            for name, tensor in loaded
        }


def unet_facts(unet: torch.nn.Module) -> dict[str, Any]:
    """What somebody may have hung into the UNet."""
    modules = dict(unet.named_modules())
    layout = "\n".join(f"{name} {type(module).__qualname__}" for name, module in modules.items())
    return {
        "forward_hooks": sum(len(module._forward_hooks) for module in modules.values()),
        "forward_pre_hooks": sum(len(module._forward_pre_hooks) for module in modules.values()),
        "instance_forwards": [name for name, module in modules.items() if "forward" in vars(module)],
        "modules": len(modules),
        "layout_sha256": hashlib.sha256(layout.encode()).hexdigest(),
    }


def extension_functions() -> list[str]:
    """Watched functions whose code is an extension's, whenever they were put there."""
    table = function_table(WATCHED_MODULES) | function_table(WATCHED_CLASSES)
    return sorted(name for name, function in table.items() if comes_from_extension(function))


def callback_counts() -> dict[str, int]:
    """How many functions listen to each of the WebUI's events."""
    return {name: len(listeners) for name, listeners in script_callbacks.callback_map.items() if listeners}
