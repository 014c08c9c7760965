import torch
from PIL import Image

def single_sample_to_image(sample: torch.Tensor, approximation: int | None = None) -> Image.Image: ...
