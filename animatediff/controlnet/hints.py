"""What ControlNet makes of the pictures of one unit, for all frames of a clip. UNet calls take the rows that they need."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

CPU = torch.device("cpu")
EXACT = 255
"""Hints are pictures of bytes that ControlNet has divided by this."""


def digest_of(tensors: Iterable[Tensor]) -> str:
    """Returns a digest of some tensors."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(repr((tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class Hints:
    """The hints of one unit for one pass, `(channels, height, width)` each, on the CPU: as bytes where they are pictures.

    `frames`: the number of frames of the clip. `of`: the frames that hints are for, in the order in which they are added.
    """

    def __init__(self, frames: int, of: Sequence[int]) -> None:
        self._place = dict(zip(of, range(len(of))))
        self._frames = frames
        self.kept: list[Tensor] = []
        """The hints as they were added."""
        self._latents: dict[int, Tensor] = {}
        self._given: tuple[list[int], torch.device, Tensor] | None = None

    def add(self, hint: Tensor) -> None:
        """Adds the next hint, `(1, channels, height, width)`."""
        hint = hint[0].detach().cpu()
        as_bytes = (hint * EXACT).round().clamp(0, EXACT).to(torch.uint8)
        self.kept.append(as_bytes if torch.equal(as_bytes.float() / EXACT, hint.float()) else hint)

    @property
    def are_missing(self) -> bool:
        """Whether nothing was added: a pass that the generation does not have."""
        return not self.kept

    @property
    def height(self) -> int:
        """The height of all hints."""
        return self.kept[0].shape[-2]

    def whole(self) -> Tensor:
        """Returns the hints of all frames, `(frames, channels, height, width)`."""
        return self._stacked(range(self._frames), CPU)

    def as_bytes(self) -> list[Tensor]:
        """Returns the hints as they were added, as bytes."""
        return [hint if hint.dtype == torch.uint8 else (hint * EXACT).clamp(0, EXACT).to(torch.uint8) for hint in self.kept]

    def let_go(self) -> None:
        """Forgets which rows were given last: they may be on a device."""
        self._given = None

    def rows(self, frames: Sequence[int], device: torch.device = CPU) -> Tensor:
        """Returns the hints of these frames, `(rows, channels, height, width)`. Frames without one get zeros.

        They stay on the device until others are asked for: a clip of one window has the same in every step.
        """
        if self._given is None or self._given[:2] != (list(frames), device):
            several = list(dict.fromkeys(frames))  # each once: prompt and negative prompt have the same
            places = torch.tensor([several.index(frame) for frame in frames], device=device)
            self._given = list(frames), device, self._stacked(several, device)[places]
        return self._given[2]

    def _stacked(self, frames: Sequence[int], device: torch.device) -> Tensor:
        kept = [self.kept[place] if (place := self._place.get(frame)) is not None else None for frame in frames]
        stacked = torch.stack([torch.zeros_like(self.kept[0]) if hint is None else hint for hint in kept]).to(device)
        return stacked.float() / EXACT if stacked.dtype == torch.uint8 else stacked  # bytes travel faster than numbers

    def acting(self, frames: Sequence[int]) -> Tensor | None:
        """Returns 1 for each of these frames that has a hint, else 0: `(rows, 1, 1, 1)`. None if all of the clip have one."""
        if len(self._place) == self._frames:
            return None
        return torch.tensor([float(frame in self._place) for frame in frames]).view(-1, 1, 1, 1)

    def latents(self, frames: Sequence[int], encode: Callable[[Tensor], Tensor]) -> Tensor:
        """Returns what the VAE makes of the hints of these frames, `(rows, 4, height / 8, width / 8)`; each is encoded once."""
        for frame in frames:
            if frame not in self._latents:
                self._latents[frame] = encode(self._stacked([frame], CPU)).cpu()
        return torch.cat([self._latents[frame] for frame in frames])
