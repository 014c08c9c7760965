"""Stands in for `modules.sd_unet`: replaces the checkpoint's UNet by a chosen one, such as a TensorRT engine."""

from __future__ import annotations

from typing import Any

from ldm.modules.diffusionmodules.openaimodel import UNetModel
from modules import shared
from torch import nn

unet_options: list[SdUnetOption] = []
current_unet_option: SdUnetOption | None = None
current_unet: SdUnet | None = None
_own_forward = UNetModel.forward


class SdUnetOption:
    label: str = ""
    model_name: str = ""

    def create_unet(self) -> SdUnet:
        raise NotImplementedError


class SdUnet(nn.Module):
    pass


def get_unet_option(option: str | None = None) -> SdUnetOption | None:
    label = option or shared.opts.sd_unet
    return next((entry for entry in unet_options if entry.label == label), None)


def apply_unet(option: str | None = None) -> None:
    global current_unet, current_unet_option
    chosen = get_unet_option(option)
    if chosen is not current_unet_option:
        current_unet_option = chosen
        current_unet = chosen.create_unet() if chosen else None


def _chosen_forward(unet: nn.Module, *args: Any, **kwargs: Any) -> Any:
    return _own_forward(unet, *args, **kwargs) if current_unet is None else current_unet.forward(*args, **kwargs)


UNetModel.forward = _chosen_forward
