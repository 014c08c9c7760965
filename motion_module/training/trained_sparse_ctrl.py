"""A SparseCtrl network in training (arXiv 2311.16933, section 3): pictures at some frames of a clip steer all of them.

As the authors do, it begins as a copy of the UNet's encoder, with motion layers and outputs that are zero, and is trained on
clips some of whose frames it sees. The image model and the motion module stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..context_windows import StepWindows
from ..row_layout import RowLayout
from ..sparse_control import controlled, widths_of
from ..sparse_ctrl import MOST_FRAMES, Shape, SparseCtrl, published_sparse_ctrl
from ..sparse_ctrl_keys import own_names
from .config import Config, ConfigError
from .latent_cache import Example, fingerprint
from .trained_parts import Animated, loaded_module

FIRST_FRAME = 0.5
"""The fraction of clips whose first frame is sure to be seen: most videos are made from a picture of it."""


class SparseCtrlSubject(Animated):
    """A new SparseCtrl network for pictures (RGB), for a frozen motion module."""

    learning: SparseCtrl

    def __init__(self, unet: nn.Module, config: Config) -> None:
        if config.frames > MOST_FRAMES:
            raise ConfigError(
                f"frames: {config.frames} is more than SparseCtrl takes at once. Set it to {MOST_FRAMES} or less."
            )
        family, module = loaded_module(config, unet)
        super().__init__(unet, module, family, config.frames)
        self.learning = new_sparse_ctrl(unet)
        self._pictures: Tensor | None = None

    def forward(self, latents: Tensor, times: Tensor, context: Tensor, pictures: Tensor | None = None) -> Tensor:
        with self.showing(pictures):
            return super().forward(latents, times, context)

    def shown(self, clips: int, draw: torch.Generator) -> Tensor:
        """Returns which frames of clips are seen: from one to all, few more often than many, the first one most often."""
        counts = (self._frames ** torch.rand(clips, generator=draw)).round().long()
        order = torch.rand(clips, self._frames, generator=draw)
        order[:, 0] -= (torch.rand(clips, generator=draw) < FIRST_FRAME).float()
        return order.argsort(dim=1).argsort(dim=1) < counts[:, None]

    def shown_for(self, prompt: str, examples: list[Example]) -> Tensor:
        """Returns the first frame of the clip with this caption, or of the first clip if no caption is the same."""
        example = next((example for example in examples if example.caption == prompt), examples[0])
        latents = example.moments().chunk(2, dim=1)[0][None]
        seen = torch.zeros(1, self._frames, dtype=torch.bool)
        seen[:, 0] = True
        return with_mask(latents, seen)

    @contextmanager
    def showing(self, pictures: Tensor | None) -> Iterator[None]:
        self._pictures = pictures
        try:
            yield
        finally:
            self._pictures = None

    @contextmanager
    def attached(self) -> Iterator[None]:
        layout_of = lambda rows: RowLayout(self._frames, rows)  # noqa: E731
        with super().attached(), controlled(self.unet, [self], layout_of):
            yield

    def frozen(self) -> dict[str, str]:
        assert self.motion is not None
        return {"motion module": fingerprint(self.motion)}

    def published(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return published_sparse_ctrl(weights)

    # --- as a `Control` of `controlled` ---

    def acts(self, progress: float) -> bool:
        return True

    def added(
        self, x: Tensor, timesteps: Tensor, context: Tensor, layout: RowLayout, windows: StepWindows | None
    ) -> list[Tensor]:
        assert self._pictures is not None
        rows = self._pictures.flatten(0, 1).to(x.device)
        embedded = self.learning.embedded_with_mask(rows).repeat(len(x) // len(rows), 1, 1, 1)  # for both conditions
        found: list[Tensor] = self.learning(embedded, timesteps, context, layout, windows)
        return found

    def let_go(self) -> None:
        """It stays where it is trained."""


def with_mask(latents: Tensor, shown: Tensor) -> Tensor:
    """Returns latents `(clips, frames, 4, height, width)` of the frames that are shown, and the mask as a fifth channel."""
    mask = shown[:, :, None, None, None].to(latents)
    return torch.cat([latents * mask, mask.expand_as(latents[:, :, :1])], dim=2)


def new_sparse_ctrl(unet: Any) -> SparseCtrl:
    """Returns a network that adds nothing yet. It has the weights of the UNet's encoder, which sees the pictures as latents."""
    shape = Shape("RGB", *widths_of(unet))
    network = SparseCtrl(shape)
    theirs, own = unet.state_dict(), network.state_dict()
    names = {name: key for name, key in own_names(theirs).items() if name in own}
    network.load_state_dict({name: theirs[key].reshape(own[name].shape) for name, key in names.items()}, strict=False)
    embedding = network.controlnet_cond_embedding
    assert isinstance(embedding, nn.Conv2d) and embedding.bias is not None
    with torch.no_grad():
        embedding.weight.zero_()[:, :4] = network.conv_in.weight
        embedding.bias.zero_()
    for layer in (*network.controlnet_down_blocks, network.controlnet_mid_block):
        assert isinstance(layer, nn.Conv2d) and layer.bias is not None
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    network.conv_in.weight.requires_grad_(False)  # it sees zeros
    return network
