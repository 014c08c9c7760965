from typing import Any

from PIL import Image

class Processed:
    images: list[Image.Image]
    infotexts: list[str]
    info: str
    comments: str
    index_of_first_image: int
    all_prompts: list[str]
    all_negative_prompts: list[str]
    all_seeds: list[int]
    all_subseeds: list[int]
    extra_generation_params: dict[str, Any]
    def __init__(self, p: Any, images_list: list[Image.Image]) -> None: ...
    def infotext(self, p: Any, index: int) -> str: ...
