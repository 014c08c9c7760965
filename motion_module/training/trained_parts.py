"""What is trained: a motion module, a motion LoRA, a domain adapter. Each acts in a frozen image UNet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from ..attach import attached, blocks_by_name, channels_by_block, require_fit
from ..checkpoint import load, published
from ..families import V3, Family
from ..key_layouts import expected_blocks
from ..lora import load_lora
from ..motion_layers import Motion
from ..network import MotionModule, Scale
from ..row_layout import RowLayout
from ..weight_patches import added_to_unet
from .config import Config, ConfigError
from .latent_cache import Example, fingerprint
from .low_rank import LowRankLayers, image_matrices, motion_matrices

MIN_POSITIONS = 32
"""The least rows of the positional encoding of a new module; there are more if its clips are longer."""


class TrainedMotion(Motion):
    """Motion layers that stay in their own dtype, which training needs, whatever the UNet computes in."""

    def _residual(self, module: MotionModule, block: str, x: Tensor, layout: RowLayout, scale: Scale) -> Tensor:
        return module.layers[block].residual(x, layout, scale)  # type: ignore[operator]


class Animated(nn.Module):
    """An image UNet with what is trained in it, which predicts the noise of clips."""

    learning: nn.Module
    """What is trained, and nothing else."""

    def __init__(self, unet: nn.Module, motion: MotionModule | None, family: Family, frames: int) -> None:
        super().__init__()
        self.unet = unet
        self.motion = motion
        self._family = family
        self._frames = frames

    def forward(self, latents: Tensor, times: Tensor, context: Tensor, pictures: Tensor | None = None) -> Tensor:
        """Returns the predicted noise, `(clips, frames, 4, height, width)`. The layers have to be attached.

        `latents`: `(clips, frames, 4, height, width)`. `times`: timesteps `(clips,)`. `context`: `(clips, tokens, width)`.
        `pictures`: what is shown of the clips, as `showing` takes it.
        """
        frames = latents.shape[1]
        noise = self.unet(
            latents.flatten(0, 1), times.repeat_interleave(frames), context=context.repeat_interleave(frames, dim=0)
        )
        return noise.view(latents.shape)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """While open, what is trained acts in the UNet."""
        if self.motion is None:
            yield
            return
        layout_of = lambda rows: RowLayout(self._frames, rows)  # noqa: E731
        with attached(self.unet, TrainedMotion(self.motion), self._family, layout_of):
            yield

    def shown(self, clips: int, draw: torch.Generator) -> Tensor:
        """Returns which frames of clips are shown to what is trained, `(clips, frames)`."""
        return torch.zeros(clips, self._frames, dtype=torch.bool)

    def shown_for(self, prompt: str, examples: list[Example]) -> Tensor | None:
        """Returns what is shown while a validation clip is generated from `prompt`, as `showing` takes it."""
        return None

    @contextmanager
    def showing(self, pictures: Tensor | None) -> Iterator[None]:
        """While open, these pictures are shown: `(clips, frames, 5, height, width)`, latents and a mask; zeros elsewhere."""
        yield

    def frozen(self) -> dict[str, str]:
        """Returns hashes of what else the training is based on, by name."""
        return {}

    def published(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns `weights`, whose names are those of `learning`, under the keys of published files."""
        raise NotImplementedError


class MotionModuleSubject(Animated):
    """A motion module: a new one, which changes nothing yet, or an existing one."""

    def __init__(self, unet: nn.Module, config: Config) -> None:
        family, module = loaded_module(config, unet) if config.motion_module else (V3, new_motion_module(unet, config.frames))
        super().__init__(unet, module, family, config.frames)
        self.learning = module.requires_grad_(True)
        self._adapter = load_lora(config.domain_adapter) if config.domain_adapter else None
        if self._adapter and not any(target.kind == "image" for target in self._adapter.parts):
            raise ConfigError(
                f"domain_adapter: {self._adapter.path.name} does not change the image model. Choose another file."
            )

    @contextmanager
    def attached(self) -> Iterator[None]:
        blocks = blocks_by_name(self.unet)
        adapted = added_to_unet(blocks, [(self._adapter, 1.0)]) if self._adapter else nullcontext()
        with adapted, super().attached():
            yield

    def frozen(self) -> dict[str, str]:
        if self._adapter is None:
            return {}
        matrices = [matrix for part in self._adapter.parts.values() for matrix in (part.down, part.up)]
        return {"domain adapter": fingerprint(nn.ParameterList(nn.Parameter(matrix.float()) for matrix in matrices))}

    def published(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        assert self.motion is not None
        return published(self.motion, {**self.motion.state_dict(), **weights})


class MotionLoraSubject(Animated):
    """A LoRA for a frozen motion module."""

    def __init__(self, unet: nn.Module, config: Config) -> None:
        family, module = loaded_module(config, unet)
        super().__init__(unet, module, family, config.frames)
        self.learning = LowRankLayers(motion_matrices(module), config.rank)

    def frozen(self) -> dict[str, str]:
        assert self.motion is not None
        return {"motion module": fingerprint(self.motion)}

    @contextmanager
    def attached(self) -> Iterator[None]:
        assert self.motion is not None and isinstance(self.learning, LowRankLayers)
        with self.learning.added_to_motion(self.motion), super().attached():
            yield

    def published(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        assert isinstance(self.learning, LowRankLayers)
        return self.learning.published(weights)


class DomainAdapterSubject(Animated):
    """A LoRA for the image UNet, trained on single frames."""

    def __init__(self, unet: nn.Module, config: Config) -> None:
        super().__init__(unet, None, V3, config.frames)
        self.learning = LowRankLayers(image_matrices(blocks_by_name(unet)), config.rank)

    @contextmanager
    def attached(self) -> Iterator[None]:
        assert isinstance(self.learning, LowRankLayers)
        with self.learning.added_to_unet(blocks_by_name(self.unet)):
            yield

    def published(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        assert isinstance(self.learning, LowRankLayers)
        return self.learning.published(weights)


def new_motion_module(unet: nn.Module, frames: int) -> MotionModule:
    """Returns a new motion module with the layers of the authors' v3, for clips of up to `frames` frames, or 32."""
    all_channels = channels_by_block(unet)
    channels = {block: all_channels[block] for block in expected_blocks(4, mid=False)}
    return MotionModule(channels, max(MIN_POSITIONS, frames))


def loaded_module(config: Config, unet: nn.Module) -> tuple[Family, MotionModule]:
    """Reads the motion module of the options. Raises CheckpointError, UnsuitableUNet or ConfigError."""
    assert config.motion_module is not None
    description, module = load(config.motion_module)
    family = description.require_motion_module()
    if family.takes_image or family.original_steps or family.advice.samplers:
        raise ConfigError(
            f"motion_module: {config.motion_module.name} is {family.title}, which needs another kind of training. Choose "
            "another module."
        )
    if config.frames > module.length:
        raise ConfigError(
            f"frames: {config.frames} is more than {config.motion_module.name} can use. Set it to {module.length} or less."
        )
    require_fit(unet, module.channels)
    return family, module.float()
