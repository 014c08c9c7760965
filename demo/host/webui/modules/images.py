"""Stands in for `modules.images`: saves pictures with their infotext, reads infotexts, and makes grids."""

from __future__ import annotations

import math
import re
from datetime import date
from pathlib import Path
from typing import Any

from modules import script_callbacks
from modules.shared import opts
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo


def save_image_with_geninfo(
    image: Image.Image, geninfo: str | None, filename: str, existing_pnginfo: dict[str, str] | None = None
) -> None:
    """Saves a picture, with its infotext and other texts if it is a PNG."""
    text = PngInfo()
    if opts.enable_pnginfo:
        for key, value in {**(existing_pnginfo or {}), "parameters": geninfo}.items():
            text.add_text(key, str(value))
    image.save(filename, pnginfo=text)


def read_infotext(image: Image.Image) -> str:
    """Returns the infotext of a PNG, a GIF or a picture with Exif; empty if it has none."""
    if text := image.info.get("parameters"):
        return text
    if comment := image.info.get("comment"):
        return comment.decode()
    comment = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment, b"")
    return comment.removeprefix(b"UNICODE\0").decode("utf-16-be")


def get_next_sequence_number(path: str, _basename: str) -> int:
    """Returns the largest number at the start of a file name in the folder, plus one."""
    numbers = (re.match(r"\d+", entry.name) for entry in Path(path).iterdir())
    return max((int(match[0]) for match in numbers if match), default=-1) + 1


def save_image(image: Image.Image, path: str, seed: int, infotext: str, p: Any) -> str:
    folder = Path(path) / date.today().isoformat()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{get_next_sequence_number(str(folder), ''):05}-{seed}.png"
    params = script_callbacks.ImageSaveParams(image, p, str(file), {"parameters": infotext})
    script_callbacks.before_image_saved_callback(params)
    image, name, texts = params.image, params.filename, params.pnginfo
    save_image_with_geninfo(image, texts.get("parameters"), name, existing_pnginfo=texts)
    image.already_saved_as = name
    script_callbacks.image_saved_callback(params)
    return name


def flatten(image: Image.Image, colour: str) -> Image.Image:
    """Returns a picture without transparency, on this colour."""
    if image.mode != "RGBA":
        return image.convert("RGB")
    below = Image.new("RGBA", image.size, colour)
    below.paste(image, mask=image)
    return below.convert("RGB")


def image_grid(pictures: list[Image.Image], _batch_size: int) -> Image.Image:
    columns = math.ceil(math.sqrt(len(pictures)))
    width, height = pictures[0].size
    grid = Image.new("RGB", (columns * width, math.ceil(len(pictures) / columns) * height))
    for index, picture in enumerate(pictures):
        grid.paste(picture, (index % columns * width, index // columns * height))
    return grid
