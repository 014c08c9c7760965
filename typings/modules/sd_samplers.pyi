import torch
from PIL import Image

def samples_to_image_grid(samples: torch.Tensor, approximation: int | None = None) -> Image.Image: ...
