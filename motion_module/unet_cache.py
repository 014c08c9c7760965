"""Calls of a UNet, kept on disk: one that has been made before is answered from there.

A sampler that begins anew asks for the same, call by call, until it comes to where it was cut off. So any sampler is resumed
exactly, with its own history and its own random numbers, and nothing here knows of samplers.
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
ROUNDING = 0.003
"""By how much the same call may be off on average, in deviations of what it finds; another model is off by more."""


class KeptCalls:
    """Each call is a file in `folder`, named for all that was asked. `where`: words for where the running sampler is. `acting`:
    what is known to act inside the UNet, such as the file of its weights.

    What other extensions add is in no name. So the first call is made again although it is there; unless it finds the same,
    nothing that was kept counts. Whatever the sampler has gone past is let go.
    """

    def __init__(self, folder: Path, where: Callable[[], str], acting: Callable[[], Any] = lambda: None) -> None:
        self._folder = folder
        self._where = where
        self._acting = acting
        self._catching_up = True
        self._answered: set[str] = set()
        self.went_on_after: str | None = None
        """Where the last call was that had been made before; None where none had."""
        self.outdated = False
        """Whether calls had been kept and none of them counted."""
        self.problem: str | None = None
        """Why no more calls are kept."""

    @contextmanager
    def around(self, model: Any) -> Iterator[None]:
        """While open, calls of `model` are kept and answered; it may be another model each time."""
        whole = model.forward

        def forward(*given: Any, **named: Any) -> Tensor:
            return self._answer(whole, *given, **named)

        with patched(model, "forward", forward):
            yield

    def _answer(self, whole: Callable[..., Tensor], x: Tensor, *others: Any, **named: Any) -> Tensor:
        name = _digest([x, others, named, self._acting()])
        kept = self._read(name) if self._catching_up else None
        if kept is None or not self._answered:
            found = whole(x, *others, **named)
            if kept is None or not _alike(kept, found):
                self._go_on()
                self._keep(name, found)
                return found
        self._answered.add(name)
        self.went_on_after = self._where()
        return kept.to(x.device)

    def _go_on(self) -> None:
        """From the first call that is new, all are."""
        if not self._catching_up:
            return
        self._catching_up = False
        others = [file for file in self._folder.glob(f"*{SUFFIX}") if file.stem not in self._answered]
        self.outdated = bool(others) and not self._answered
        if self._answered:
            log.info("Going on after %s", self.went_on_after)
        for file in others:
            with suppress(OSError):
                file.unlink()

    def _read(self, name: str) -> Tensor | None:
        try:
            return load((self._folder / f"{name}{SUFFIX}").read_bytes())["found"]
        except (OSError, SafetensorError):  # never made, or damaged
            return None

    def _keep(self, name: str, found: Tensor) -> None:
        """A file is there wholly or not at all, so that a kill costs the call that it hits, and no other."""
        if self.problem is not None:
            return
        file = self._folder / f"{name}{SUFFIX}"
        part = file.with_suffix(".part")
        try:
            save_file({"found": found.detach().cpu().contiguous()}, part, {"where": self._where()})
            part.replace(file)
        except (OSError, SafetensorError) as error:
            self.problem = str(error)
            for kept in (part, *self._folder.glob(f"*{SUFFIX}")):  # the finished video may need their place
                with suppress(OSError):
                    kept.unlink(missing_ok=True)


def _digest(value: Any) -> str:
    """Returns a hash of tensors, numbers, texts, and lists, tuples and dictionaries of them. Other values have other hashes."""
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
        yield repr(value).encode()


def _alike(kept: Tensor, found: Tensor) -> bool:
    if kept.shape != found.shape or kept.dtype != found.dtype:
        return False
    kept, found = kept.float(), found.detach().cpu().float()
    return bool((kept - found).square().mean().sqrt() <= ROUNDING * found.std())
