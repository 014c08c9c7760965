"""The judge's verdicts on many clips, stored in files, and statistics over them with confidence intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from demo.paper.makers import Clip
from demo.world.judge import Reading, read
from demo.world.scenes import Scene
from motion_module.evaluation import measures_of

SEED = 2307_04725
"""The seed of the prompts."""
SURE = 1.96
"""The number of standard deviations to either side that cover 95 % of a normal distribution."""


class MismatchedVerdicts(ValueError):
    """A file holds verdicts on other clips. The text is for the user."""


@dataclass(frozen=True)
class Verdict:
    """What the judge reads in a clip that was made from a scene's caption."""

    scene: Scene
    reading: Reading
    flicker: float
    """The mean over its frames, in levels of 255."""

    def agrees(self, *words: str) -> bool:
        """Returns whether the clip shows all `words` (of "shape", "colour", "background", "motion") as the caption says."""
        return _agrees(self.reading, self.scene, words)


def _agrees(reading: Reading, scene: Scene, words: tuple[str, ...]) -> bool:
    agreement = reading.agrees(scene)
    return all(agreement[word] for word in words)


def verdict(scene: Scene, clip: Clip) -> Verdict:
    return Verdict(scene, read(clip), round(float(np.mean(measures_of(clip).flicker)), 3))


class Verdicts:
    """A file of verdicts, one per line. Its first line says what the clips were made with."""

    def __init__(self, file: Path, made_with: str) -> None:
        """Raises MismatchedVerdicts if the clips of the file were made with something else."""
        self._file = file
        lines = _whole_lines(file)
        if lines and json.loads(lines[0])["made_with"] != made_with:
            raise MismatchedVerdicts(f"{file} is of other weights or of another recipe. Delete it to make its clips again.")
        self._known = [_read(line) for line in lines[1:]]
        self._made_with = made_with

    def of(self, scenes: list[Scene], make: Callable[[Scene, int], Clip]) -> list[Verdict]:
        """Returns a verdict on each scene. Makes and judges clip `i`, with seed `i`, unless the file has its verdict already.

        Raises MismatchedVerdicts if the file is of other scenes.
        """
        if [verdict.scene for verdict in self._known[: len(scenes)]] != scenes[: len(self._known)]:
            raise MismatchedVerdicts(f"{self._file} is of other prompts. Delete it to make its clips again.")
        for index in range(len(self._known), len(scenes)):
            self._add(verdict(scenes[index], make(scenes[index], index)))
            print(f"{self._file.stem}: {index + 1} of {len(scenes)}", end="\r", flush=True)
        return self._known[: len(scenes)]

    def __len__(self) -> int:
        return len(self._known)

    def _add(self, new: Verdict) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as lines:
            if not self._known:
                lines.write(json.dumps({"made_with": self._made_with}) + "\n")
            lines.write(json.dumps(asdict(new)) + "\n")
        self._known.append(new)


def _whole_lines(file: Path) -> list[str]:
    """Returns the complete lines of a file. An incomplete last line, left by a killed process, is removed from it."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        file.write_text(whole, encoding="utf-8")
    return whole.splitlines()


def _read(line: str) -> Verdict:
    entry = json.loads(line)
    return Verdict(Scene(**entry["scene"]), Reading(**entry["reading"]), entry["flicker"])


@dataclass(frozen=True)
class Proportion:
    """A proportion, with its 95 % Wilson score interval."""

    hits: float
    count: int

    @property
    def value(self) -> float:
        return self.hits / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper bound (Wilson, 1927). Unlike the normal interval, it has a width even at 0 % and 100 %."""
        n, p, z = self.count, self.value, SURE
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        reach = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, centre - reach), min(1.0, centre + reach)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.value:.0f} % ({100 * low:.0f}–{100 * high:.0f})"


def agreeing(judged: list[Verdict], *words: str) -> Proportion:
    """Returns the proportion of clips that show these words of their captions."""
    return proportion(verdict.agrees(*words) for verdict in judged)


def agreeing_by_chance(judged: list[Verdict], *words: str) -> Proportion:
    """Returns the proportion for shuffled captions: the mean over every clip with every other clip's caption."""
    hits = sum(_agrees(one.reading, other.scene, words) for one in judged for other in judged if other is not one)
    return Proportion(hits / (len(judged) - 1), len(judged))


def proportion(hits: Iterable[bool]) -> Proportion:
    counted = list(hits)
    return Proportion(sum(counted), len(counted))


@dataclass(frozen=True)
class Mean:
    """A mean with its 95 % confidence interval, `value` ± `reach`."""

    value: float
    reach: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ± {self.reach:.2f}"


def mean(values: Iterable[float]) -> Mean:
    numbers = np.array(list(values))
    return Mean(float(numbers.mean()), float(SURE * numbers.std(ddof=1) / math.sqrt(len(numbers))))
