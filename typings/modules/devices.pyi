import torch

device: torch.device
dtype_unet: torch.dtype
