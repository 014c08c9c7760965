"""Latents and text embeddings on disk: made once, however often they are learned from."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..video_reader import UnreadableVideo, Video
from .config import Config
from .data import Clip, DataError, Report, clips_of, find_videos, mirrored_caption
from .image_model import ImageModel

ENCODED_AT_ONCE = 8
"""Pictures per pass of the autoencoder."""
CAPTIONS_AT_ONCE = 32
"""Per pass of the text encoder."""


@dataclass(frozen=True)
class Example:
    """A clip as it is learned: where its latents are, `(height, width)` of its pictures, and its caption.

    `video`: a digest of what is in the video that it is of.
    """

    file: Path
    video: str
    key: str
    size: tuple[int, int]
    caption: str

    def moments(self) -> Tensor:
        """`Autoencoder.moments` of its frames, `(frames, 8, height/8, width/8)`."""
        with safe_open(self.file, framework="pt") as stored:
            moments: Tensor = stored.get_tensor(self.key)
        return moments.float()


def learned_examples(
    config: Config, model: ImageModel, watched: Callable[[list[Video]], Iterable[Video]]
) -> tuple[list[Example], Report]:
    """All that there is to learn, in the cache, and what became of the videos. `watched` shows how far it is.

    Raises DataError where nothing is left.
    """
    videos, left_out = find_videos(config)
    report = Report(len(videos) + len(left_out), left_out=left_out)
    examples = []
    made_by = fingerprint(model.autoencoder)
    for video in watched(videos):
        file = config.folder / "cache" / f"{_key_of(video, config, made_by)}.safetensors"
        facts = _facts(file) or _encode(video, config, model, file)
        if facts["left out"]:
            report.left_out.append((video.path.name, facts["left out"]))
        for key, (size, oddity) in facts["clips"].items():
            caption = mirrored_caption(video.caption) if key.endswith("mirrored") else video.caption
            examples.append(Example(file, facts["video"], key, tuple(size), caption))
            if not key.endswith("mirrored"):
                report.sizes[tuple(size)] += 1
                report.odd += [(f"{video.path.name} from frame {key}", oddity)] if oddity else []
    if not examples:
        name, why = report.left_out[0]
        raise DataError(f"None of the {report.videos} videos can be used. {name}: {why}.")
    return examples, report


def fingerprint(module: nn.Module) -> str:
    """Tells weights from other weights."""
    digest = hashlib.sha256()
    for key, tensor in sorted(module.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _key_of(video: Video, config: Config, made_by: str) -> str:
    """Another one for each video, version of its files, cut and autoencoder."""
    stamps = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in video.files()]
    facts = [stamps, config.frames, config.stride, config.size, config.horizontal_flip, made_by]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _facts(file: Path) -> dict | None:  # type: ignore[type-arg]
    """What is known of a video whose latents are there: its clips, or why it has none."""
    try:
        with safe_open(file, framework="pt") as stored:
            facts = json.loads(stored.metadata()["facts"])
            return facts if "video" in facts else None
    except (FileNotFoundError, SafetensorError, KeyError):
        return None


def _encode(video: Video, config: Config, model: ImageModel, file: Path) -> dict:  # type: ignore[type-arg]
    moments: dict[str, Tensor] = {}
    facts: dict[str, object] = {"left out": "", "clips": {}, "video": _digest(video)}
    try:
        for clip in clips_of(video, config):
            entry = [list(clip.frames.shape[1:3]), clip.oddity]
            moments[str(clip.start)], facts["clips"][str(clip.start)] = _moments(clip, model), entry  # type: ignore[index]
            if config.horizontal_flip:
                key = f"{clip.start} mirrored"
                mirrored = Clip(clip.start, clip.frames[:, :, ::-1])
                moments[key], facts["clips"][key] = _moments(mirrored, model), entry  # type: ignore[index]
    except UnreadableVideo as error:
        moments, facts = {}, {**facts, "left out": str(error), "clips": {}}
    with replacing(file) as part:
        save_file(moments, part, {"facts": json.dumps(facts)})
    return facts


def _digest(video: Video) -> str:
    digest = hashlib.sha256()
    for file in video.files():
        with file.open("rb") as stream:
            while part := stream.read(1 << 20):
                digest.update(part)
    return digest.hexdigest()


@torch.no_grad()
def _moments(clip: Clip, model: ImageModel) -> Tensor:
    device = next(model.autoencoder.parameters()).device
    pictures = torch.from_numpy(np.ascontiguousarray(clip.frames)).permute(0, 3, 1, 2).float() / 127.5 - 1
    parts = [model.autoencoder.moments(part.to(device)).half().cpu() for part in pictures.split(ENCODED_AT_ONCE)]
    return torch.cat(parts).contiguous()


class Embeddings:
    """The text encoder's output by caption, from disk."""

    def __init__(self, folder: Path, model: ImageModel) -> None:
        self._folder = folder
        self._encoder = model.text_encoder
        self._made_by = fingerprint(model.text_encoder)

    def add(self, captions: Iterable[str]) -> None:
        """Encodes those that are not there yet."""
        missing = (caption for caption in captions if not self._file(caption).exists())
        while together := list(islice(missing, CAPTIONS_AT_ONCE)):
            with torch.no_grad():
                encoded = self._encoder(together).half().cpu()
            for caption, embedding in zip(together, encoded):
                with replacing(self._file(caption)) as part:
                    save_file({"embedding": embedding.contiguous()}, part)

    def of(self, captions: list[str]) -> Tensor:
        """`(captions, 77, width)`, of captions that were added."""
        embeddings = []
        for caption in captions:
            with safe_open(self._file(caption), framework="pt") as stored:
                embeddings.append(stored.get_tensor("embedding").float())
        return torch.stack(embeddings)

    def _file(self, caption: str) -> Path:
        key = hashlib.sha256(json.dumps([caption, self._made_by]).encode()).hexdigest()[:32]
        return self._folder / f"text-{key}.safetensors"


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A path to write to, which then takes the place of `file` at once. Where writing fails, `file` is as it was."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    try:
        yield part
        _put_in_place(part, file)
    finally:
        part.unlink(missing_ok=True)


def _put_in_place(part: Path, file: Path, tries: int = 20) -> None:
    """On Windows a file that somebody is reading cannot be replaced: a virus scanner, or a page. That passes."""
    for left in reversed(range(tries)):
        try:
            part.replace(file)
            return
        except PermissionError:
            if left == 0:
                raise
            time.sleep(0.1)
