"""What the world's judge says of many clips, kept on disk, and how sure that makes us."""

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
"""Of the prompts."""
SURE = 1.96
"""Standard deviations to either side that hold 95 % of a normal distribution."""


class MismatchedVerdicts(ValueError):
    """A file of verdicts is of other clips than those that are asked for. The text is for the user."""


@dataclass(frozen=True)
class Verdict:
    """A clip that was made of a scene's caption. `flicker`: the mean over its frames, in levels."""

    scene: Scene
    reading: Reading
    flicker: float

    def agrees(self, *words: str) -> bool:
        """Whether all these of "shape", "colour", "background" and "motion" are seen as the caption says."""
        return _agrees(self.reading, self.scene, words)


def _agrees(reading: Reading, scene: Scene, words: tuple[str, ...]) -> bool:
    agreement = reading.agrees(scene)
    return all(agreement[word] for word in words)


def verdict(scene: Scene, clip: Clip) -> Verdict:
    return Verdict(scene, read(clip), round(float(np.mean(measures_of(clip).flicker)), 3))


class Verdicts:
    """Verdicts in a file, a line each, below one that says what the clips were made with."""

    def __init__(self, file: Path, made_with: str) -> None:
        """Raises MismatchedVerdicts where the file is of clips that were made with something else."""
        self._file = file
        lines = _whole_lines(file)
        if lines and json.loads(lines[0])["made_with"] != made_with:
            raise MismatchedVerdicts(
                f"{file} is of other weights, or of another recipe. Delete it, and its clips are made anew."
            )
        self._known = [_read(line) for line in lines[1:]]
        self._made_with = made_with

    def of(self, scenes: list[Scene], make: Callable[[Scene, int], Clip]) -> list[Verdict]:
        """Clip `i` is made of scene `i` with seed `i`, unless it was before. Raises MismatchedVerdicts."""
        if [verdict.scene for verdict in self._known[: len(scenes)]] != scenes[: len(self._known)]:
            raise MismatchedVerdicts(f"{self._file} is of other prompts. Delete it, and its clips are made anew.")
        for index in range(len(self._known), len(scenes)):
            self._add(verdict(scenes[index], make(scenes[index], index)))
            print(f"{self._file.stem}: {index + 1} of {len(scenes)}", end="\r", flush=True)
        return self._known[: len(scenes)]

    def __len__(self) -> int:
        return len(self._known)

    def _add(self, found: Verdict) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as lines:
            if not self._known:
                lines.write(json.dumps({"made_with": self._made_with}) + "\n")
            lines.write(json.dumps(asdict(found)) + "\n")
        self._known.append(found)


def _whole_lines(file: Path) -> list[str]:
    """The lines of a file. One that was cut off, as by a kill, is taken out of it."""
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
    """How many of how many, with the Wilson interval of 95 %."""

    hits: float
    count: int

    @property
    def value(self) -> float:
        return self.hits / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson (1927): it is never empty, as the normal one is where all or none hit."""
        n, p, z = self.count, self.value, SURE
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        reach = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, centre - reach), min(1.0, centre + reach)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.value:.0f} % ({100 * low:.0f}–{100 * high:.0f})"


def agreeing(judged: list[Verdict], *words: str) -> Proportion:
    """The clips that show these words of their captions."""
    return proportion(verdict.agrees(*words) for verdict in judged)


def agreeing_by_chance(judged: list[Verdict], *words: str) -> Proportion:
    """The same clips with their captions shuffled: the mean over every clip under the caption of every other one."""
    hits = sum(_agrees(one.reading, other.scene, words) for one in judged for other in judged if other is not one)
    return Proportion(hits / (len(judged) - 1), len(judged))


def proportion(hits: Iterable[bool]) -> Proportion:
    found = list(hits)
    return Proportion(sum(found), len(found))


@dataclass(frozen=True)
class Mean:
    """A mean, and how far from it the true one may be, with 95 %."""

    value: float
    reach: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ± {self.reach:.2f}"


def mean(values: Iterable[float]) -> Mean:
    found = np.array(list(values))
    return Mean(float(found.mean()), float(SURE * found.std(ddof=1) / math.sqrt(len(found))))
