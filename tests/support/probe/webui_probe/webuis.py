"""Where each WebUI has what the probe looks at."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from modules import sd_models, shared
from torch import Tensor

FORGE, REFORGE = (importlib.util.find_spec(name) is not None for name in ("backend", "ldm_patched"))


def _module(name: str) -> ModuleType | None:
    """Returns a module of the WebUI; None where it has none of that name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None


def _classes(module: str, *names: str) -> list[type]:
    found = _module(module)
    return [getattr(found, name) for name in names if hasattr(found, name)]


def holder() -> Any:
    """Returns the object that has the loaded UNet as `diffusion_model`."""
    model = shared.sd_model
    return model.forge_objects.unet.model if hasattr(model, "forge_objects") else model.model


def unet() -> Any:
    """Returns the loaded UNet."""
    return holder().diffusion_model


def unet_classes() -> list[type]:
    """Returns the classes of UNets: that of Stable Diffusion 1 and 2, and in some WebUIs another one of SDXL."""
    if FORGE:
        return _classes("backend.nn.unet", "IntegratedUNet2DConditionModel")
    if REFORGE:
        return _classes("ldm_patched.ldm.modules.diffusionmodules.openaimodel", "UNetModel")
    return [
        *_classes("ldm.modules.diffusionmodules.openaimodel", "UNetModel"),
        *_classes("sgm.modules.diffusionmodules.openaimodel", "UNetModel"),
    ]


def classes_of_layers() -> list[type]:
    """Returns the classes of the UNet's blocks and layers."""
    if FORGE:
        return _classes("backend.nn.unet", "TimestepEmbedSequential", "ResBlock", "SpatialTransformer")
    if REFORGE:
        package = "ldm_patched.ldm.modules"
        blocks = _classes(f"{package}.diffusionmodules.openaimodel", "TimestepEmbedSequential", "ResBlock")
        return [*blocks, *_classes(f"{package}.attention", "SpatialTransformer")]
    return [
        found
        for package in ("ldm.modules", "sgm.modules")
        for found in (
            *_classes(f"{package}.diffusionmodules.openaimodel", "TimestepEmbedSequential", "ResBlock"),
            *_classes(f"{package}.attention", "SpatialTransformer"),
            *_classes(f"{package}.diffusionmodules.util", "GroupNorm32"),
        )
    ]


def classes_of_samplers() -> list[type]:
    """Returns the classes between k-diffusion's samplers and the model."""
    return _classes("k_diffusion.external", "DiscreteEpsDDPMDenoiser", "CompVisDenoiser", "ForgeScheduleLinker")


def text_encoder() -> tuple[type, str]:
    """Returns a class, and its method that encodes prompts."""
    if FORGE:
        return _classes("backend.text_processing.classic_engine", "ClassicTextProcessingEngine")[0], "__call__"
    return _classes("modules.sd_hijack_clip", "FrozenCLIPEmbedderWithCustomWordsBase")[0], "forward"


def vae_encoder() -> type:
    """Returns the class of the VAE's encoder."""
    if FORGE:
        return _classes("backend.nn.vae", "Encoder")[0]
    package = "ldm_patched.ldm" if REFORGE else "ldm"
    return _classes(f"{package}.modules.diffusionmodules.model", "Encoder")[0]


def _sigmas() -> Any:
    """Returns the module with the sigmas of a model in a patcher."""
    inner = holder()
    return inner.predictor if FORGE else inner.model_sampling


def schedules(model: Any) -> dict[str, Tensor]:
    """Returns the noise schedules of a model, by name."""
    if hasattr(model, "forge_objects"):
        inner = model.forge_objects.unet.model
        found = {"sigmas": (inner.predictor if FORGE else inner.model_sampling).sigmas}
        return found | ({"alphas_cumprod": model.alphas_cumprod} if REFORGE else {})
    return {name: getattr(model, name) for name in ("alphas_cumprod", "alphas_cumprod_original")}


def alphas_cumprod() -> Tensor:
    """Returns the noise schedule in use."""
    return 1 / (_sigmas().sigmas ** 2 + 1) if FORGE else shared.sd_model.alphas_cumprod


def lend_schedule(alphas: Tensor) -> Callable[[], None]:
    """Gives the loaded model another noise schedule. Returns what gives it its own again."""
    model = shared.sd_model
    if not (FORGE or REFORGE):
        own = model.alphas_cumprod_original, model.alphas_cumprod
        model.alphas_cumprod_original = alphas
        sd_models.apply_alpha_schedule_override(model)

        def undo() -> None:
            model.alphas_cumprod_original, model.alphas_cumprod = own

        return undo
    sigmas = _sigmas()
    tables = {name: getattr(sigmas, name) for name in ("sigmas", "log_sigmas")}
    of_model = getattr(model, "alphas_cumprod", None)
    sigmas.set_sigmas(((1 - alphas) / alphas).sqrt())
    if REFORGE:
        model.alphas_cumprod = alphas.to(of_model)

    def undo() -> None:
        for name, table in tables.items():
            sigmas.register_buffer(name, table)
        if REFORGE:
            model.alphas_cumprod = of_model

    return undo


def options_of_batching() -> dict[str, Any]:
    """Returns the settings of the WebUI that decide how a batch is split over UNet calls."""
    return {name: getattr(shared.opts, name, None) for name in ("batch_cond_uncond", "pad_cond_uncond")}


def text_width(network: torch.nn.Module) -> int:
    """Returns how wide the text conditions of a UNet are."""
    width: int = network.input_blocks[4][1].transformer_blocks[0].attn2.to_k.weight.shape[1]
    return width
