"""What the world's judge says of many clips, kept on disk, and how sure that makes us."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
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


@dataclass(frozen=True)
class Verdict:
    """A clip that was made of a scene's caption. `flicker`: the mean over its frames, in levels."""

    scene: Scene
    reading: Reading
    flicker: float

    def agrees(self, *words: str) -> bool:
        """Whether all these of "shape", "colour", "background" and "motion" are seen as the caption says."""
        agreement = self.reading.agrees(self.scene)
        return all(agreement[word] for word in words)


def verdicts(file: Path, make: Callable[[Scene, int], Clip], scenes: list[Scene]) -> list[Verdict]:
    """Makes and judges a clip of each scene; those that `file` knows, from its first line on, are not made again."""
    known = list(_stored(file))[: len(scenes)]
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as written:
        for index, scene in list(enumerate(scenes))[len(known) :]:
            known.append(verdict(scene, make(scene, index)))
            written.write(json.dumps(asdict(known[-1])) + "\n")
            written.flush()
            print(f"{file.stem}: {index + 1} of {len(scenes)}", end="\r", flush=True)
    return known


def verdict(scene: Scene, clip: Clip) -> Verdict:
    return Verdict(scene, read(clip), round(float(np.mean(measures_of(clip).flicker)), 3))


def _stored(file: Path) -> Iterator[Verdict]:
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        entry = json.loads(line)
        yield Verdict(Scene(**entry["scene"]), Reading(**entry["reading"]), entry["flicker"])


def shuffled(judged: list[Verdict]) -> list[Verdict]:
    """The same clips held against captions of others: how much agrees by chance."""
    places = np.random.default_rng(SEED).permutation(len(judged))
    turned = np.roll(places, 1)
    return [Verdict(judged[other].scene, judged[own].reading, judged[own].flicker) for own, other in zip(places, turned)]


@dataclass(frozen=True)
class Part:
    """How many of how many, with the Wilson interval of 95 %."""

    hits: int
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


def part(hits: Iterable[bool]) -> Part:
    found = list(hits)
    return Part(sum(found), len(found))


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
