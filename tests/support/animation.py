"""Requests for animations, and readers of their answers."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import requests
from PIL import Image

from support.pictures import pictures_of
from support.server import Server

FRAMES = 4
"""How many frames a clip has unless a test asks for another number."""
LAYERS = {"v1": 20, "v2": 21, "v3": 20}
LONG = " ".join(["word"] * 90)
"""A prompt of more tokens than one chunk of the text encoder."""


def animate(family: str = "v3", **args: Any) -> dict[str, Any]:
    """Returns the part of a request that asks for an animation. By default, the answer has its frames as single images."""
    values = {"enable": True, "model": f"mm_tiny_{family}.safetensors", "format": ["Frame"], "video_length": FRAMES, **args}
    return {"alwayson_scripts": {"AnimateDiff": {"args": [values]}}}


def frames_of(answer: requests.Response) -> np.ndarray:
    """Returns all images of an answer, `(frames, height, width, 3)`."""
    return np.stack(pictures_of(answer))


def made_once(method: Callable[..., requests.Response]) -> Callable[..., np.ndarray]:
    """Like `frames_of(method(**request))`, but an equal request is answered with the frames that it made before."""
    made: dict[str, np.ndarray] = {}

    def frames(**request: Any) -> np.ndarray:
        key = json.dumps(request, sort_keys=True)
        if key not in made:
            made[key] = frames_of(method(**request))
        return made[key]

    return frames


def files_of(answer: requests.Response) -> list[Image.Image]:
    """Returns the images of an answer as Pillow opens them, animations included."""
    assert answer.ok, f"HTTP {answer.status_code}: {answer.text[:2000]}"
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in answer.json()["images"]]


def info_of(answer: requests.Response) -> dict[str, Any]:
    return json.loads(answer.json()["info"])


def text_of_refusal(answer: requests.Response) -> str:
    """Returns what an answer says to the user. Fails if it is none of our refusals."""
    assert answer.status_code == 422, answer.text[:2000]
    return answer.json()["detail"]


def difference(first: np.ndarray, second: np.ndarray) -> int:
    """Returns the largest difference of a level between two arrays of levels 0 to 255."""
    assert first.shape == second.shape
    return int(np.abs(first.astype(np.int16) - second.astype(np.int16)).max())


@contextmanager
def recording(server: Server) -> Iterator[dict[str, Any]]:
    """Records with the probe while open. The yielded dictionary is filled at the end."""
    record: dict[str, Any] = {}
    server.post("/probe/v1/record", {"on": True})
    try:
        yield record
    finally:
        server.post("/probe/v1/record", {"on": False})
        record.update(server.get("/probe/v1/record").json())


def stopped_while(
    server: Server, words: str, ask: Callable[[], requests.Response], how: str = "interrupt"
) -> requests.Response:
    """Presses Interrupt or Skip as soon as the progress text has these words. Returns the answer to what was asked."""
    answers: list[requests.Response] = []
    job = threading.Thread(target=lambda: answers.append(ask()))
    job.start()
    while words not in (server.get("/sdapi/v1/progress?skip_current_image=true").json()["textinfo"] or ""):
        assert job.is_alive(), f"the job ended before its progress text had {words!r}"
        time.sleep(0.01)
    server.post(f"/sdapi/v1/{how}").raise_for_status()
    job.join()
    return answers[0]


def unet_calls(run: dict[str, Any]) -> list[dict[str, Any]]:
    return [call for step in run["denoiser_calls"] for call in step["unet_calls"]]
