"""The WebUIs that AnimateDiff runs in. They differ in how they hold and call the loaded checkpoint.

Which WebUI it is, is known by its loaded checkpoint, not by a version. Nothing outside of this folder depends on it.
"""

from __future__ import annotations

from typing import Any

from ..errors import RequestError
from .forge import Forge
from .ldm import Ldm
from .protocol import Host
from .reforge import ReForge

SDXL_BLOCKS = 9
"""The number of input blocks of SDXL's UNet."""
REFINER = "the SDXL refiner"
HOSTS: tuple[Host, ...] = (Forge(), ReForge(), Ldm())


def of(model: Any) -> Host:
    """Returns what knows how the WebUI holds `model`, its loaded checkpoint. Raises RequestError for an unknown WebUI."""
    for host in HOSTS:
        if host.holds(model):
            return host
    raise RequestError(
        f"AnimateDiff does not know how this WebUI holds its checkpoint ({type(model).__module__}.{type(model).__name__}). "
        "Use AUTOMATIC1111, reForge, Forge or Forge Neo, or update AnimateDiff."
    )


def is_loaded(model: Any) -> bool:
    """Whether `model` is a checkpoint: Forge has a stand-in until the first generation."""
    return any(host.holds(model) for host in HOSTS)


def kind_of(model: Any) -> str:
    """Returns the kind of a loaded checkpoint. WebUIs take SDXL's refiner for SDXL, but its UNet has one more level."""
    if getattr(model, "is_sdxl", False) and len(of(model).unet(model).input_blocks) > SDXL_BLOCKS:
        return REFINER
    flags = {"is_sdxl": "SDXL", "is_sd2": "Stable Diffusion 2", "is_sd3": "Stable Diffusion 3", "is_sd1": "SD 1.5"}
    return next((kind for flag, kind in flags.items() if getattr(model, flag, False)), "of an unknown kind")
