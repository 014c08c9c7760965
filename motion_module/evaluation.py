"""Measures of clips that need no network: how smoothly they run, whether they close, and how they change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .videos import UnreadableVideo, Video, opencv

Floats = NDArray[np.float64]
QUARTER = 4


@dataclass(frozen=True, eq=False)
class Measures:
    """What is measured of a clip. Levels are those of its pixels, 0 to 255.

    `flicker`: what of each frame is not the one before it moved along its optical flow (warping error, as in Lai et al., arXiv
    1808.00449), in levels; by frame from the second on. `jitter`: how much the flow changes from one step to the next, in
    pixels. `seam`: the step from the last frame to the first, in usual steps (the median): 1 where the loop closes. `drift`: by
    how much mean and contrast of the colours in the last quarter differ from those in the first, in levels. `consistency`: the
    correlation of neighbouring frames, 1 where they are alike.
    """

    frames: int
    flicker: Floats
    jitter: float
    seam: float
    drift: float
    consistency: float


COLUMNS = {
    "frames": "frames",
    "flicker": "flicker (levels)",
    "jitter": "jitter (pixels)",
    "seam": "seam (steps)",
    "drift": "drift (levels)",
    "consistency": "consistency",
}


def measures_of(frames: NDArray[np.uint8]) -> Measures:
    """Measures a clip `(frames, height, width, 3)`. Raises UnreadableVideo where it has fewer than three frames."""
    if len(frames) < 3:
        raise UnreadableVideo(f"it has {len(frames)} frames, and three are the least that can be measured")
    pictures = frames.astype(np.float64)
    flows = [_flow(one, other) for one, other in pairwise(frames)]
    steps = np.abs(np.diff(pictures, axis=0)).mean(axis=(1, 2, 3))
    closing = np.abs(pictures[-1] - pictures[0]).mean()
    return Measures(
        frames=len(frames),
        flicker=np.array([_unexplained(one, other, flow) for one, other, flow in zip(pictures, pictures[1:], flows)]),
        jitter=float(np.mean([np.linalg.norm(after - before, axis=-1).mean() for before, after in pairwise(flows)])),
        seam=float(closing / np.median(steps)) if np.median(steps) > 0 else float(closing > 0),
        drift=_drift(pictures),
        consistency=float(np.mean([_correlation(one, other) for one, other in pairwise(pictures)])),
    )


def _flow(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> Floats:
    """Where each pixel of `other` was in `one`, `(height, width, 2)`: dense inverse search (arXiv 1603.03590)."""
    cv2 = opencv()
    grey = [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in (other, one)]
    flow: Floats = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*grey, None).astype(np.float64)
    return flow


def _unexplained(one: Floats, other: Floats, flow: Floats) -> float:
    cv2 = opencv()
    rows, columns = np.mgrid[: one.shape[0], : one.shape[1]].astype(np.float32)
    places = (columns + flow[..., 0]).astype(np.float32), (rows + flow[..., 1]).astype(np.float32)
    moved = cv2.remap(one.astype(np.float32), *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return float(np.abs(moved - other).mean())


def _drift(pictures: Floats) -> float:
    part = max(1, len(pictures) // QUARTER)
    first, last = pictures[:part], pictures[-part:]
    means = np.abs(last.mean(axis=(0, 1, 2)) - first.mean(axis=(0, 1, 2)))
    contrasts = np.abs(last.std(axis=(1, 2)).mean(axis=0) - first.std(axis=(1, 2)).mean(axis=0))
    return float((means + contrasts).mean())


def _correlation(one: Floats, other: Floats) -> float:
    a, b = one - one.mean(), other - other.mean()
    norms = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / norms) if norms > 0 else float(np.array_equal(one, other))


def measured(paths: list[Path]) -> dict[str, Measures]:
    """The measures of video files and folders of frames, by name. Raises UnreadableVideo with the name, or MissingPart."""
    found = {}
    for path in paths:
        try:
            found[str(path)] = measures_of(np.stack(list(Video(path))))
        except UnreadableVideo as error:
            raise UnreadableVideo(f"{path}: {error}.") from error
    return found


def as_table(measures: Mapping[str, Measures]) -> str:
    """A Markdown table, a line each."""
    rows = [["clip", *COLUMNS.values()]]
    for name, measure in measures.items():
        values = [float(np.mean(getattr(measure, column))) for column in COLUMNS]
        rows.append([name, *(f"{value:.3g}" for value in values)])
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def write_plot(measures: Mapping[str, Measures], file: Path) -> None:
    """Draws flicker by frame, a line for each clip."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    for name, measure in measures.items():
        axes.plot(np.arange(2, measure.frames + 1), measure.flicker, marker=".", label=Path(name).name)
    axes.set(xlabel="frame", ylabel="flicker (levels)", title="What of each frame is not the one before it, moved")
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
