"""Long videos that are not finished: a folder for each, with what the UNet hauto of it so far.

It is deleted when the answer is there. What a kill, an error or a lack of memory leaves is found again by the same request.
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
"""They are large: of two rows a frame and step, 64 KB at 512×512, and in single precision twice that."""


@dataclass(frozen=True)
class Unfinished:
    """The unfinished video in a folder, whose name is its key."""

    folder: Path

    def description(self) -> dict[str, Any]:
        """Raises OSError or ValueError where there is none."""
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
    """The folder for a video, which may have been begun before. The oldest others are deleted. Raises OSError.

    `what` sets it apart from others. It need not be all that decides over its frames, since calls are named for that; and an
    infotext would not do, since the page and the API write 7 and 7.0, or the same schedule under two names.
    """
    key = hashlib.sha256(json.dumps([tab, *what]).encode()).hexdigest()[:32]
    begun = Unfinished(folder() / key)
    begun.folder.mkdir(parents=True, exist_ok=True)
    part = begun.folder / f"{DESCRIPTION}.part"
    part.write_text(json.dumps({"tab": tab, "infotext": infotext}), encoding="utf-8")
    part.replace(begun.folder / DESCRIPTION)
    newest = _all()[:MOST]
    for other in folder().iterdir():  # also what a kill has left without a description
        if Unfinished(other) not in newest:
            Unfinished(other).delete()
    return begun


def digest(pictures: Iterable[Image.Image]) -> str:
    """Of what is to be seen in them, whatever files they come from."""
    whole = hashlib.sha256()
    for picture in pictures:
        whole.update(f"{picture.mode}{picture.size}".encode())
        whole.update(picture.tobytes())
    return whole.hexdigest()


def descriptions() -> list[dict[str, Any]]:
    """Of all unfinished videos, the one that was begun or gone on with last first."""
    found = []
    for unfinished in _all():
        try:
            found.append(unfinished.description())
        except (OSError, ValueError):  # it has just been finished, or a kill has hit its first moment
            continue
    return found


def keyed(key: str) -> Unfinished | None:
    """The unfinished video of a key, if there is one."""
    unfinished = Unfinished(folder() / key)
    return unfinished if re.fullmatch("[0-9a-f]{32}", key) and unfinished.folder.is_dir() else None


def warnings(calls: UNetCache) -> list[str]:
    """What has gone wrong with them, for whoever asked for the video."""
    found = []
    if calls.outdated:
        found.append(
            "This video had been cut off, and was begun anew: "
            "since then a picture, a weight file, a setting or another extension has changed."
        )
    if calls.problem is not None:
        why = f"{calls.problem}. Make room there."
        found.append(f"From some step on, this video could not have been resumed if it had been cut off: {why}")
    return found


def folder() -> Path:
    """Beside the WebUI's own temporary files, which it leaves over a restart."""
    return Path(data_path) / "tmp" / "animatediff-unfinished"


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's own generator, seeded for a while. The WebUI never does, and draws from it the noise of the VAE's encoder: of the
    pictures of img2img, and between the passes of hires fix.
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
    """When it was written, in seconds since 1970; 0 where it has just been deleted."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0
