"""A cache of latents and text embeddings on disk, so that each is computed only once."""

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

from ..errors import UnreadableVideo
from ..video_reader import RULES, Video
from .config import Config
from .data import Clip, DataError, Report, clips_of, find_videos, mirrored_caption
from .image_model import ImageModel

ENCODED_AT_ONCE = 8
"""Frames per pass of the autoencoder."""
CAPTIONS_AT_ONCE = 32
"""Captions per pass of the text encoder."""


@dataclass(frozen=True)
class Example:
    """A clip in the training data.

    `file`, `key`: where its latents are. `video`: a hash of the video's content. `size`: `(height, width)` in pixels.
    """

    file: Path
    video: str
    key: str
    size: tuple[int, int]
    caption: str

    def moments(self) -> Tensor:
        """Returns `Autoencoder.moments` of its frames, `(frames, 8, height/8, width/8)`."""
        with safe_open(self.file, framework="pt") as stored:
            moments: Tensor = stored.get_tensor(self.key)
        return moments.float()


def cached_examples(
    config: Config, model: ImageModel, with_progress: Callable[[list[Video]], Iterable[Video]]
) -> tuple[list[Example], Report]:
    """Encodes all videos that are not in the cache; returns all clips, and a report on the videos.

    `with_progress` yields the videos and shows the progress. Raises DataError if no video can be used.
    """
    videos, left_out = find_videos(config)
    report = Report(len(videos) + len(left_out), left_out=left_out)
    examples, files = [], []
    made_by = fingerprint(model.autoencoder)
    for video in with_progress(videos):
        file = config.folder / "cache" / f"{_key_of(video, config, made_by)}.safetensors"
        files.append(file)
        facts = _facts(file) or _encode(video, config, model, file)
        if facts["left out"]:
            report.left_out.append((video.path.name, facts["left out"]))
        for key, (size, suspicion) in facts["clips"].items():
            caption = mirrored_caption(video.caption) if key.endswith("mirrored") else video.caption
            examples.append(Example(file, facts["video"], key, tuple(size), caption))
            if not key.endswith("mirrored"):
                report.sizes[tuple(size)] += 1
                report.suspicious += [(f"{video.path.name} from frame {key}", suspicion)] if suspicion else []
    if not examples:
        for file in files:  # a training that is refused leaves nothing
            file.unlink(missing_ok=True)
        name, why = report.left_out[0]
        raise DataError(f"None of the videos ({report.videos}) can be used. {name}: {why}.")
    return examples, report


def fingerprint(module: nn.Module) -> str:
    """Returns a hash of the weights of a module."""
    digest = hashlib.sha256()
    for key, tensor in sorted(module.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _key_of(video: Video, config: Config, made_by: str) -> str:
    """Returns a hash of a video's files, how they are read, how clips are cut from them, and the autoencoder."""
    stamps = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in video.files()]
    facts = [stamps, RULES, config.frames, config.stride, config.size, config.horizontal_flip, made_by]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _facts(file: Path) -> dict | None:  # type: ignore[type-arg]
    """Returns the clips of a video in the cache, or why it has none; None if the video is not in the cache."""
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
            entry = [list(clip.frames.shape[1:3]), clip.suspicion]
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
    frames = torch.from_numpy(np.ascontiguousarray(clip.frames)).permute(0, 3, 1, 2).float() / 127.5 - 1
    parts = [model.autoencoder.moments(part.to(device)).half().cpu() for part in frames.split(ENCODED_AT_ONCE)]
    return torch.cat(parts).contiguous()


class Embeddings:
    """The text encoder's output for captions, on disk."""

    def __init__(self, folder: Path, model: ImageModel) -> None:
        self._folder = folder
        self._encoder = model.text_encoder
        self._made_by = fingerprint(model.text_encoder)

    def add(self, captions: Iterable[str]) -> None:
        """Encodes the captions that are not on disk yet."""
        missing = (caption for caption in captions if not self._file(caption).exists())
        while batch := list(islice(missing, CAPTIONS_AT_ONCE)):
            with torch.no_grad():
                encoded = self._encoder(batch).half().cpu()
            for caption, embedding in zip(batch, encoded):
                with replacing(self._file(caption)) as part:
                    save_file({"embedding": embedding.contiguous()}, part)

    def of(self, captions: list[str]) -> Tensor:
        """Returns the embeddings of captions that were added: `(captions, 77, width)`."""
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
    """Yields a path to write to, which replaces `file` afterwards. If writing fails, `file` stays as it was."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    try:
        yield part
        _replace(part, file)
    finally:
        part.unlink(missing_ok=True)


def _replace(part: Path, file: Path, tries: int = 20) -> None:
    """Renames a file. On Windows that fails while another program, such as a virus scanner, reads it; so it is retried."""
    for left in reversed(range(tries)):
        try:
            part.replace(file)
            return
        except PermissionError:
            if left == 0:
                raise
            time.sleep(0.1)
