"""The motion layers of SparseCtrl (arXiv 2311.16933), for sd-webui-controlnet, which has the rest of that network.

A SparseCtrl network is a ControlNet for pictures of some frames. Its motion layers, of one attention each, carry what these
frames show to the others. ControlNet puts them among the blocks of its own encoder and calls them with their input alone, so
a job tells them which rows are frames of one clip. Reference: `SparseControlNetModel` in guoyww/AnimateDiff.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from torch import Tensor, nn

from motion_module.checkpoint import to_our_layout
from motion_module.context_windows import StepWindows
from motion_module.key_layouts import expected_shapes, key_of, layers_of
from motion_module.network import TemporalTransformer
from motion_module.row_layout import RowLayout
from motion_module.sparse_ctrl import MOST_FRAMES
from motion_module.weight_files import CheckpointError

WIDTHS = (320, 640, 1280, 1280)
"""The channels of each level: there is SparseCtrl for Stable Diffusion 1.5 only."""


class MotionModuleType(Enum):
    """The kinds of motion layers that ControlNet asks for."""

    SparseCtrl = "SparseCtrl"


class ClipLayer(nn.Module):
    """One motion layer, `(rows, channels, height, width)` in and out. Outside a job each row is a clip of its own."""

    step_windows: Callable[[], StepWindows] | None = None
    """Returns the windows of the running step, if attention is limited to context windows."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.transformer = TemporalTransformer(channels, MOST_FRAMES, attention_blocks=1)

    def layout_of(self, rows: int) -> RowLayout:
        """Returns the layout of the rows of a call. A job replaces this method."""
        return RowLayout(1, rows)

    def forward(self, x: Tensor) -> Tensor:
        windows = self.step_windows() if self.step_windows else None
        return x + self.transformer.residual(x, self.layout_of(len(x)), windows=windows)


class _Level(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.motion_modules = nn.ModuleList(ClipLayer(channels) for _ in range(2))


class MotionWrapper(nn.Module):
    """The motion layers of one SparseCtrl network. The arguments are those that ControlNet gives; they say nothing here."""

    def __init__(self, mm_name: str = "", mm_hash: str = "", mm_type: MotionModuleType = MotionModuleType.SparseCtrl) -> None:
        super().__init__()
        self.down_blocks = nn.ModuleList(map(_Level, WIDTHS))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Takes weights under the authors' keys. Raises CheckpointError unless they are all there, and no others."""
        expected = {
            key_of(f"down_{level}_{index}", name, "original")
            for level, width in enumerate(WIDTHS)
            for index in range(2)
            for name in expected_shapes(width, MOST_FRAMES, attentions=1)
        }
        if odd := sorted(expected ^ set(state_dict)):
            what = "is missing" if odd[0] in expected else "is unknown"
            raise CheckpointError(f"The SparseCtrl model is incomplete or changed: {odd[0]} {what}. Download it again.")
        weights: dict[str, Tensor] = {}
        for block, keys in layers_of(state_dict)[1].items():
            _, level, index = block.split("_")
            ours = to_our_layout({name: state_dict[key] for name, key in keys.items()}, MOST_FRAMES, attentions=1)
            place = f"down_blocks.{level}.motion_modules.{index}.transformer."
            weights |= {place + name: tensor for name, tensor in ours.items()}
        return super().load_state_dict(weights, strict, assign)


def layers_in(model: Any) -> list[ClipLayer]:
    """Returns the motion layers in a control model of ControlNet: eight in SparseCtrl, none in others."""
    if not isinstance(model, nn.Module):
        return []
    every = nn.Module.modules(model)  # ControlLLLite has an attribute of that name
    return [part for part in every if isinstance(part, ClipLayer)]


def takes_latents(model: Any) -> bool:
    """Returns whether a SparseCtrl network of ControlNet takes latents, as that for photographs does, and not pictures."""
    return bool(model.control_model.use_simplified_condition_embedding)
