"""Blended windows leave no seam and overwritten ones do: tested with a toy model whose correct result is constant motion.

The toy's image moves by one pixel from frame to frame, around a row of as many pixels as the clip has frames. It knows only its
own window: all frames continue the first ones of the window. So windows that begin with different noise give different clips,
as those of a motion module do, until they agree in their overlaps.

There is no seam if all changes from frame to frame, including that from the last to the first, are equal within a thousandth.
"""

import math

import numpy as np
import pytest
import torch

from motion_module.context_windows import ContextWindows, StepWindows
from motion_module.evaluation import changes_of
from motion_module.network import TemporalAttention, TemporalTransformer
from motion_module.row_layout import layout_of_call
from motion_module.windowed_unet import WindowedUNet

FRAMES, LENGTH, OVERLAP = 32, 16, 4
STEPS = 60
EQUAL = 1e-3
CLOSED_LOOPS, FUSE_METHODS = ("none", "few", "many"), ("pyramid", "flat", "overlap-linear")
ATTENTION = torch.zeros(LENGTH, LENGTH)
ATTENTION[:, :OVERLAP] = 1 / OVERLAP
"""Attention weights of each frame of a window to the first frames of the window, set by hand."""


def onward(clips):
    """Returns the result of the toy model for clips of one window each, `(clips, LENGTH, …, width)`."""
    return moved(torch.einsum("qk,ck...->cq...", ATTENTION, moved(clips, -1)), 1)


def moved(clips, by):
    """Returns each frame shifted by its number times `by`."""
    return torch.stack([clips[:, frame].roll(frame * by, dims=-1) for frame in range(clips.shape[1])], dim=1)


def layout_of(rows):
    return layout_of_call(rows, FRAMES)


class WholeToy(torch.nn.Module):
    """The toy as a UNet: `x` is `(rows, channels, 1, width)`."""

    def forward(self, x):
        return onward(x[None])[0]


class ToyAttention(TemporalAttention):
    """The toy as an attention: its residual turns frames into the toy's result."""

    def __init__(self):
        super().__init__(FRAMES, LENGTH)
        unchanged(self.to_out)
        self.to_qkv.weight.data = torch.eye(FRAMES).repeat(3, 1)
        self.positional_encoding.zero_()

    def mixed(self, qkv, scale):
        hidden = qkv[..., :FRAMES]
        return onward(hidden) - hidden


class ToyLayer(TemporalTransformer):
    """The toy as a motion layer, whose channels are the pixels of the row."""

    def __init__(self):
        super().__init__(FRAMES, LENGTH)
        unchanged(self.proj_in)
        unchanged(self.proj_out)
        self.attentions, self.attention_norms = (
            torch.nn.ModuleList([ToyAttention()]),
            torch.nn.ModuleList([torch.nn.Identity()]),
        )
        for parameter in self.feed_forward.parameters():
            torch.nn.init.zeros_(parameter)

    def _norm_of_clips(self, clips):
        return torch.ones(clips.shape[:3]), torch.zeros(clips.shape[:3])


def unchanged(projection):
    torch.nn.init.eye_(projection.weight)
    torch.nn.init.zeros_(projection.bias)


def blending_whole_frames(windows, x, step):
    model = WholeToy()
    with WindowedUNet(windows, lambda: step, layout_of).applied_to(model):
        return model(x)


def sharing_attention(windows, x, step):
    pixels_last = ToyLayer().residual(x.permute(0, 3, 1, 2), layout_of(FRAMES), windows=windows.at(step))
    return pixels_last.permute(0, 2, 3, 1).detach()


def noise(seed):
    """Returns a wave along the row for each frame, `(frames, 3, 1, width)`, so smooth that a shift by one pixel changes
    little.
    """
    place = torch.arange(FRAMES) * 2 * math.pi / FRAMES
    waves = torch.stack([place.cos(), place.sin()])
    return (torch.randn(FRAMES, 3, 2, generator=torch.Generator().manual_seed(seed)) @ waves)[:, :, None]


def sampled(windows, in_windows, seed):
    """Returns the result of sampling, in which each step replaces the latents by the blended results of all windows."""
    x = noise(seed)
    for step in range(STEPS):
        x = in_windows(windows, x, step)
    return x


def changes(x):
    """Returns the changes between neighbouring frames, and from the last to the first, divided by the median change."""
    steps, closing = changes_of([frame.permute(1, 2, 0).numpy() for frame in x])
    return np.array(steps) / np.median(steps), closing / np.median(steps)


@pytest.mark.parametrize("in_windows", [blending_whole_frames, sharing_attention])
@pytest.mark.parametrize("fuse_method", FUSE_METHODS)
@pytest.mark.parametrize("closed_loop", CLOSED_LOOPS)
@pytest.mark.parametrize("uniform", [True, False], ids=["uniform", "static"])
def test_blended_windows_leave_no_seam(uniform, closed_loop, fuse_method, in_windows):
    windows = ContextWindows(FRAMES, LENGTH, OVERLAP, uniform=uniform, closed_loop=closed_loop, fuse_method=fuse_method)
    for seed in range(3):
        steps, last_to_first = changes(sampled(windows, in_windows, seed))
        assert steps == pytest.approx(np.ones(FRAMES - 1), abs=EQUAL) and last_to_first == pytest.approx(1, abs=EQUAL)


class Overwritten(ContextWindows):
    """Overlapping windows are not blended: the last one of a frame has all of the weight."""

    def at(self, step):
        cut = super().at(step)
        last = {frame: place for place, frame in enumerate(cut.frames.flatten().tolist())}
        weights = torch.zeros(cut.frames.numel())
        weights[list(last.values())] = 1
        return StepWindows(cut.frames, weights.view_as(cut.weights))


@pytest.mark.parametrize("in_windows", [blending_whole_frames, sharing_attention])
@pytest.mark.parametrize("closed_loop", CLOSED_LOOPS)
def test_overwritten_windows_leave_seams_where_they_begin(closed_loop, in_windows):
    # uniform windows are shifted from step to step, and so they would agree in the end if they close a loop
    windows = Overwritten(FRAMES, LENGTH, OVERLAP, uniform=False, closed_loop=closed_loop)
    at_boundaries = np.isin(np.arange(1, FRAMES), windows.boundaries())
    for seed in range(3):
        steps, _ = changes(sampled(windows, in_windows, seed))
        assert at_boundaries.sum() == 2 and steps[at_boundaries].min() > 4 * steps[~at_boundaries].max()
