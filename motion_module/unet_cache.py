"""A cache of UNet calls on disk, from which an interrupted generation is resumed.

A sampler that starts again makes the same calls until it reaches the point of the interruption, and those are read from the
cache. So every sampler is resumed exactly, with its own history and random numbers, and nothing here depends on samplers.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from .patching import patched

log = logging.getLogger("AnimateDiff")
SUFFIX = ".safetensors"
PLAIN = (str, bytes, int, float, type(None), torch.dtype, torch.device)
TOLERANCE = 0.003
"""How far the results of the same call may be apart: their root mean square difference in standard deviations of the result.
Those of another model are further apart."""


class UNetCache:
    """Stores the result of each UNet call as a file in `folder`, named by a hash of the call's arguments.

    `progress`: returns in words how far the running sampler is. `context`: returns what else is known to change the result,
    such as the file of the UNet's weights; it is part of the hash.

    What other extensions change is in no hash. So the first cached call is made again, and the cache is used only if the result
    is the same. Once a call is not in the cache, the files that were not used are deleted.
    """

    def __init__(self, folder: Path, progress: Callable[[], str], context: Callable[[], Any] = lambda: None) -> None:
        self._folder = folder
        self._progress = progress
        self._context = context
        self._resuming = True
        self._used: set[str] = set()
        self.resumed_after: str | None = None
        """How far the sampler was at the last call that was read from the cache; None if none was."""
        self.outdated = False
        """Whether the cache had calls and none of them could be used."""
        self.problem: str | None = None
        """Why no more calls are stored; None while they are."""

    @contextmanager
    def applied_to(self, model: Any, on_read: Callable[[], None] = lambda: None) -> Iterator[None]:
        """While open, calls of `model` are stored and read. It may be another model each time.

        `on_read`: called for each call whose result is read.
        """
        uncached = model.forward

        def forward(*args: Any, **kwargs: Any) -> Tensor:
            return self._call(uncached, on_read, *args, **kwargs)

        with patched(model, "forward", forward):
            yield

    def _call(
        self, uncached: Callable[..., Tensor], on_read: Callable[[], None], x: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        name = _digest([x, args, kwargs, self._context()])
        cached = self._read(name) if self._resuming else None
        if cached is None or not self._used:
            result = uncached(x, *args, **kwargs)
            if cached is None or not _alike(cached, result):
                self._stop_resuming()
                self._store(name, result)
                return result
        else:
            on_read()
        self._used.add(name)
        self.resumed_after = self._progress()
        return cached.to(x.device)

    def _stop_resuming(self) -> None:
        """Deletes the files that were not used: from the first new call on, all calls are new."""
        if not self._resuming:
            return
        self._resuming = False
        unused = [file for file in self._folder.glob(f"*{SUFFIX}") if file.stem not in self._used]
        self.outdated = bool(unused) and not self._used
        if self._used:
            log.info("Resuming after %s", self.resumed_after)
        for file in unused:
            with suppress(OSError):
                file.unlink()

    def _read(self, name: str) -> Tensor | None:
        try:
            return load((self._folder / f"{name}{SUFFIX}").read_bytes())["result"]
        except (OSError, SafetensorError):  # never stored, or damaged
            return None

    def _store(self, name: str, result: Tensor) -> None:
        """Writes a file completely or not at all, so that a crash loses only the call in which it happens."""
        if self.problem is not None:
            return
        file = self._folder / f"{name}{SUFFIX}"
        part = file.with_suffix(".part")
        try:
            save_file({"result": result.detach().cpu().contiguous()}, part, {"where": self._progress()})
            part.replace(file)
        except (OSError, SafetensorError) as error:
            self.problem = getattr(error, "strerror", None) or str(error)
            for stored in (part, *self._folder.glob(f"*{SUFFIX}")):  # the finished video may need the disk space
                with suppress(OSError):
                    stored.unlink(missing_ok=True)


def _digest(value: Any) -> str:
    """Returns a hash of tensors, numbers, texts, and lists, tuples and dictionaries of them. Different values have different
    hashes. Of other values, only the type is known.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in _parts(value):
        digest.update(len(part).to_bytes(8, "little"))  # so that `1, 23` differs from `12, 3`
        digest.update(part)
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[Any]:
    """Yields the bytes that a value consists of: its type, how many items it has, and its items or its content."""
    if isinstance(value, Tensor):
        tensor = value.detach().cpu().contiguous()
        yield f"tensor {tensor.dtype} {tuple(tensor.shape)}".encode()
        yield tensor.flatten().view(torch.uint8).numpy()
    elif isinstance(value, dict):
        yield f"dictionary {len(value)}".encode()
        for key in sorted(value):
            yield from _parts(key)
            yield from _parts(value[key])
    elif isinstance(value, list | tuple):
        yield f"list {len(value)}".encode()
        for item in value:
            yield from _parts(item)
    else:
        yield str(type(value)).encode()
        if isinstance(value, PLAIN):  # others are named by their place in memory, or are functions of other extensions
            yield repr(value).encode()


def _alike(cached: Tensor, result: Tensor) -> bool:
    if cached.shape != result.shape or cached.dtype != result.dtype:
        return False
    cached, result = cached.float(), result.detach().cpu().float()
    return bool((cached - result).square().mean().sqrt() <= TOLERANCE * result.std())
