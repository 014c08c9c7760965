"""Writes the tables and pictures of the experiments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from demo.paper.experiments import Row
from demo.paper.judging import Proportion, Verdict, agreeing, agreeing_by_chance, mean, proportion
from demo.paper.makers import Clip
from demo.world import thresholds
from demo.world.scenes import Scene

HEADINGS = ("", "clips", "colour and shape", "background", "motion", "style kept", "watermark", "flicker (levels)")
SHOWN = 6
"""The number of frames of each clip in a contact sheet."""
LABEL = 170
"""The width of a row's label, in pixels."""


def table(rows: list[tuple[Row, list[Verdict]]]) -> str:
    """Returns a Markdown table: proportions of all clips in percent, with their 95 % intervals."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
    for row, judged in rows:
        lines.append(_line(row.name, row.style, judged, agreeing))
        if row.is_ours:
            lines.append(_line(f"{row.name}, captions shuffled", row.style, judged, agreeing_by_chance))
    return "\n".join(lines)


def _line(name: str, style: str, judged: list[Verdict], agreement: Callable[..., Proportion]) -> str:
    parts = [agreement(judged, *words) for words in (("colour", "shape"), ("background",), ("motion",))]
    parts += [_in_style(judged, style), proportion(verdict.reading.watermark for verdict in judged)]
    return "| " + " | ".join([name, str(len(judged)), *map(str, parts), str(mean(v.flicker for v in judged))]) + " |"


def _in_style(judged: list[Verdict], style: str) -> Proportion:
    return proportion(verdict.reading.style == style for verdict in judged)


def claims(rows: list[tuple[Row, list[Verdict]]]) -> str:
    """Returns a Markdown table of the thresholds that were fixed beforehand, and whether each of our methods reaches them."""
    by_method = {(row.style, row.method): judged for row, judged in rows}
    lines = ["| | found | asked | |", "|---|---|---|---|"]
    for row, judged in rows:
        if row.method == "frame by frame":
            lines.append(_at_most(f"{row.name}: motion", agreeing(judged, "motion"), thresholds.CHANCE["motion"]))
        if row.is_ours:
            lines += _claims_of(row, judged, zero=by_method[row.style, "Text2Video-Zero"])
    return "\n".join(lines)


def _claims_of(row: Row, ours: list[Verdict], zero: list[Verdict]) -> list[str]:
    """Returns the lines for one method. `zero`: the verdicts on Text2Video-Zero in the same style."""
    motion = thresholds.MOTION if row.style == "plain" else thresholds.MOTION_IN_STYLE
    return [
        _at_least(f"{row.name}: colour and shape", agreeing(ours, "colour", "shape"), thresholds.COLOUR_AND_SHAPE),
        _at_least(f"{row.name}: motion", agreeing(ours, "motion"), motion),
        _at_least(f"{row.name}: style kept", _in_style(ours, row.style), thresholds.STYLE_KEPT),
        *(
            _at_most(f"{row.name}: {word}, captions shuffled", agreeing_by_chance(ours, word), chance)
            for word, chance in thresholds.CHANCE.items()
        ),
        _smoother(f"{row.name}: flicker less than Text2Video-Zero's by", ours, zero),
    ]


def _at_least(what: str, found: Proportion, asked: float) -> str:
    return f"| {what} | {found} | at least {100 * asked:.0f} % | {_reached(found.value >= asked)} |"


def _at_most(what: str, found: Proportion, asked: float) -> str:
    return f"| {what} | {found} | at most {100 * asked:.0f} % | {_reached(found.value <= asked)} |"


def _smoother(what: str, ours: list[Verdict], theirs: list[Verdict]) -> str:
    """Compares prompt by prompt, since prompts differ in how much there is to flicker."""
    less = mean(other.flicker - own.flicker for own, other in zip(ours, theirs))
    return f"| {what} | {less} levels, by prompt | more than 0 | {_reached(less.value - less.reach > 0)} |"


def _reached(reached: bool) -> str:
    return "reached" if reached else "**not reached**"


def contact_sheet(rows: list[Row], scene: Scene, seed: int, file: Path) -> None:
    """Writes a PNG with a clip of the scene for each of `rows`: frames at even distances, from the first to the last."""
    clips: list[Clip] = [row.make(scene, seed) for row in rows]
    height, width = clips[0].shape[1:3]
    sheet = Image.new("RGB", (LABEL + SHOWN * width, len(rows) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (row, clip) in enumerate(zip(rows, clips)):
        draw.multiline_text((6, index * height + 6), row.name.replace(", ", ",\n"), fill="black")
        for column, frame in enumerate(np.linspace(0, len(clip) - 1, SHOWN).round().astype(int)):
            sheet.paste(Image.fromarray(clip[frame]), (LABEL + column * width, index * height))
    file.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(file, optimize=True)
