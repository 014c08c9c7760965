"""The folders of unfinished long videos: each holds what the UNet has returned so far.

A folder is deleted when its video is finished. After a crash, an error or a lack of memory, the same request finds it again.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from modules.paths_internal import data_path
from PIL import Image
from safetensors import SafetensorError, safe_open

from motion_module.unet_cache import SUFFIX, UNetCache

DESCRIPTION = "video.json"
MOST = 3
"""The most folders. They are large: 64 KB for each frame and step at 512×512 in half precision, twice that in single."""


@dataclass(frozen=True)
class Unfinished:
    """An unfinished video. The name of its folder is its key."""

    folder: Path

    def description(self) -> dict[str, Any]:
        """Returns what the API and the page show of it. Raises OSError or ValueError where that cannot be read."""
        facts = json.loads((self.folder / DESCRIPTION).read_text(encoding="utf-8"))
        calls = sorted(self.folder.glob(f"*{SUFFIX}"), key=_time)
        return {
            "key": self.folder.name,
            "tab": facts["tab"],
            "infotext": facts["infotext"],
            "done": _where(calls[-1]) if calls else None,
            "time": _time(calls[-1] if calls else self.folder / DESCRIPTION),
            "bytes": sum(call.stat().st_size for call in calls),
        }

    def delete(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def begin(tab: str, infotext: str, what: Sequence[Any]) -> Unfinished:
    """Opens the folder of a video, which may exist from an earlier try. Deletes the oldest others. Raises OSError.

    `what` identifies the video. It need not contain all that decides its frames, since the cached calls are named by that. An
    infotext would not do: the page and the API write 7 and 7.0, or one schedule under two names.
    """
    key = hashlib.sha256(json.dumps([tab, *what]).encode()).hexdigest()[:32]
    begun = Unfinished(folder() / key)
    begun.folder.mkdir(parents=True, exist_ok=True)
    part = begun.folder / f"{DESCRIPTION}.part"
    part.write_text(json.dumps({"tab": tab, "infotext": infotext}), encoding="utf-8")
    part.replace(begun.folder / DESCRIPTION)
    newest = _all()[:MOST]
    for other in folder().iterdir():  # also one that a crash has left without a description
        if Unfinished(other) not in newest:
            Unfinished(other).delete()
    return begun


def digest(pictures: Iterable[Image.Image]) -> str:
    """Returns a digest of the pixels of images, whatever files they come from."""
    whole = hashlib.sha256()
    for picture in pictures:
        whole.update(f"{picture.mode}{picture.size}".encode())
        whole.update(picture.tobytes())
    return whole.hexdigest()


def descriptions() -> list[dict[str, Any]]:
    """Describes all unfinished videos, the one that was worked on last first."""
    found = []
    for unfinished in _all():
        try:
            found.append(unfinished.description())
        except (OSError, ValueError):  # it has just been finished, or a crash came at its first moment
            continue
    return found


def keyed(key: str) -> Unfinished | None:
    """Returns the unfinished video with this key, if there is one."""
    unfinished = Unfinished(folder() / key)
    return unfinished if re.fullmatch("[0-9a-f]{32}", key) and unfinished.folder.is_dir() else None


def warnings(calls: UNetCache) -> list[str]:
    """Returns warnings for the user about a cache that was outdated, or could not be written."""
    found = []
    if calls.outdated:
        found.append(
            "This video had been cut off, and was begun anew: "
            "since then, a picture, a weight file, a setting or another extension has changed."
        )
    if calls.problem is not None:
        why = f"{calls.problem}. Free some disk space."
        found.append(f"From some step on, this video could not have been resumed if it had been cut off: {why}")
    return found


def folder() -> Path:
    """Returns the folder of all, beside the WebUI's temporary files, which survive a restart."""
    return Path(data_path) / "tmp" / "animatediff-unfinished"


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """While open, torch's global generator is seeded. The WebUI never seeds it, and draws the VAE encoder's noise from it: for
    the images of img2img, and between the passes of hires fix.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(seed))
        yield


def _all() -> list[Unfinished]:
    return [Unfinished(file.parent) for file in sorted(folder().glob(f"*/{DESCRIPTION}"), key=_time, reverse=True)]


def _where(call: Path) -> str | None:
    try:
        with safe_open(call, framework="pt") as file:
            return file.metadata()["where"]
    except (OSError, SafetensorError):
        return None


def _time(file: Path) -> float:
    """Returns when it was written, in seconds since 1970; 0 if it has just been deleted."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0
