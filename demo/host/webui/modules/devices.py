"""Stands in for `modules.devices`: the device, and its dtype (float16 on CUDA and float32 elsewhere, unless `dtype` names one).

Nothing is autocast, as in the WebUI with `--precision half`: all of the model has this dtype, and so has what goes into it.
"""

from __future__ import annotations

import torch
from modules.shared_cmd_options import cmd_opts

cpu = torch.device("cpu")
device = torch.device("cuda") if torch.cuda.is_available() else cpu
dtype: torch.dtype = getattr(torch, cmd_opts.dtype or ("float16" if device.type == "cuda" else "float32"))
dtype_unet = dtype
dtype_vae = torch.float32
"""Its autoencoder overflows in half precision on some pictures, which the WebUI decodes once more in this dtype."""
