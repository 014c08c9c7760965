from collections.abc import Callable
from typing import Any

from PIL import Image

callback_map: dict[str, list[Any]]

class BeforeTokenCounterParams:
    prompt: str
    def __init__(self, prompt: str, steps: int, styles: list[str], *, is_positive: bool = True) -> None: ...

class ImageSaveParams:
    image: Image.Image
    filename: str
    pnginfo: dict[str, str]
    def __init__(self, image: Image.Image, p: Any, filename: str, pnginfo: dict[str, str]) -> None: ...

def add_callback(callbacks: list[Any], fun: Callable[..., Any], *, category: str, filename: str) -> None: ...
def before_image_saved_callback(params: ImageSaveParams) -> None: ...
def before_token_counter_callback(params: BeforeTokenCounterParams) -> None: ...
def image_saved_callback(params: ImageSaveParams) -> None: ...
