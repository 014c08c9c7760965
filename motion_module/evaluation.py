"""Measures of clips that need no neural network: how smooth they are, whether they loop, and how they change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import MissingDependency, UnreadableVideo
from .optical_flow import Flow, flow_between, warped
from .pictures import Frame
from .video_reader import Video

Floats = NDArray[np.float64]
QUARTER = 4


@dataclass(frozen=True, eq=False)
class Measures:
    """The measures of a clip. Levels are pixel values from 0 to 255.

    `flicker`: how much each frame, from the second on, differs from the previous one warped along the optical flow, in levels
    (warping error, as in Lai et al., arXiv 1808.00449). `jitter`: how much the flow changes from frame to frame, in pixels.
    `seam`: the change from the last frame to the first, divided by the median change between frames; 1 in a perfect loop.
    `drift`: how much mean and standard deviation of the colours in the last quarter differ from those in the first, in levels.
    `consistency`: the correlation of neighbouring frames; 1 if they are the same.
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


def measures_of(frames: Iterable[Frame]) -> Measures:
    """Returns the measures of a clip of frames `(height, width, 3)`. Only three frames are in memory at a time.

    Raises UnreadableVideo if there are fewer than three.
    """
    first: Floats | None = None
    flows: list[Flow] = []
    colours: list[Floats] = []
    flicker, jitter, steps, correlations = [], [], [], []
    for before, after in pairwise(frames):
        one, other = before.astype(np.float64), after.astype(np.float64)
        if first is None:
            first = one
            colours.append(_colours(one))
        colours.append(_colours(other))
        flows = [*flows[-1:], flow_between(after, before)]  # to where each pixel was before
        jitter += [np.linalg.norm(later - earlier, axis=-1).mean() for earlier, later in pairwise(flows)]
        flicker.append(float(np.abs(warped(before, flows[-1]) - other).mean()))
        steps.append(np.abs(other - one).mean())
        correlations.append(_correlation(one, other))
    if first is None or len(colours) < 3:
        raise UnreadableVideo("it has fewer than three frames, and three are needed to measure it. Use a longer one")
    last_to_first, median = np.abs(other - first).mean(), np.median(steps)
    return Measures(
        frames=len(colours),
        flicker=np.array(flicker),
        jitter=float(np.mean(jitter)),
        seam=float(last_to_first / median) if median > 0 else float(last_to_first > 0),
        drift=_drift(np.array(colours)),
        consistency=float(np.mean(correlations)),
    )


def changes_of(frames: Sequence[Frame]) -> tuple[list[float], float]:
    """Returns the mean changes between neighbouring frames `(height, width, 3)`, and from the last to the first, in levels."""
    steps = [_change(before, after) for before, after in pairwise(frames)]
    return steps, _change(frames[-1], frames[0])


def _change(one: Frame, other: Frame) -> float:
    return float(np.abs(one.astype(np.float32) - other).mean())


def _colours(frame: Floats) -> Floats:
    """Returns mean and standard deviation of the colours of a frame, `(2, 3)`."""
    colours: Floats = np.stack([frame.mean(axis=(0, 1)), frame.std(axis=(0, 1))])
    return colours


def _drift(colours: Floats) -> float:
    """Returns the drift of a clip. `colours`: those of each frame, `(frames, 2, 3)`."""
    part = max(1, len(colours) // QUARTER)
    changes: Floats = np.abs(colours[-part:].mean(axis=0) - colours[:part].mean(axis=0))
    return float(changes.sum(axis=0).mean())


def _correlation(one: Floats, other: Floats) -> float:
    a, b = one - one.mean(), other - other.mean()
    norms = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / norms) if norms > 0 else float(np.array_equal(one, other))


def measured(paths: list[Path]) -> tuple[dict[str, Measures], list[str]]:
    """Returns the measures of video files and folders of frames, by name, and texts on those that cannot be measured.

    Raises MissingDependency.
    """
    measures, faults = {}, []
    for path in paths:
        try:
            measures[str(path)] = measures_of(Video(path))
        except (UnreadableVideo, OSError) as error:
            faults.append(f"{path}: {error}.")
    return measures, faults


def as_table(measures: Mapping[str, Measures]) -> str:
    """Returns a Markdown table with a row for each clip."""
    rows = [["clip", *COLUMNS.values()]]
    for name, measure in measures.items():
        values = [float(np.mean(getattr(measure, column))) for column in COLUMNS]
        rows.append([name, *(f"{value:.3g}" for value in values)])
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def write_plot(measures: Mapping[str, Measures], file: Path) -> None:
    """Writes a plot: flicker by frame with a line for each clip, and bars of the other measures below it.

    Raises MissingDependency, or ValueError if the file has an unknown suffix.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise MissingDependency("Plots need matplotlib, which is not installed. Run `pip install matplotlib`.") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    others = [column for column in COLUMNS if column not in ("frames", "flicker")]
    figure = pyplot.figure(figsize=(9, 7), layout="constrained")
    grid = figure.add_gridspec(2, len(others))
    lines, colours = figure.add_subplot(grid[0, :]), [f"C{index}" for index in range(len(measures))]
    for (name, measure), colour in zip(measures.items(), colours):
        lines.plot(np.arange(2, measure.frames + 1), measure.flicker, color=colour, marker=".", label=Path(name).name)
    lines.set(xlabel="frame", ylabel="flicker (levels)", title="Difference of each frame from the previous one, warped")
    lines.set_ylim(bottom=0)
    lines.legend()
    for index, column in enumerate(others):
        bars = figure.add_subplot(grid[1, index])
        bars.bar(range(len(measures)), [getattr(measure, column) for measure in measures.values()], color=colours)
        bars.set(title=COLUMNS[column], xticks=[])
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
