"""The state of the WebUI that must be the same before and after a job that cleans up after itself."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
from modules import (
    paths,
    processing,
    script_callbacks,
    scripts,
    sd_models,
    sd_samplers,
    sd_samplers_cfg_denoiser,
    sd_samplers_common,
    sd_samplers_kdiffusion,
    sd_samplers_timesteps,
    shared,
)

from webui_probe import webuis

WATCHED_MODULES: tuple[ModuleType, ...] = (sd_samplers, sd_models, processing)
WATCHED_CLASSES: tuple[type, ...] = (
    processing.StableDiffusionProcessing,
    processing.StableDiffusionProcessingTxt2Img,
    processing.StableDiffusionProcessingImg2Img,
    scripts.ScriptRunner,
    webuis.text_encoder()[0],
    sd_samplers_common.Sampler,
    sd_samplers_cfg_denoiser.CFGDenoiser,
    sd_samplers_kdiffusion.KDiffusionSampler,
    sd_samplers_kdiffusion.CFGDenoiserKDiffusion,
    sd_samplers_timesteps.CompVisSampler,
    sd_samplers_timesteps.CFGDenoiserTimesteps,
    *webuis.classes_of_samplers(),
    *webuis.unet_classes(),
    *webuis.classes_of_layers(),
)

Table = dict[str, Any]


def digest(tensor: torch.Tensor) -> str:
    """Returns the SHA-256 of a tensor's bytes."""
    return hashlib.sha256(tensor.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


def functions_of(owner: ModuleType | type) -> Iterator[tuple[str, Any]]:
    """Yields every function and property that a module or class defines itself, by full name, since LDM and SGM share names."""
    prefix = f"{owner.__module__}.{owner.__qualname__}" if isinstance(owner, type) else owner.__name__
    for name, value in vars(owner).items():
        if callable(value) or isinstance(value, (property, classmethod, staticmethod)):
            yield f"{prefix}.{name}", value


def function_table(owners: tuple[ModuleType, ...] | tuple[type, ...]) -> Table:
    """Returns name and object of every function of the owners."""
    return {name: value for owner in owners for name, value in functions_of(owner)}


def changed_names(before: Table, now: Table) -> list[str]:
    """Returns the names that were added, removed, or now refer to another object."""
    absent = object()
    return sorted(name for name in before | now if before.get(name, absent) is not now.get(name, absent))


def comes_from_extension(function: Any) -> bool:
    """Returns whether a function's code is in an extension's folder. That detects patches older than the probe."""
    code = getattr(function, "__code__", None)
    return code is not None and code.co_filename.startswith(paths.extensions_dir)


class Identity:
    """Remembers the state at start-up, and the noise schedules of each model at the time when it was loaded."""

    def __init__(self) -> None:
        self._functions = function_table(WATCHED_MODULES)
        self._methods = function_table(WATCHED_CLASSES)
        self._schedules: weakref.WeakKeyDictionary[Any, dict[str, torch.Tensor]] = weakref.WeakKeyDictionary()

    def model_loaded(self, model: Any) -> None:
        """Stores the schedule tensors themselves, so that no new object can get their identity."""
        self._schedules[model] = webuis.schedules(model)

    def state(self) -> dict[str, Any]:
        """Returns the whole state."""
        return {
            "checkpoint": shared.sd_model.sd_checkpoint_info.name,
            "unet": unet_facts(webuis.unet()),
            "schedule": self._schedule_facts(shared.sd_model),
            "patched_functions": changed_names(self._functions, function_table(WATCHED_MODULES)),
            "patched_methods": changed_names(self._methods, function_table(WATCHED_CLASSES)),
            "extension_functions": extension_functions(),
            "callbacks": callback_counts(),
            "options": webuis.options_of_batching(),
        }

    def _schedule_facts(self, model: Any) -> dict[str, Any]:
        if model not in self._schedules:
            self.model_loaded(model)
        loaded = self._schedules[model]
        return {
            name: {"sha256": digest(tensor), "same_object": tensor is loaded.get(name)}
            for name, tensor in webuis.schedules(model).items()
        }


def unet_facts(unet: torch.nn.Module) -> dict[str, Any]:
    """Returns the hooks and replaced methods of the UNet, and its layout."""
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
    """Returns the watched functions whose code is an extension's, no matter when they were replaced."""
    table = function_table(WATCHED_MODULES) | function_table(WATCHED_CLASSES)
    return sorted(name for name, function in table.items() if comes_from_extension(function))


def callback_counts() -> dict[str, int]:
    """Returns the number of callbacks of each of the WebUI's events."""
    return {name: len(listeners) for name, listeners in script_callbacks.callback_map.items() if listeners}
