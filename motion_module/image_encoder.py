"""The image encoder of AnimateLCM-I2V, which shows the picture that a clip starts from to motion layers (arXiv 2402.00769).

Reference: G-U-N/AnimateLCM `animatelcm_sd15/animatelcm/models/adapter.py` and `unet_blocks.py`. The encoder has four levels, as
the UNet has on its way down. The features of a level are added to those of the UNet before the level's second motion layer. All
frames have the same picture; they differ by the position that is added to it, as far as frames may drift away from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .network import sinusoidal_positions
from .row_layout import RowLayout

PREFIX = "img_encoder."
"""How the authors' keys of the encoder begin."""
LEVELS = tuple(f"down_{level}_0" for level in range(4))
"""The blocks of the UNet that have the channels of the encoder's levels."""
AFTER = {f"down_{level}_1": level for level in range(4)}
"""By the block whose motion layer sees features: their level."""
DRIFT = 0.8
"""How far frames may drift away from the picture: that of the authors."""


class _Residual(nn.Module):
    """Two convolutions around a ReLU, added to the input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.in_conv = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None
        self.block1 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.block2 = nn.Conv2d(outputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.in_conv is None else self.in_conv(x)
        return x + self.block2(F.relu(self.block1(x)))


class ImageEncoder(nn.Module):
    """The encoder, with the authors' names. `channels`: those of each of its levels, each half as wide and high as the last."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(4, channels[0], 3, padding=1)
        self.body = nn.ModuleList(_Residual(*counts) for counts in _inputs_and_outputs(channels))

    def forward(self, latents: Tensor, frames: int, drift: float) -> list[Tensor]:
        """Returns the features of each frame at each level: `(frames, channels, height, width)`.

        `latents`: `(1, 4, height, width)`, scaled as the UNet's are.
        """
        x = self.conv_in(latents)
        positions = sinusoidal_positions(frames, x.shape[1]).to(x)
        x = x + drift * positions[:, :, None, None]
        features = []
        for level in range(len(self.body) // 2):
            if level:
                x = F.avg_pool2d(F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2), mode="replicate"), 2)
            x = self.body[2 * level + 1](self.body[2 * level](x))
            features.append(x)
        return features


class ImageFeatures:
    """What an encoder adds to the features of a UNet. `latents`: the picture, `(1, 4, height, width)`, scaled as the UNet's."""

    def __init__(self, encoder: ImageEncoder, latents: Tensor, drift: float = DRIFT) -> None:
        self._encoder = encoder
        self._latents = latents
        self._drift = drift
        self._features: list[Tensor] = []

    def before_layer(self, block: str, x: Tensor, layout: RowLayout) -> Tensor | None:
        """Returns what is added to `x`, `(rows, channels, height, width)`, before the motion layer of a block; None if nothing.

        Frames are counted from the first one of their window, as the positional encodings of motion layers count them.
        """
        if block not in AFTER:
            return None
        features = self._of_frames(layout.frames, x)[AFTER[block]]
        return layout.to_rows(features.expand(layout.rows // layout.frames, *features.shape))

    def _of_frames(self, frames: int, x: Tensor) -> list[Tensor]:
        """Returns the features of a clip of this length, on the device and in the dtype of `x`. The last ones are kept."""
        known = self._features
        if not known or len(known[0]) != frames or (known[0].device, known[0].dtype) != (x.device, x.dtype):
            self._encoder.to(x.device, x.dtype)
            self._features = self._encoder(self._latents.to(x), frames, self._drift)
        return self._features


def keys_of(entries: Iterable[str]) -> dict[str, str]:
    """Returns the keys of an encoder in a file, by the authors' names within it; empty if there is none."""
    return {key.partition(PREFIX)[2]: key for key in entries if key.startswith((PREFIX, f"module.{PREFIX}"))}


def expected_shapes(channels: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the encoder's weights. `channels`: those of the blocks of the UNet."""
    counts = [channels[block] for block in LEVELS]
    weights: dict[str, tuple[int, ...]] = {"conv_in": (counts[0], 4, 3, 3)}
    for index, (inputs, outputs) in enumerate(_inputs_and_outputs(counts)):
        if inputs != outputs:
            weights[f"body.{index}.in_conv"] = (outputs, inputs, 1, 1)
        weights[f"body.{index}.block1"], weights[f"body.{index}.block2"] = (outputs, outputs, 3, 3), (outputs, outputs, 1, 1)
    return {
        f"{name}.{kind}": part for name, shape in weights.items() for kind, part in (("weight", shape), ("bias", shape[:1]))
    }


def encoder_for(channels: Mapping[str, int]) -> ImageEncoder:
    """Returns a new encoder. `channels`: those of the blocks of the UNet."""
    return ImageEncoder([channels[block] for block in LEVELS])


def _inputs_and_outputs(channels: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yields the channels of the input and the output of each of the encoder's blocks: two at each level."""
    for inputs, outputs in zip([channels[0], *channels], channels):
        yield inputs, outputs
        yield outputs, outputs
