"""Converts the images of API answers and requests to arrays and back."""

from __future__ import annotations

import base64
import io

import numpy as np
import requests
from PIL import Image, ImageSequence


def decode(text: str) -> list[np.ndarray]:
    """Returns the frames of one base64 image, each `(height, width, 3)` uint8. A still image has one."""
    with Image.open(io.BytesIO(base64.b64decode(text.rpartition(",")[2]))) as image:
        return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]


def pictures_of(answer: requests.Response) -> list[np.ndarray]:
    """Returns all frames of all images of an answer. Fails with the server's message if the answer is an error."""
    assert answer.ok, f"HTTP {answer.status_code}: {answer.text[:2000]}"
    return [frame for text in answer.json()["images"] for frame in decode(text)]


def encode(picture: np.ndarray) -> str:
    """Returns an image as the base64 PNG that requests carry."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def gradient(width: int = 64, height: int = 64, shift: int = 0) -> np.ndarray:
    """Returns a colourful test image. `shift` moves it sideways, for the frames of a clip."""
    row, column = np.mgrid[:height, :width]
    column = (column + shift) % width
    red, green = column * 255 // max(width - 1, 1), row * 255 // max(height - 1, 1)
    return np.stack([red, green, 255 - (red + green) // 2], axis=-1).astype(np.uint8)


def mean_difference(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the mean absolute difference in levels of 255."""
    return float(np.abs(first.astype(np.int16) - second.astype(np.int16)).mean())
