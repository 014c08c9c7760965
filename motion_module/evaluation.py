"""Measures of clips that need no network: how smoothly they run, whether they close, and how they change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .optical_flow import Flow, flow_between, moved
from .video_reader import Frame, MissingDependency, UnreadableVideo, Video

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


def measures_of(frames: Iterable[Frame]) -> Measures:
    """Measures a clip of frames `(height, width, 3)`. It holds three of them at a time, as clips may be long and large.

    Raises UnreadableVideo where there are fewer than three.
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
        flows = [*flows[-1:], flow_between(after, before)]  # where each pixel was
        jitter += [np.linalg.norm(later - earlier, axis=-1).mean() for earlier, later in pairwise(flows)]
        flicker.append(float(np.abs(moved(before, flows[-1]) - other).mean()))
        steps.append(np.abs(other - one).mean())
        correlations.append(_correlation(one, other))
    if first is None or len(colours) < 3:
        raise UnreadableVideo("it has fewer than three frames, which are the least that can be measured")
    closing, usual = np.abs(other - first).mean(), np.median(steps)
    return Measures(
        frames=len(colours),
        flicker=np.array(flicker),
        jitter=float(np.mean(jitter)),
        seam=float(closing / usual) if usual > 0 else float(closing > 0),
        drift=_drift(np.array(colours)),
        consistency=float(np.mean(correlations)),
    )


def changes_of(frames: Sequence[Frame]) -> tuple[list[float], float]:
    """How much frames `(height, width, 3)` change from each to the next, and from the last to the first: in mean levels."""
    steps = [_change(before, after) for before, after in pairwise(frames)]
    return steps, _change(frames[-1], frames[0])


def _change(one: Frame, other: Frame) -> float:
    return float(np.abs(one.astype(np.float32) - other).mean())


def _colours(picture: Floats) -> Floats:
    """Mean and contrast of its colours, `(2, 3)`."""
    colours: Floats = np.stack([picture.mean(axis=(0, 1)), picture.std(axis=(0, 1))])
    return colours


def _drift(colours: Floats) -> float:
    """`colours`: those of each frame, `(frames, 2, 3)`."""
    part = max(1, len(colours) // QUARTER)
    changes: Floats = np.abs(colours[-part:].mean(axis=0) - colours[:part].mean(axis=0))
    return float(changes.sum(axis=0).mean())


def _correlation(one: Floats, other: Floats) -> float:
    a, b = one - one.mean(), other - other.mean()
    norms = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / norms) if norms > 0 else float(np.array_equal(one, other))


def measured(paths: list[Path]) -> tuple[dict[str, Measures], list[str]]:
    """The measures of video files and folders of frames by name, and what is wrong with others. Raises MissingDependency."""
    found, faults = {}, []
    for path in paths:
        try:
            found[str(path)] = measures_of(Video(path))
        except (UnreadableVideo, OSError) as error:
            faults.append(f"{path}: {error}.")
    return found, faults


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
    """Draws flicker by frame, a line for each clip, and below it bars of the other measures.

    Raises MissingDependency, or ValueError where the name of the file says no format that is known.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise MissingDependency("A plot is drawn with matplotlib, which is not installed: `pip install matplotlib`.") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    others = [column for column in COLUMNS if column not in ("frames", "flicker")]
    figure = pyplot.figure(figsize=(9, 7), layout="constrained")
    grid = figure.add_gridspec(2, len(others))
    lines, colours = figure.add_subplot(grid[0, :]), [f"C{index}" for index in range(len(measures))]
    for (name, measure), colour in zip(measures.items(), colours):
        lines.plot(np.arange(2, measure.frames + 1), measure.flicker, color=colour, marker=".", label=Path(name).name)
    lines.set(xlabel="frame", ylabel="flicker (levels)", title="What of each frame is not the one before it, moved")
    lines.set_ylim(bottom=0)
    lines.legend()
    for index, column in enumerate(others):
        bars = figure.add_subplot(grid[1, index])
        bars.bar(range(len(measures)), [getattr(measure, column) for measure in measures.values()], color=colours)
        bars.set(title=COLUMNS[column], xticks=[])
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
