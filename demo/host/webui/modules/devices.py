"""Stands in for `modules.devices`: the device, and its precision (half on CUDA unless `no_half` is set, otherwise single)."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch
from modules.shared_cmd_options import cmd_opts

cpu = torch.device("cpu")
device = torch.device("cuda") if torch.cuda.is_available() else cpu
dtype = dtype_unet = torch.float16 if device.type == "cuda" and not cmd_opts.no_half else torch.float32


def autocast() -> AbstractContextManager[None]:
    return torch.autocast(device.type) if dtype == torch.float16 else contextlib.nullcontext()
